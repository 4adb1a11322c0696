# Everything happens in .venv, which is made where it is missing; only Python (3.11 or newer) and make are needed.
PYTHON ?= python3
VENV := .venv
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --retries 5
SERVING := examples/notebooks/04_serving.ipynb
NOTEBOOKS := $(filter-out $(SERVING),$(wildcard examples/notebooks/*.ipynb))

.PHONY: help install demo test thorough mutants mutants-sample test-extras test-deploy fuzz learning learning-all notebook rllib-files untuned docs lint types clean

help:
	@echo "make install   an environment for development in $(VENV)"
	@echo "make demo      train CartPole-v1 to its threshold, show the learning curve, film the policy"
	@echo "make test      the fast tests"
	@echo "make thorough  every algorithm in every loop, and the code of every page"
	@echo "make mutants   whether the tests notice wrong code: wrong lines, one by one (a quarter of an hour)"
	@echo "make test-extras  those of gymnax, JaxMARL, EnvPool, PettingZoo and Ray, with these packages in $(VENV)-extras, and of brax, Playground, Jumanji, Navix, Craftax and pgx in $(VENV)-jax"
	@echo "make test-deploy  policies in ONNX, NumPy, StableHLO and a browser, and behind HTTP, with these packages in $(VENV)-deploy"
	@echo "make fuzz      500 checkpoints and 100 other files that are spoiled, and 100 kills: what came of them"
	@echo "make learning  the tests that train to a threshold; make learning-all those of minutes a seed too"
	@echo "make notebook  execute the notebooks"
	@echo "make rllib-files  run RLlib's own experiment files to their stops (an hour); make untuned: every default (hours)"
	@echo "make docs      build the documentation into site/, and look at it in Chromium where that is installed"
	@echo "make lint      ruff: rules and format"
	@echo "make types     mypy"
	@echo "make clean     remove what was built (not $(VENV))"

# A virtual environment that works; one that is there already is kept.
$(BIN)/python:
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || \
		{ echo "$(PYTHON) is older than 3.11; say which one to take: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
		{ echo "$(PYTHON) cannot make environments; on Debian and Ubuntu: apt install python3-venv"; exit 1; }

# The package alone, for who only wants to use it.
$(BIN)/athlete: | $(BIN)/python
	$(PIP) --editable .

# The package with the tools of development; again whenever the list of requirements has changed.
$(VENV)/.development: pyproject.toml | $(BIN)/python
	$(PIP) --editable '.[dev,docs]'
	@touch $@

install: $(VENV)/.development

demo: $(BIN)/athlete
	$(BIN)/athlete example run cartpole-ppo --video --local-dir demo_results

test: install
	$(BIN)/python -m pytest -n auto

thorough: install
	$(BIN)/python -m pytest -n auto -m "thorough and not learning"

# tools/mutations.py has the list. The sample is another one for each commit; CI runs it behind the tests.
mutants: install
	$(BIN)/python tools/mutate.py

mutants-sample: install
	$(BIN)/python tools/mutate.py --unchecked --sample 10 --seed "$$(git rev-parse HEAD)"

# gymnax and JaxMARL want an older Gymnasium, EnvPool is large, mpe2 brings another pygame: their tests have an environment of their own.
$(VENV)-extras/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)-extras
	$(VENV)-extras/bin/python -m pip install --quiet --disable-pip-version-check --retries 5 --editable '.[gymnax,jaxmarl,envpool,atari,pettingzoo,parquet,minari,lz4,ray,optuna]' pytest cloudpickle mpe2 "ray[serve]"
	@touch $@

# JAX packages of others, with physics engines among them: an environment of their own again.
$(VENV)-jax/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)-jax
	$(VENV)-jax/bin/python -m pip install --quiet --disable-pip-version-check --retries 5 --editable '.[brax,craftax,jumanji,navix,pgx,playground]' pytest
	@touch $@

test-extras: $(VENV)-extras/.ready $(VENV)-jax/.ready
	$(VENV)-jax/bin/python -m pytest tests/test_jax_packages.py
	$(VENV)-extras/bin/python -m pytest tests/test_gymnax.py tests/test_jaxmarl.py tests/test_atari.py tests/test_spread.py tests/test_pettingzoo.py tests/test_offline_extras.py tests/test_ray.py tests/test_ray_failures.py tests/test_ray_tune.py tests/test_ray_serve.py

# What runs exported policies, and what serves them. PyTorch's tests run where it is installed too.
$(VENV)-deploy/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)-deploy
	$(VENV)-deploy/bin/python -m pip install --quiet --disable-pip-version-check --retries 5 --editable '.[onnx,stablehlo,serve]' pytest httpx ipykernel nbclient
	@touch $@

test-deploy: $(VENV)-deploy/.ready
	$(VENV)-deploy/bin/python -m pytest -m "not learning" tests/test_export.py tests/test_policy_alone.py tests/test_serve.py tests/test_policy_client.py

fuzz: install
	$(BIN)/python -m pytest -m fuzz tests/test_fuzz.py

learning: install
	$(BIN)/python -m pytest -m "learning and not slow"

learning-all: install
	$(BIN)/python -m pytest -m learning

# The one about serving needs what serves.
notebook: install $(VENV)-deploy/.ready
	@set -e; for notebook in $(NOTEBOOKS); do echo "$$notebook"; $(BIN)/jupyter execute --timeout=600 "$$notebook"; done
	@echo "$(SERVING)"
	@$(VENV)-deploy/bin/jupyter execute --timeout=600 "$(SERVING)"

# What has been run with the same settings is not run again.
rllib-files: install
	$(BIN)/python benchmarks/rllib_files.py

untuned: install
	$(BIN)/python benchmarks/untuned.py
	$(BIN)/python benchmarks/untuned.py --page

docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	$(BIN)/python -m pytest -n auto -m site tests/test_site.py

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

clean:
	rm -rf build dist site demo_results .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find athlete tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +
