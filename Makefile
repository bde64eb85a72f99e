# HyMiRec on one machine. `make help` lists the commands.
# State lives in var/, the environment in .venv; infra/local_env.py sets every variable that Airflow, Spark and MLflow see.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Every shell has a USER of its own; only one given on make's command line names a person to inspect.
ifeq ($(origin USER),command line)
override PERSON := $(USER)
endif

# Values reach the commands through the environment, so that no shell ever splits or expands them.
export DATA DS WAREHOUSE PROFILE RETRAIN RECODE PROMOTE DRIFT TO REASON PERSON A B AIRFLOW_PORT MLFLOW_PORT PYTHON

PYTHON_BIN := .venv/bin/python
IN_ENV := $(PYTHON_BIN) -m infra.local_env --
CHOSEN_WAREHOUSE := "$${WAREHOUSE:-$${HYMIREC_WAREHOUSE:-$${HYMIREC_STATE:-var}/warehouse}}"
REFRESH := $(PYTHON_BIN) -m infra.refresh

##@ Start here
.PHONY: help demo test
help: ## Show this list
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@/ { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo

demo: setup ## One day of real purchases through the whole DAG; run again for the next day
	@$(REFRESH) demo

test: setup ## All tests, in two processes; PYTEST="-k name" chooses some
	@$(IN_ENV) $(PYTHON_BIN) -m pytest -n 2 --no-loadscope-reorder $(PYTEST)

##@ One day in the foreground
.PHONY: run inspect compare rollback
run: setup ## Refresh day DS=YYYY-MM-DD [WAREHOUSE=URI] [PROFILE=NAME] [RETRAIN=always] [RECODE=always] [PROMOTE=never] [DRIFT=accept]
	@$(REFRESH) run

inspect: setup ## One person's history, interests and retrieved items: USER=ID [WAREHOUSE=URI]
	@test -n "$${PERSON:-}" || { echo "error: which person? make inspect USER=2375" >&2; exit 2; }
	@$(IN_ENV) $(PYTHON_BIN) -m jobs.inspect_user --warehouse $(CHOSEN_WAREHOUSE) "$$PERSON"

compare: setup ## Who changes from release A to release B, and by how much: [A=ID] [B=ID] [WAREHOUSE=URI]
	@$(IN_ENV) $(PYTHON_BIN) -m jobs.compare_releases --warehouse $(CHOSEN_WAREHOUSE) \
	  $${A:+--a "$$A"} $${B:+--b "$$B"}

rollback: setup ## Back to the release before, or to TO=ID: REASON="click rate fell" [WAREHOUSE=URI]
	@test -n "$${REASON:-}" || { echo 'error: why? make rollback REASON="click rate fell"; it goes on record' >&2; exit 2; }
	@$(IN_ENV) $(PYTHON_BIN) -m jobs.rollback --warehouse $(CHOSEN_WAREHOUSE) --reason "$$REASON" $${TO:+--to "$$TO"}

##@ Airflow and MLflow as services on this machine
.PHONY: up down status trigger
up: setup ## Start Airflow and MLflow [AIRFLOW_PORT=8080] [MLFLOW_PORT=5000]
	@$(IN_ENV) $(PYTHON_BIN) -m infra.services up

down: ## Stop them, with everything they started
	@test ! -x $(PYTHON_BIN) || $(IN_ENV) $(PYTHON_BIN) -m infra.services down

status: setup ## What is running, and how the latest refreshes went
	@$(IN_ENV) $(PYTHON_BIN) -m infra.services status

trigger: setup ## Refresh under the scheduler [DS=YYYY-MM-DD] [WAREHOUSE=URI] [PROFILE=NAME] [RETRAIN=always] [RECODE=always] [PROMOTE=never] [DRIFT=accept]
	@$(REFRESH) trigger

##@ Measuring
.PHONY: bench-quality bench-codebook bench-codebook-scale bench-drift bench-input-drift bench-index bench-embed
.PHONY: bench-faults bench-scale bench-backfill bench-matching bench-train
bench-quality: setup ## HyMiRec beside SASRec and others on a log: DATA=ml-1m [ARGS="--by-time --seeds 1"]
	@.venv/bin/uv pip install -q --python $(PYTHON_BIN) --target var/rectools --no-deps -r benchmarks/rectools.txt
	@$(IN_ENV) env OMP_NUM_THREADS=1 $(PYTHON_BIN) -m benchmarks.quality --data "$${DATA:?which log? make bench-quality DATA=ml-1m}" $(ARGS)

bench-codebook: setup ## Our codebook beside faiss and others at equal bytes [ARGS="--data ml-1m --bytes 8"]
	@.venv/bin/uv pip install -q --python $(PYTHON_BIN) --target var/peers --no-deps -r benchmarks/requirements.txt
	@$(IN_ENV) env PYTHONPATH=var/peers $(PYTHON_BIN) -m benchmarks.codebook $(ARGS)

bench-codebook-scale: setup ## Its jobs on up to 10 M items: memory, Spark beside one process [ARGS="--items 100000"]
	@$(IN_ENV) $(PYTHON_BIN) -m benchmarks.codebook_scale $(ARGS)

bench-drift: setup ## The codebook and a year of new items [ARGS="--seeds 1"]
	@$(IN_ENV) $(PYTHON_BIN) -m benchmarks.drift $(ARGS)

bench-input-drift: setup ## Damaged days beside true ones: what check_inputs stops, and what it should not
	@$(IN_ENV) env OMP_NUM_THREADS=1 $(PYTHON_BIN) -m benchmarks.input_drift

bench-index: setup ## The ANN index beside faiss' defaults, usearch and hnswlib [ARGS="--items 10000"]
	@.venv/bin/uv pip install -q --python $(PYTHON_BIN) --target var/peers --no-deps -r benchmarks/requirements.txt
	@$(IN_ENV) env OMP_NUM_THREADS=1 PYTHONPATH=var/peers $(PYTHON_BIN) -m benchmarks.index $(ARGS)

bench-scale: setup ## A day's cost beside the history's, beside DuckDB; 1 M to 100 M events [ARGS="--events 1000000"]
	@.venv/bin/uv pip install -q --python $(PYTHON_BIN) --target var/peers --no-deps -r benchmarks/requirements.txt
	@$(IN_ENV) env PYTHONPATH=var/peers $(PYTHON_BIN) -m benchmarks.scale $(ARGS)

bench-backfill: setup ## 30 days by Airflow, with a task killed and without; what a day costs [ARGS="--days 3"]
	@$(IN_ENV) env OMP_NUM_THREADS=1 $(PYTHON_BIN) -m benchmarks.backfill $(ARGS)

bench-embed: setup ## Our content encoder beside sentence-transformers on the same weights [ARGS="--texts 256"]
	@.venv/bin/uv pip install -q --python $(PYTHON_BIN) --target var/peers --no-deps -r benchmarks/requirements.txt
	@$(IN_ENV) env PYTHONPATH=var/peers $(PYTHON_BIN) -m benchmarks.embed $(ARGS)

bench-faults: setup ## Kill, starve and feed garbage to every job of a day [ARGS="--only kill --kills 1"]
	@$(IN_ENV) env OMP_NUM_THREADS=1 $(PYTHON_BIN) -m benchmarks.faults $(ARGS)

bench-matching: setup ## Batched matching and clustering beside scipy and numpy, a sample at a time [ARGS="--turns 50"]
	@$(IN_ENV) env OMP_NUM_THREADS=1 $(PYTHON_BIN) -m benchmarks.matching $(ARGS)

bench-train: setup ## A training step beside its language model alone: time, FLOP utilisation, bytes [ARGS="--layers 2"]
	@$(IN_ENV) env OMP_NUM_THREADS=1 $(PYTHON_BIN) -m benchmarks.train $(ARGS)

##@ Upkeep
.PHONY: setup lock lint docs audit clean
setup: ## Make .venv from requirements.lock (the other commands do it when needed)
	@infra/setup.sh

lock: ## Write requirements.lock anew from requirements.txt; UPGRADE=1 takes newer indirect versions
	@$(PYTHON_BIN) -m infra.lock $(if $(UPGRADE),--upgrade)

lint: setup ## Format and fix what can be fixed, then check types and imports
	@.venv/bin/ruff check --fix .
	@.venv/bin/ruff format .
	@.venv/bin/mypy
	@.venv/bin/lint-imports

docs: setup ## Write docs/configuration.md anew from the texts of the settings
	@$(PYTHON_BIN) -m infra.config_docs

audit: setup ## Known vulnerabilities of the locked packages; needs a connection
	@.venv/bin/uv pip install -q --python $(PYTHON_BIN) --target var/audit pip-audit==2.10.1
	@PYTHONPATH=var/audit $(PYTHON_BIN) -m infra.audit

clean: ## Stop the services and remove all state: warehouse, runs, logs, downloaded models
	@state="$${HYMIREC_STATE:-var}"; \
	if [ "$$state" != var ] && [ ! -e "$$state/airflow/jwt_secret" ]; then \
	  echo "error: HYMIREC_STATE: seen $$state, which holds no state of ours; nothing removed" >&2; exit 2; \
	fi; \
	$(MAKE) down; \
	if [ "$$state" = var ]; then rm -rf var; \
	else cd "$$state" && rm -rf airflow cache log mlflow models run warehouse; fi  # what else is there is not ours
