# Every command a person runs. The logic is in src/; a stage is also `python -m src.<stage>`.

PYTHON ?= python3
DATASET ?= dance
RUN ?= dance
SOURCE ?=
CUTS ?=
CAMERA ?=
GPUS ?= 1
SET ?=
COMPETITION ?=
MESSAGE ?=
FRAME ?=
POSES ?=
OUT ?= prediction.gif
GRID ?= configs/experiments/dance_lab_schedules.toml

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
py := .venv/bin/python
shown := DATASET RUN SOURCE CUTS CAMERA GPUS SET COMPETITION MESSAGE FRAME POSES OUT GRID

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup lock demo data train evaluate submission submit submissions leaderboard kernel predict experiments report bench test lint format check clean

help: ## list the targets and the variables' present values
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo; echo "Variables:"
	@$(foreach name,$(shown),printf '  %-12s %s\n' '$(name)' '$(value $(name))';)

setup: ## .venv with the locked dependencies
	@PYTHON="$(PYTHON)" sh .ci/setup

lock: setup ## resolve pyproject.toml anew into requirements.lock
	@.venv/bin/uv pip compile -q pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header -o requirements.lock

demo: setup ## the whole job on synthetic dancers: data, train, evaluate, submission, report
	@$(py) -m src.packing --source synthetic --dataset demo
	@$(py) -m src.trainer configs/demo.toml
	@$(py) -m src.tester evaluate demo
	@$(py) -m src.tester submission demo
	@$(py) -m src.report
	@$(py) -m src.tester scores demo

data: setup ## SOURCE=synthetic | synthetic-pushing | kaggle (with COMPETITION=slug) | FILE.zip | FOLDER -> data/DATASET/, verified and packed
	@source="$(SOURCE)"; \
	if [ "$$source" = kaggle ]; then \
		source=$$($(py) -m src.kaggle_client download --competition "$(COMPETITION)" --folder data/.downloads \
			| tee /dev/stderr | tail -n 1); \
	fi; \
	$(py) -m src.packing --source "$$source" --dataset "$(DATASET)" $(if $(CUTS),--cuts "$(CUTS)") \
		$(if $(CAMERA),--camera "$(CAMERA)")

ifneq ($(filter train evaluate submission,$(MAKECMDGOALS)),)
ifeq ($(origin DATASET),command line)
$(error a run reads the data set its configuration names; use SET="dataset=$(DATASET)" with make train)
endif
endif

train: setup ## configs/RUN.toml -> runs/RUN/; the same command goes on with a stopped run
	@$(py) -m src.trainer "configs/$(RUN).toml" --gpus "$(GPUS)" --set '$(SET)'

evaluate: setup ## validation rollout of RUN -> runs/RUN/scores.json, plots, GIF
	@$(py) -m src.tester evaluate "$(RUN)"

submission: setup ## test rollout of RUN -> submissions/RUN.csv and .json, checked; no network
	@$(py) -m src.tester submission "$(RUN)"

submit: setup ## uploads submissions/RUN.csv to COMPETITION once, with MESSAGE, and waits for the score
	@$(py) -m src.kaggle_client submit --run "$(RUN)" --competition "$(COMPETITION)" --message="$(MESSAGE)"

submissions: setup ## the ledger of what was submitted, and its scores
	@$(py) -m src.kaggle_client submissions

leaderboard: setup ## the top of COMPETITION's leaderboard, and our place
	@$(py) -m src.kaggle_client leaderboard --competition "$(COMPETITION)"

kernel: setup ## a folder kernel/ that trains RUN on Kaggle's GPU, for `kaggle kernels push`
	@$(py) -m src.kaggle_client kernel --run "$(RUN)" --competition "$(COMPETITION)" --folder kernel

predict: setup ## RUN on your own FRAME=first.png and POSES=folder -> OUT=out.gif
	@$(py) -m src.tester predict "$(RUN)" --frame "$(FRAME)" --poses "$(POSES)" --out "$(OUT)"

experiments: setup ## every arm and seed of GRID -> reports/<grid>.md; the same command goes on with a stopped grid
	@$(py) -m src.experiments "$(GRID)"

report: setup ## reports/index.html: table of runs, curves, rollouts
	@$(py) -m src.report

bench: setup ## speed, side by side with the plain loop, in one run
	@$(py) -m src.benchmark

test: setup ## all tests; no network, no data, no GPU needed
	@$(py) -m pytest

lint: setup ## ruff and mypy
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy

format: setup ## format and mend what ruff can
	@.venv/bin/ruff check --fix .
	@.venv/bin/ruff format .

check: lint test ## lint, then test

clean: ## remove caches and the report; data, runs and submissions stay
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis reports/index.html reports/figures
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
