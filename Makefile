# All commands for users. The logic is in src/: a target runs `python -m src <command>`, as .venv/bin/pose-video does.

PYTHON ?= python3
DATASET ?=
RUN ?= dance
SOURCE ?=
CUTS ?=
CAMERA ?=
SIZE ?=
SCORED ?=
MISSING ?=
GPUS ?= 1
MINUTES ?=
GPU ?=
SET ?=
COMPETITION ?=
MESSAGE ?=
ARGS ?=
FRAME ?=
POSES ?=
OUT ?=
GRID ?= dance_lab_schedules
JOBS ?= 1
RUNS ?=
PRED ?=
TRUTH ?=

# By default, a waiting OpenMP thread keeps its core busy. If other programs also need the cores, training becomes up to
# 20 times slower. With "passive", a waiting thread sleeps.
export OMP_WAIT_POLICY ?= passive

# A command of ours that make has started ends with make, also if make is killed. The trainer saves before it ends.
export END_WITH_PARENT := TERM

# Packages of another Python (ROS, conda, a notebook) do not belong to .venv.
unexport PYTHONPATH PYTHONHOME PYTHONSTARTUP

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
py := .venv/bin/python
makefile := $(firstword $(MAKEFILE_LIST))
quoted = '$(subst ','\'',$(value $(1)))'# a variable's text as one word of the shell, with all special characters quoted
shown := DATASET RUN SOURCE CUTS CAMERA SIZE SCORED MISSING GPUS GPU MINUTES SET COMPETITION MESSAGE ARGS FRAME POSES OUT GRID JOBS RUNS PRED TRUTH
define newline


endef
$(foreach name,PYTHON $(shown),$(if $(findstring $(newline),$(value $(name))),$(error $(name) holds a line break; needed: one line)))
unexport PYTHON $(shown)  # otherwise make expands "$" in their texts when it passes them to child processes

# Without this check, make ignores a misspelt variable, or one that the target does not read.
given := $(foreach name,$(.VARIABLES),$(if $(filter command,$(origin $(name))),$(name)))
goals := $(or $(MAKECMDGOALS),help)
# Variables of the environment count too, so a target that reads one says so.
inherited := $(foreach name,$(shown),$(if $(filter environment%,$(origin $(name))),$(name)))
fault := $(shell if command -v $(call quoted,PYTHON) > /dev/null; then $(call quoted,PYTHON) -I -S .ci/variables.py \
	$(call quoted,makefile) $(call quoted,goals) $(call quoted,given) $(call quoted,DATASET) $(call quoted,inherited); fi)
$(if $(fault),$(error $(fault)))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup lock demo data train evaluate submission submit submissions leaderboard kernel predict experiments compare metrics figures report cost bench gpu-check verify test torture audit lint format check clean

help: ## list the targets, and the variables with their values
	@while IFS= read -r line; do \
		case $$line in [a-z]*:*'## '*) printf '  make %-12s %s\n' "$${line%%:*}" "$${line#*\#\# }";; esac; \
	done < $(call quoted,makefile)
	@echo; echo "Variables:"
	@$(foreach name,$(shown),printf '  %-12s %s\n' '$(name)' $(call quoted,$(name));)

setup: ## install the locked dependencies into .venv
	@PYTHON=$(call quoted,PYTHON) sh .ci/setup

lock: setup ## update requirements.lock from pyproject.toml
	@.venv/bin/uv pip compile -q pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header -o requirements.lock

demo: setup ## run all steps on synthetic dancers: data, train, evaluate, submission, report
	@$(py) -m src data --source synthetic --dataset demo
	@$(py) -m src train configs/demo.toml
	@$(py) -m src evaluate demo > /dev/null # the last command prints the table
	@$(py) -m src submission demo
	@$(py) -m src report
	@$(py) -m src scores demo

data: setup ## pack SOURCE=synthetic | synthetic-pushing | kaggle (with COMPETITION=slug) | FILE.zip | FOLDER -> data/DATASET/, verified and packed; SIZE=HxW sets the frame size
	@$(if $(value DATASET),,$(error DATASET=name is needed, the name of the new folder in data/; configs/dance.toml reads DATASET=dance))
	@set -eo pipefail; source=$(call quoted,SOURCE); \
	if [ "$$source" = kaggle ]; then \
		source=$$($(py) -m src download --competition $(call quoted,COMPETITION) --folder data/.downloads \
			| tee >(cat >&2) | tail -n 1); \
	fi; \
	exec $(py) -m src data --source "$$source" --dataset $(call quoted,DATASET) $(if $(value CUTS),--cuts $(call quoted,CUTS)) \
		$(if $(value CAMERA),--camera $(call quoted,CAMERA)) $(if $(value SIZE),--size $(call quoted,SIZE)) \
		$(if $(value SCORED),--scored $(call quoted,SCORED)) $(if $(value MISSING),--missing $(call quoted,MISSING))

