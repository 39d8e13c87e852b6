# Everything a user does, one target each. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BENCH := set -f; $(BIN)/python -m bench
SWEEP ?= demo

# Values are taken as they are, even with `$` in them, and reach the recipes through the environment: no shell reads a
# folder's name. ARGS alone is a piece of a command line: several words, with quotes where the shell needs them.
VALUES := PYTHON SWEEP DATA TO LAUNCHER ONLY LIMIT SEEDS SEARCH CORPUS REFERENCE CURRENT RUN MODEL TASKS
$(foreach name,$(VALUES),$(eval override $(name) := $$(value $(name))))
export $(VALUES)
ARGS ?=
OVERRIDES = $${DATA:+"data.root=$$DATA"} $(ARGS)
TEXTS = $${REFERENCE:+"--reference=$$REFERENCE"} $${CURRENT:+"--current=$$CURRENT"}
ONLIES = $${ONLY:+$$(printf -- '--only=%s ' $$ONLY)}
CHOSEN = "sweep=$$SWEEP" $(OVERRIDES) $${LAUNCHER:+"launcher=$$LAUNCHER"} $(ONLIES) $${LIMIT:+"--limit=$$LIMIT"} $${SEEDS:+"--seeds=$$SEEDS"} $(TEXT)
TEXT = $${CORPUS:+"?pretraining.corpus=$$CORPUS"}

.DEFAULT_GOAL := help
.PHONY: help install fetch tasks pretrain demo sweep plan status retry cancel choose gc report gate rescore pack submit perf search fit latency cost coverage drift reassign export test faults lint typecheck clean

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

install: $(VENV)/.installed  ## Create .venv and install everything, versions from constraints.txt

$(VENV)/.installed: pyproject.toml constraints.txt
	@if "$$PYTHON" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2> /dev/null; then "$$PYTHON" -m venv $(VENV); \
	elif command -v uv > /dev/null; then uv venv --seed --allow-existing --python 3.12 $(VENV); \
	else echo "Python 3.11 to 3.14 is needed, $$PYTHON is $$("$$PYTHON" --version 2>&1): run make PYTHON=python3.12, or install uv, which gets one" >&2; exit 1; fi
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,multilingual,onnx,search,serve,slurm]'
	@touch $@

fetch: install  ## Download models and data once: MODEL=<name,...> TASKS=<name,...>; nothing else needs the hub
	$(BENCH) fetch $${MODEL:+"--models=$$MODEL"} $${TASKS:+"--tasks=$$TASKS"}

tasks: install  ## List every task's splits: rows found (DATA=<folder>) against official rows
	$(BENCH) tasks $(OVERRIDES)

demo: install  ## Print ten sentences as a dense and a compressed model judge them, in five languages, too. ARGS=model=all-minilm-l6-v2
	@$(BENCH) demo $(ARGS)

pretrain: install  ## Pretrain the model of ARGS="model=bert-small-6x384 embedding=... pretraining=masked_lm", or all of SWEEP, on the text CORPUS=<file or folder>
	$(BENCH) pretrain $(if $(filter demo,$(SWEEP)),,"sweep=$$SWEEP") $(OVERRIDES) $(ONLIES) $(TEXT)

sweep: install  ## Run what is missing of SWEEP (default: demo), then report. DATA=<folder> LAUNCHER=local|slurm ONLY=task=mrpc LIMIT=<n> SEEDS=<n> CORPUS=<text of a pretraining> ARGS="key=value ..."
	$(BENCH) sweep $(CHOSEN)

plan: install  ## Show what `make sweep` would run
	$(BENCH) plan $(CHOSEN)

status: install  ## Show done, running, queued and failed runs of SWEEP
	$(BENCH) status $(CHOSEN)

retry: install  ## Run the failed runs of SWEEP again
	$(BENCH) retry $(CHOSEN)

cancel: install  ## Stop SWEEP wherever it runs; `make sweep` goes on from there
	$(BENCH) cancel $(CHOSEN)

choose: install  ## Write the best trial of each kind of table of SWEEP (default: tune) to conf/tuned/. ARGS="results_dir=results/tune"
	$(BENCH) choose $(if $(filter demo,$(SWEEP)),sweep=tune,"sweep=$$SWEEP") $(OVERRIDES)

