# make train, test, reproduce, soak, test-browser, test-simgpu, test-nvrtc, lint, parity, bench, docs, exercise N=3: each target
# makes the virtual environment that it needs, in $(VENV).
PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
RUN = $(VENV)/bin/python
PIP_INSTALL = install -q --disable-pip-version-check -c constraints.txt

SEED ?= 0
EXPERIMENTS ?= 1000
GPU_TESTS = autodiff functional kernels inspection nn optim parallel/test_gpu.py alexnet/test_training.py alexnet/test_statistics.py \
	alexnet/test_explanation.py

.PHONY: train test reproduce soak test-browser test-simgpu test-nvrtc lint parity bench docs exercise clean

train: $(VENV)/made
	$(RUN) train.py --data digits

test: $(VENV)/made-test
	$(RUN) -m pytest -q

# The claims of the AlexNet paper and of the study deck: prints the plan, with the time that each part takes here. PART=pooling
# runs a part, PART=all runs all.
reproduce: $(VENV)/made
	@$(RUN) -m alexnet reproduce $(PART)

# Random experiments on runs, from SEED: files are damaged, command lines made up, processes stopped and killed at any moment.
soak: $(VENV)/made-test
	$(RUN) -m tests.soak --experiments $(EXPERIMENTS) --seed $(SEED)

# The pages that the program writes, and the explorer, in headless Chromium, which must be installed.
test-browser: $(VENV)/made-browser
	$(RUN) -m pytest -q tests/alexnet/test_report_in_browser.py tests/docs/test_explorer.py

# The CuPy code on three simulated GPUs. They execute queued work in a random one of the allowed orders, from SEED. Needs g++.
test-simgpu:
	@$(MAKE) --no-print-directory VENV=$(VENV)/simgpu CUPY=cupy-rocm-7-0 $(VENV)/simgpu/made-cupy
	tests/simgpu/run -n 3 --seed $(SEED) -- $(VENV)/simgpu/bin/python -m pytest -q -k "cupy or gpu" \
		$(GPU_TESTS:%=tests/%)

# Compiles the CUDA source with NVIDIA's compiler, and checks that the names used from CuPy exist. Needs no GPU and no driver.
test-nvrtc:
	@$(MAKE) --no-print-directory VENV=$(VENV)/nvrtc CUPY="cupy-cuda13x nvidia-cuda-nvrtc nvidia-cuda-runtime" $(VENV)/nvrtc/made-cupy
	$(VENV)/nvrtc/bin/python -m pytest -q tests/kernels/test_cuda_source.py

lint: $(VENV)/made-lint
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# Compares with PyTorch, in the version that TORCH gives. Ends with a table of the largest differences.
parity: $(VENV)/made-torch
	$(RUN) -m pytest -q tests/parity

bench: $(VENV)/made-torch
	$(RUN) benchmarks/bench.py

# The site, in docs/_build/html; the code and figures in its pages are updated first. Needs Python 3.11 or newer.
docs: $(VENV)/made-docs
	$(RUN) docs/generate.py
	$(VENV)/bin/sphinx-build -q -W -n --keep-going docs docs/_build/html
	$(RUN) -m pytest -q --check-links --check-anchors --check-links-ignore 'https?://.*' docs/_build/html

exercise: $(VENV)/made
	@$(RUN) exercises/check.py $(N)

# A Python without ensurepip makes an environment without pip; then that Python's own pip installs into the environment.
$(VENV)/made: setup.py pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV) >/dev/null || $(PYTHON) -m venv --clear --without-pip $(VENV)
	$(call install,-e .)
	@touch $@

$(VENV)/made-test: $(VENV)/made
	$(call install,-e '.[test]')
	@touch $@

$(VENV)/made-lint: $(VENV)/made-test
	$(call install,-e '.[dev]')
	@touch $@

$(VENV)/made-browser: $(VENV)/made-test
	$(call install,-e '.[browser]')
	@touch $@

$(VENV)/made-docs: $(VENV)/made-test
	$(call install,-e '.[docs]')
	@touch $@

# In a separate environment: only one CuPy can be installed, and the other tests must not find it.
$(VENV)/made-cupy: $(VENV)/made-test
	$(call install,$(CUPY))
	@touch $@

$(VENV)/made-torch: $(VENV)/made-test
	$(call install,$(TORCH))
	@touch $@

install = @if [ -x $(VENV)/bin/pip ]; then $(VENV)/bin/pip $(PIP_INSTALL) $(1); else $(PYTHON) -m pip --python $(RUN) $(PIP_INSTALL) $(1); fi

clean:
	rm -rf $(VENV) build dist docs/_build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
