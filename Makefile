# Every target sets up what it needs, from nothing but Python >= 3.11 and PyPI.
PYTHON ?= python3
CORES ?= 2
BENCHMARKS ?= train_speed sweep_speed step_profile training_step loop_overhead startup checkpoint_saves batches \
	scoring fit_speed coverage forecast_coverage

.PHONY: venv quickstart test test-data test-hf test-track test-ray aot gpu notebooks docs bench clean
.DEFAULT_GOAL := venv

# uv, where there is one, installs in seconds what takes pip minutes.
UV := $(shell command -v uv)
pip = $(@D)/bin/python -m pip install -q --disable-pip-version-check
install = $(if $(UV),uv pip install -q --python $(@D)/bin/python,$(pip))

venv: .venv/.ready

.venv/.ready: setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "scalejax needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V). Try: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv .venv
	@$(install) -e '.[test]'
	@touch $@

# The environments below add to .venv, whose packages they see: pip installs jax once.
packages = $$($(1)/bin/python -c 'import site; print(site.getsitepackages()[0])')
add_environment = .venv/bin/python -m venv $(@D) && \
	echo "$(call packages,.venv)" >"$(call packages,$(@D))/venv.pth"

quickstart: venv
	.venv/bin/scalejax run experiments/quickstart.py

test: venv
	.venv/bin/python -m pytest -n $(CORES) -m 'not slow and not data and not hf'

test-data: .venv-data/.ready
	.venv-data/bin/python -m pytest -p no:xdist -m data tests/data

.venv-data/.ready: .venv/.ready
	$(add_environment)
	$(install) -e '.[data]'
	@touch $@

test-hf: .venv-hf/.ready
	.venv-hf/bin/python -m pytest -p no:xdist -m hf tests/model tests/data tests/training tests/evaluation

# PyTorch without CUDA, 0.2 GB, where its index can be reached; else that of PyPI.
.venv-hf/.ready: .venv/.ready
	$(add_environment)
	-$(pip) --retries=0 --timeout=15 torch --index-url https://download.pytorch.org/whl/cpu
	$(pip) -e '.[hf,eval]'
	@touch $@

# Curves on dashboards: nothing is sent anywhere, wandb runs offline.
test-track: .venv-track/.ready
	.venv-track/bin/python -m pytest -p no:xdist tests/training/observation

.venv-track/.ready: .venv/.ready
	$(add_environment)
	$(install) -e '.[track]'
	@touch $@

# A Ray cluster of three machines, each of them a few processes of this one.
test-ray: .venv-ray/.ready
	.venv-ray/bin/python -m pytest -p no:xdist tests/launch/clusters/test_ray_cluster.py

.venv-ray/.ready: .venv/.ready
	$(add_environment)
	$(install) -e '.[ray]'
	@touch $@

# The compilers that `scalejax plan --topology` uses. They need neither an accelerator nor a driver.
aot: .venv-aot/.ready

.venv-aot/.ready: .venv/.ready
	$(add_environment)
	$(install) -e '.[aot]'
	@touch $@

# Checks on one NVIDIA GPU. CUDA's libraries are large: they are installed only where there is one.
gpu:
	@ls /dev/nvidia[0-9]* >/dev/null 2>&1 || { echo "make gpu: this machine has no NVIDIA GPU with a \
	driver (no /dev/nvidia0); run it on one that has"; exit 2; }
	@$(MAKE) --no-print-directory .venv-gpu/.ready
	.venv-gpu/bin/python benchmarks/gpu.py

.venv-gpu/.ready: .venv/.ready
	$(add_environment)
	$(install) -e '.[gpu]'
	@touch $@

# Executes copies, so that outputs never enter the repository. The documentation shows them.
notebooks: venv
	rm -rf build/notebooks && mkdir -p build/notebooks && cp notebooks/*.ipynb build/notebooks
	.venv/bin/python -m pytest --nbmake --overwrite -n $(CORES) --durations=0 build/notebooks/*.ipynb

# Warnings are errors (`strict` in .ci/mkdocs.yml). The variable silences a note about MkDocs 2.
docs: .venv-docs/.ready
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build -q -f .ci/mkdocs.yml
	@echo "build/docs/index.html"

.venv-docs/.ready: .venv/.ready
	$(add_environment)
	$(install) -e '.[docs]'
	@touch $@

bench: venv .venv-bench/.ready
	for file in $(BENCHMARKS); do .venv/bin/python benchmarks/$$file.py; done

# The baseline of benchmarks/train_speed.py, without scalejax.
.venv-bench/.ready:
	$(PYTHON) -m venv .venv-bench
	$(pip) --retries=0 --timeout=15 torch numpy --index-url https://download.pytorch.org/whl/cpu || \
		$(pip) torch numpy
	@touch $@

clean:
	rm -rf .venv .venv-aot .venv-gpu .venv-bench .venv-data .venv-hf .venv-docs .venv-track .venv-ray build *.egg-info .pytest_cache .ruff_cache .hypothesis
