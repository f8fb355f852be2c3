# Every target sets up what it needs, from nothing but Python >= 3.11 and PyPI.
PYTHON ?= python3
CORES ?= 2

.PHONY: venv quickstart test test-data test-hf test-ray aot docs bench clean
.DEFAULT_GOAL := venv

venv: .venv/.ready

.venv/.ready: setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "scalejax needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V). Try: make PYTHON=python3.12"; exit 1; }
	@if command -v uv >/dev/null; then \
		uv venv -q --allow-existing --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" .venv && \
		uv pip install -q --python .venv/bin/python -e '.[test]'; \
	else \
		$(PYTHON) -m venv .venv && .venv/bin/python -m pip install -q --disable-pip-version-check -e '.[test]'; \
	fi
	@touch $@

quickstart: venv
	.venv/bin/scalejax run experiments/quickstart.py

test: venv
	.venv/bin/python -m pytest -n $(CORES) -m 'not slow and not data and not hf and not ray'

test-data: .venv-data/.ready
	.venv-data/bin/python -m pytest -p no:xdist -m data tests/data

.venv-data/.ready: setup.py
	$(PYTHON) -m venv .venv-data && .venv-data/bin/python -m pip install -q --disable-pip-version-check -e '.[test,data]'
	@touch $@

test-hf: .venv-hf/.ready
	.venv-hf/bin/python -m pytest -p no:xdist -m hf tests/model tests/data tests/training tests/evaluation

# PyTorch without CUDA, 0.2 GB, where its index can be reached; else that of PyPI.
.venv-hf/.ready: setup.py
	$(PYTHON) -m venv .venv-hf
	-.venv-hf/bin/python -m pip install -q --disable-pip-version-check --retries=0 --timeout=15 torch \
		--index-url https://download.pytorch.org/whl/cpu
	.venv-hf/bin/python -m pip install -q --disable-pip-version-check -e '.[test,hf,eval]'
	@touch $@

test-ray: .venv-ray/.ready
	.venv-ray/bin/python -m pytest -p no:xdist -m ray tests/launch

.venv-ray/.ready: setup.py
	$(PYTHON) -m venv .venv-ray && .venv-ray/bin/python -m pip install -q --disable-pip-version-check -e '.[test,ray]'
	@touch $@

# The compilers that `scalejax plan --topology` uses. They need neither an accelerator nor a driver.
aot: .venv-aot/.ready

.venv-aot/.ready: setup.py
	$(PYTHON) -m venv .venv-aot && .venv-aot/bin/python -m pip install -q --disable-pip-version-check -e '.[aot]'
	@touch $@

# Warnings are errors (`strict` in .ci/mkdocs.yml). The variable silences a note about MkDocs 2.
docs: .venv-docs/.ready
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build -q -f .ci/mkdocs.yml
	@echo "build/docs/index.html"

.venv-docs/.ready: setup.py
	$(PYTHON) -m venv .venv-docs && .venv-docs/bin/python -m pip install -q --disable-pip-version-check -e '.[docs]'
	@touch $@

bench: venv
	for file in benchmarks/*.py; do .venv/bin/python $$file; done

clean:
	rm -rf .venv .venv-aot .venv-data .venv-hf .venv-ray .venv-docs build *.egg-info .pytest_cache .ruff_cache .hypothesis