gc: install  ## Show caches and orphaned files; ARGS=--delete removes them, never records or pretrained models
	$(BENCH) gc $(ARGS)

report: install  ## Write tables, figures, INDEX.md and brief.html from the records. ARGS="report.language=ja --against <folder> ..."
	$(BENCH) report $(ARGS)

gate: install  ## Fail if a limit of conf/gate/ is broken. ARGS="gate=<name> gate.configuration=<as in the tables> ..."
	$(BENCH) gate $(ARGS)

perf: install  ## Measure the Trainer and our engines by turns, into results/perf/; goes on where it was cut off. ARGS="perf.backbones=[...] ..."
	$(BENCH) perf $(ARGS)
	$(BENCH) chart $(ARGS)

rescore: install  ## Compute every metric again from stored predictions, without training
	$(BENCH) rescore $(OVERRIDES)

pack: install  ## Pack stored predictions into results/packed_predictions/, which git keeps
	$(BENCH) pack $(OVERRIDES)

submit: install  ## Write GLUE's submission zip TO=<file.zip> (default: glue.zip) from the runs of SWEEP (default: glue_test)
	$(BENCH) submit $(if $(filter demo,$(SWEEP)),sweep=glue_test,"sweep=$$SWEEP") "--to=$${TO:-glue.zip}" $(OVERRIDES)

search: install  ## Find the front of accuracy against stored bytes: SEARCH=<name> (default: demo); go on with the same command
	$(BENCH) search "search=$${SEARCH:-demo}" $(OVERRIDES) $${LAUNCHER:+"launcher=$$LAUNCHER"}

fit: install  ## Measure how well the embeddings of SWEEP fit the table, without training (default: budget)
	$(BENCH) fit $(if $(filter demo,$(SWEEP)),sweep=budget,"sweep=$$SWEEP") $(OVERRIDES)

latency: install  ## Measure latency, memory and cold start of SWEEP's embeddings beside dense, into its records, too. ARGS="device=cuda ..."
	$(BENCH) latency "sweep=$$SWEEP" $(OVERRIDES) $(ONLIES)

cost:
	@echo "make cost is called make latency now: make latency SWEEP=$$SWEEP" >&2; exit 2

coverage: install  ## Say how the text CORPUS=<file> is covered by vocabulary and embedding. ARGS="key=value ..."
	$(BENCH) coverage $${CORPUS:+"--corpus=$$CORPUS"} $(OVERRIDES)

drift: install  ## Compare the text CURRENT=<file> with REFERENCE=<file>, which an embedding was made for; fails past a limit. ARGS="all-minilm-l6-v2 drift.unseen=0.1 ..."
	$(BENCH) drift $(TEXTS) $(OVERRIDES)

reassign: install  ## Make the embedding's codes and tables for CURRENT=<file>: error and coverage before and after
	$(BENCH) reassign $(TEXTS) $(OVERRIDES)

export: install  ## Write the model of RUN=<id> to the folder TO=<folder>. ARGS="--onnx --int8 --evaluate --materialise --retrain key=value ..."; without RUN, ARGS="--encoder key=value ..." writes an encoder without a task
	$(BENCH) export $${RUN:+"$$RUN"} $(OVERRIDES) $${TO:+"--to=$$TO"}

test: install  ## Run the tests; on a machine with a GPU those that need it: ARGS="-m gpu"
	$(BIN)/python -m pytest -n auto --dist worksteal -rs $(ARGS)

faults: install  ## 200 tiny runs on 4 workers and two further sweeps under kill -9, frozen holders, torn records, a full disk. ARGS="--runs 2000 --every 10"
	$(BIN)/python -m tests.support.faults $(ARGS)

lint: install  ## Check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .

typecheck: install  ## Check types
	$(BIN)/mypy

clean:  ## Delete the environment and caches; results/ stays
	rm -rf $(VENV) .cache .pytest_cache .mypy_cache .ruff_cache *.egg-info
	find bench tests -name __pycache__ -type d -prune -exec rm -rf {} +