train: setup ## train configs/RUN.toml -> runs/RUN/; repeat the command to resume; MINUTES=30 chooses settings that fit the time
	@$(py) -m src train $(call quoted,RUN) --gpus $(call quoted,GPUS) --minutes $(call quoted,MINUTES) \
		--set $(call quoted,SET)

evaluate: setup ## roll out the validation data with RUN -> runs/RUN/scores.json, plots, GIF; ARGS=--all prints every number
	@$(py) -m src evaluate $(call quoted,RUN) --set $(call quoted,SET) --args=$(call quoted,ARGS)

submission: setup ## roll out the test sequences with RUN -> submissions/RUN.csv and .json, checked; needs no network
	@$(py) -m src submission $(call quoted,RUN) --set $(call quoted,SET)

submit: setup ## upload submissions/RUN.csv to COMPETITION once, with MESSAGE, and wait for the score; ARGS="--team NAME | --again | --plain-csv | --force-stale | --deadline S"
	@$(py) -m src submit --run $(call quoted,RUN) --competition $(call quoted,COMPETITION) \
		--message=$(call quoted,MESSAGE) --args=$(call quoted,ARGS)

submissions: setup ## list all submissions and their scores; ARGS=--refresh asks Kaggle first
	@$(py) -m src submissions --args=$(call quoted,ARGS)

leaderboard: setup ## show the top of COMPETITION's leaderboard and your place; ARGS="--team NAME --rows N"
	@$(py) -m src leaderboard --competition $(call quoted,COMPETITION) --args=$(call quoted,ARGS)

kernel: setup ## train RUN on Kaggle's GPU and bring it back, ready for `make submit`; repeat the command to go on; GPUS=2 uses both T4
	@$(py) -m src kernel --run $(call quoted,RUN) --competition $(call quoted,COMPETITION) --folder kernel \
		--gpus $(call quoted,GPUS) --args=$(call quoted,ARGS)

predict: setup ## draw a clip with RUN from your own FRAME=first.png and POSES=folder -> OUT=x.gif | x.webp | x.mp4 | folder
	@$(py) -m src predict $(call quoted,RUN) --frame $(call quoted,FRAME) --poses $(call quoted,POSES) \
		--out $(if $(value OUT),$(call quoted,OUT),prediction.gif) --set $(call quoted,SET)

experiments: setup ## train every arm and seed of GRID -> reports/<grid>.md, JOBS runs at a time; repeat the command to resume; ARGS=--anew ignores kept results
	@$(py) -m src experiments $(call quoted,GRID) --jobs $(call quoted,JOBS) --args=$(call quoted,ARGS)

compare: setup ## compare the trained runs RUNS="a b c" -> reports/compare.md and figures; runs that differ in their seed become one arm
	@$(py) -m src compare $(call quoted,RUNS)

figures: setup ## write the figures of RUN for a paper or a talk -> reports/figures/<run>/: SVG, PDF, PNG, GIF, MP4
	@$(py) -m src figures $(call quoted,RUN)

metrics: setup ## score anyone's predictions: pictures in PRED=folder against those in TRUTH=folder; OUT=numbers.json; ARGS="--protocol NAME"
	@$(py) -m src metrics --pred $(call quoted,PRED) --truth $(call quoted,TRUTH) --out $(call quoted,OUT) --args=$(call quoted,ARGS)

report: setup ## write reports/index.html, one file with a player, tables and curves; RUNS="a b" OUT=page.html for some runs
	@$(py) -m src report --runs $(call quoted,RUNS) --out $(call quoted,OUT)

cost: setup ## estimate the parameters, arithmetic, memory and hours of RUN before training, on GPU=t4 | p100 | h100 | h200
	@$(py) -m src cost $(call quoted,RUN) --gpu $(call quoted,GPU) --set $(call quoted,SET)

bench: setup ## measure the speed, compared with plain loops
	@$(py) -m src bench

gpu-check: setup ## check what needs a GPU, as much as fits into 9 minutes -> reports/gpu.md, reports/gpu.json
	@$(py) -m src gpu-check

verify: setup ## check data sets, runs, csv files and reports against their hashes; DATASET=name or RUN=name checks one
	@$(py) -m src verify --dataset $(call quoted,DATASET) --run $(if $(filter file,$(origin RUN)),'',$(call quoted,RUN))

test: setup ## run all tests; they need no network, no data and no GPU
	@$(py) -m pytest --numprocesses 3 --dist worksteal

torture: setup ## attack the pipeline: kills, damaged files, full disks, two commands at once -> docs/reliability.md
	@$(py) -m tests.torture

audit: setup ## check the installed packages: versions, known vulnerabilities, licences
	@$(py) .ci/audit.py

lint: setup ## run ruff and mypy
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy

format: setup ## format the code and fix what ruff can fix
	@.venv/bin/ruff check --fix .
	@.venv/bin/ruff format .

check: lint test ## run lint, then test

clean: ## remove caches and the report; data, runs and submissions stay, also unfinished packings (data/.NAME.*)
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis reports/index.html reports/figures
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
