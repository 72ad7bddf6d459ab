# Every command a person runs. The logic is in src/; a stage is also `python -m src.<stage>`.

PYTHON ?= python3
DATASET ?=
RUN ?= dance
SOURCE ?=
CUTS ?=
CAMERA ?=
GPUS ?= 1
SET ?=
COMPETITION ?=
MESSAGE ?=
ARGS ?=
FRAME ?=
POSES ?=
OUT ?= prediction.gif
GRID ?= configs/experiments/dance_lab_schedules.toml

# A thread that waits for another by spinning takes the core from it where other programs use the cores, too:
# training was 20 times slower then. Asleep it costs nothing.
export OMP_WAIT_POLICY ?= passive

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
py := .venv/bin/python
makefile := $(firstword $(MAKEFILE_LIST))
quoted = '$(subst ','\'',$(value $(1)))'# a variable's text as one word of the shell, whatever is in it
shown := DATASET RUN SOURCE CUTS CAMERA GPUS SET COMPETITION MESSAGE ARGS FRAME POSES OUT GRID
unexport $(shown)  # else make expands what a text contains, for the environment of its children

# A variable that no rule reads would be ignored in silence, and so would one that this target does not read.
given := $(foreach name,$(.VARIABLES),$(if $(filter command,$(origin $(name))),$(name)))
goals := $(or $(MAKECMDGOALS),help)
fault := $(shell if command -v $(call quoted,PYTHON) > /dev/null; then $(call quoted,PYTHON) -I -S .ci/variables.py \
	$(call quoted,makefile) $(call quoted,goals) $(call quoted,given) $(call quoted,DATASET); fi)
$(if $(fault),$(error $(fault)))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup lock demo data train evaluate submission submit submissions leaderboard kernel predict experiments report cost bench test lint format check clean

help: ## list the targets and the variables' present values
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo; echo "Variables:"
	@$(foreach name,$(shown),printf '  %-12s %s\n' '$(name)' $(call quoted,$(name));)

setup: ## .venv with the locked dependencies
	@PYTHON="$(PYTHON)" sh .ci/setup

lock: setup ## resolve pyproject.toml anew into requirements.lock
	@.venv/bin/uv pip compile -q pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header -o requirements.lock

demo: setup ## the whole job on synthetic dancers: data, train, evaluate, submission, report
	@$(py) -m src.packing --source synthetic --dataset demo
	@$(py) -m src.trainer configs/demo.toml
	@$(py) -m src.tester evaluate demo > /dev/null # its table comes last
	@$(py) -m src.tester submission demo
	@$(py) -m src.report
	@$(py) -m src.tester scores demo

data: setup ## SOURCE=synthetic | synthetic-pushing | kaggle (with COMPETITION=slug) | FILE.zip | FOLDER -> data/DATASET/, verified and packed
	@$(if $(value DATASET),,$(error DATASET=name is needed, the folder to make below data/; configs/dance.toml reads DATASET=dance))
	@source=$(call quoted,SOURCE); \
	if [ "$$source" = kaggle ]; then \
		source=$$($(py) -m src.kaggle_client download --competition $(call quoted,COMPETITION) --folder data/.downloads \
			| tee >(cat >&2) | tail -n 1); \
	fi; \
	$(py) -m src.packing --source "$$source" --dataset $(call quoted,DATASET) $(if $(value CUTS),--cuts $(call quoted,CUTS)) \
		$(if $(value CAMERA),--camera $(call quoted,CAMERA))

train: setup ## configs/RUN.toml -> runs/RUN/; the same command goes on with a stopped run
	@$(py) -m src.trainer configs/$(call quoted,RUN).toml --gpus $(call quoted,GPUS) --set $(call quoted,SET)

evaluate: setup ## validation rollout of RUN -> runs/RUN/scores.json, plots, GIF
	@$(py) -m src.tester evaluate $(call quoted,RUN) --set $(call quoted,SET)

submission: setup ## test rollout of RUN -> submissions/RUN.csv and .json, checked; no network
	@$(py) -m src.tester submission $(call quoted,RUN) --set $(call quoted,SET)

submit: setup ## uploads submissions/RUN.csv to COMPETITION once, with MESSAGE, and waits for the score; ARGS="--team NAME | --again | --force-stale | --deadline S"
	@$(py) -m src.kaggle_client submit --run $(call quoted,RUN) --competition $(call quoted,COMPETITION) \
		--message=$(call quoted,MESSAGE) $(value ARGS)

submissions: setup ## the ledger of what was submitted, and its scores; ARGS=--refresh asks Kaggle first
	@$(py) -m src.kaggle_client submissions $(value ARGS)

leaderboard: setup ## the top of COMPETITION's leaderboard, and our place; ARGS="--team NAME --rows N"
	@$(py) -m src.kaggle_client leaderboard --competition $(call quoted,COMPETITION) $(value ARGS)

kernel: setup ## a folder kernel/ that trains RUN on Kaggle's GPU, for `kaggle kernels push`
	@$(py) -m src.kaggle_client kernel --run $(call quoted,RUN) --competition $(call quoted,COMPETITION) --folder kernel \
		$(value ARGS)

predict: setup ## RUN on your own FRAME=first.png and POSES=folder -> OUT=out.gif
	@$(py) -m src.tester predict $(call quoted,RUN) --frame $(call quoted,FRAME) --poses $(call quoted,POSES) \
		--out $(call quoted,OUT) --set $(call quoted,SET)

experiments: setup ## every arm and seed of GRID -> reports/<grid>.md; the same command goes on with a stopped grid
	@$(py) -m src.experiments $(call quoted,GRID)

report: setup ## reports/index.html: table of runs, curves, rollouts
	@$(py) -m src.report

cost: setup ## parameters, arithmetic, memory and hours of RUN before it is started
	@$(py) -m src.cost configs/$(call quoted,RUN).toml --set $(call quoted,SET)

bench: setup ## speed, side by side with the plain loop, in one run
	@$(py) -m src.benchmark

test: setup ## all tests; no network, no data, no GPU needed
	@$(py) -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

lint: setup ## ruff and mypy
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy

format: setup ## format and mend what ruff can
	@.venv/bin/ruff check --fix .
	@.venv/bin/ruff format .

check: lint test ## lint, then test

clean: ## remove caches and the report; data, runs and submissions stay (a packing begun, too: rm -r data/.NAME.*)
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis reports/index.html reports/figures
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
