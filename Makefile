# Two commands do everything on a fresh machine: `make demo` and `make test`.

PYTHON_VERSION ?= 3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
UV = $(shell command -v uv || echo $(VENV)-uv/bin/uv)
MLFLOW := .venv-mlflow
CLIENTS := .venv-clients
FRAMEWORKS := .venv-frameworks
DEMO_DIR ?= .demo
WORKERS ?= 3  # of tests, many of which wait for other processes: one more than two cores

.PHONY: install servers frameworks demo test lint bench soak lock clean

install: $(STAMP)

$(STAMP): pyproject.toml requirements-dev.lock requirements-demo.lock
	@command -v uv >/dev/null || [ -x $(VENV)-uv/bin/uv ] || { \
	  echo "installing uv beside the project's environment"; \
	  python3 -m venv $(VENV)-uv && $(VENV)-uv/bin/pip install --quiet uv; }
	@ldconfig -p 2>/dev/null | grep -q libgomp.so.1 || { \
	  echo "installing libgomp1, which LightGBM needs"; \
	  apt-get update -qq && apt-get install -y -qq --no-install-recommends libgomp1; }
	@[ -x $(BIN)/python ] || $(UV) venv --quiet --python $(PYTHON_VERSION) $(VENV)
	$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r requirements-dev.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --require-hashes -r requirements-demo.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --editable .
	@echo "byte-compiling"
	@$(BIN)/python -m compileall -q -j 0 $(VENV)/lib src >/dev/null || true
	@touch $(STAMP)

# What tests talk to beside what the project's environment has.
servers: $(MLFLOW)/.installed $(CLIENTS)/.installed
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || { \
	  echo "installing postgresql, which tests start for themselves"; \
	  apt-get update -qq && apt-get install -y -qq --no-install-recommends postgresql >/dev/null; } || \
	  echo "no postgresql: tests that need it are skipped"
	@command -v redis-server >/dev/null || { \
	  echo "installing redis, which tests start for themselves"; \
	  apt-get update -qq && apt-get install -y -qq --no-install-recommends redis-server >/dev/null; } || \
	  echo "no redis: tests that need it are skipped"
	@command -v chromium >/dev/null || { \
	  echo "installing chromium, in which tests look at pages"; \
	  apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null; } || \
	  echo "no chromium: tests that need it are skipped"
	@command -v promtool >/dev/null || { \
	  echo "installing prometheus, which tests start for themselves"; \
	  apt-get update -qq && apt-get install -y -qq --no-install-recommends prometheus >/dev/null; } || \
	  echo "no prometheus: tests that need it are skipped"
	@command -v curl >/dev/null || { \
	  echo "installing curl, with which tests ask"; \
	  apt-get update -qq && apt-get install -y -qq --no-install-recommends curl >/dev/null; } || \
	  echo "no curl: tests that need it are skipped"

$(MLFLOW)/.installed: requirements-mlflow.lock | $(STAMP)
	@echo "installing a real MLflow client beside the project's environment"
	@[ -x $(MLFLOW)/bin/python ] || $(UV) venv --quiet --python $(PYTHON_VERSION) $(MLFLOW)
	@$(UV) pip install --quiet --python $(MLFLOW)/bin/python --require-hashes -r requirements-mlflow.lock
	@touch $@

$(CLIENTS)/.installed: requirements-clients.lock | $(STAMP)
	@echo "installing real clients of model servers beside the project's environment"
	@[ -x $(CLIENTS)/bin/python ] || $(UV) venv --quiet --python $(PYTHON_VERSION) $(CLIENTS)
	@$(UV) pip install --quiet --python $(CLIENTS)/bin/python --require-hashes -r requirements-clients.lock
	@touch $@

# Keras and PyTorch Lightning, for the tests of autolog that `make soak` runs where they are there: 6 GB.
frameworks: $(FRAMEWORKS)/.installed

$(FRAMEWORKS)/.installed: requirements-frameworks.lock | $(STAMP)
	@echo "installing Keras and PyTorch Lightning beside the project's environment"
	@[ -x $(FRAMEWORKS)/bin/python ] || $(UV) venv --quiet --python $(PYTHON_VERSION) $(FRAMEWORKS)
	@$(UV) pip install --quiet --python $(FRAMEWORKS)/bin/python --require-hashes -r requirements-frameworks.lock
	@touch $@

demo: install
	$(BIN)/noria demo $(DEMO_DIR) $(if $(JSON),--json $(JSON))

test: install servers lint
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

lint: install
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: install
	$(BIN)/python -m bench

soak: install servers
	$(BIN)/python -m pytest -m soak -s $(PYTEST_ARGS)

lock:
	uv pip compile -q --python-version $(PYTHON_VERSION) --generate-hashes --no-annotate --no-header pyproject.toml -o requirements.lock
	uv pip compile -q --python-version $(PYTHON_VERSION) --generate-hashes --no-annotate --no-header pyproject.toml --group dev -o requirements-dev.lock
	printf "lifetimes==0.11.3\nnycflights13==0.0.3\n" | uv pip compile -q --python-version $(PYTHON_VERSION) --generate-hashes --no-deps --no-annotate --no-header - -o requirements-demo.lock
	printf "mlflow==3.17.2\nlightgbm\nonnx\nonnxruntime\nscikit-learn\nskops\nxgboost-cpu\n" | uv pip compile -q --python-version $(PYTHON_VERSION) --generate-hashes --no-annotate --no-header - -o requirements-mlflow.lock
	printf "kserve\nschemathesis\ntritonclient[http]\n" | uv pip compile -q --python-version $(PYTHON_VERSION) --generate-hashes --no-annotate --no-header - -o requirements-clients.lock
	printf "jax\nkeras\nlightning\ntorch\n" | cat - requirements.lock | sed "s/ *--hash.*//; s/ *\\\\$$//" | uv pip compile -q --python-version $(PYTHON_VERSION) --generate-hashes --no-annotate --no-header - -o requirements-frameworks.lock

clean:
	rm -rf $(VENV) $(VENV)-uv $(MLFLOW) $(CLIENTS) $(FRAMEWORKS) $(DEMO_DIR) .bench-peers
