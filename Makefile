# `make help` lists the targets: each line with two hashes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
BUILD_REQUIREMENTS := scikit-build-core nanobind grpcio-tools mypy-protobuf cmake ninja
PACKAGES := p4 softswitch controller host_agent measure testbed common cli

NATIVE := CMakeLists.txt pyproject.toml constraints.txt \
  $(shell find host_agent softswitch controller p4 common measure \( -name '*.cpp' -o -name '*.hpp' -o -name '*.inl' \
    -o -name '*.proto' -o -name 'CMakeLists.txt' -o -name 'wiresum_*.json' -o -path '*/translate/*.py' \) -print)

.PHONY: help setup demo test test-slow test-frameworks test-torch test-newest-torch test-cuda test-deploy lint format types imports build/types p4 model clean FORCE
help:
	@sed -nE 's/^([a-z0-9-]+):[^#]*## (.*)/\1|\2/p' Makefile | awk -F '|' '{ printf "make %-18s %s\n", $$1, $$2 }'

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "wiresum needs Python >= 3.11, found: $$($(PYTHON) --version); set PYTHON=python3.x" >&2; exit 1; }
	@command -v $${CXX:-c++} >/dev/null || \
	  { echo "wiresum needs a C++ compiler: apt install g++ (or set CXX)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { echo "python3 -m venv failed: apt install python3-venv" >&2; exit 1; }

# The installation knows every module by its path: it is made again when one is added, moved or removed.
build/modules: FORCE
	@mkdir -p build && find public $(PACKAGES) -name '*.py' | LC_ALL=C sort > $@.new
	@if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi
FORCE:

# The build runs in the environment itself, so that a rebuild after a change is incremental.
$(VENV)/.installed: $(NATIVE) build/modules | $(BIN)/python
	$(PIP) install -q -c constraints.txt $(BUILD_REQUIREMENTS)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(PIP) install -q -c constraints.txt --no-build-isolation -e '.[test]'
	@touch $@

$(VENV)/.lint: $(VENV)/.installed
	PATH="$(CURDIR)/$(BIN):$$PATH" $(PIP) install -q -c constraints.txt --no-build-isolation -e '.[lint]'
	@touch $@ $(VENV)/.installed

setup: $(VENV)/.installed ## make the environment in .venv and install wiresum there

demo: setup ## train over gloo and over the embedded switch, and compare
	$(BIN)/wiresum demo --workers 4 --json out/demo.json --plot out/demo.png

# How many test files run at a time: most tests wait for processes most of the time.
TEST_FILES ?= 4
PYTEST := $(BIN)/python -m pytest -n $(TEST_FILES) --dist loadfile --no-loadscope-reorder

test: setup ## the tests, without the slow ones
	$(PYTEST) -m "not slow and not frameworks and not cuda" $(PYTEST_ARGS)

test-slow: setup ## the slow tests, too, and all examples of the others
	WIRESUM_TEST_EXAMPLES=all $(PYTEST) -m "not frameworks and not cuda" $(PYTEST_ARGS)

test-torch: setup ## torch's own tests of torch.distributed, over gloo and over the embedded switch
	$(BIN)/python tests/peers/torch_distributed.py --json out/torch.json

# Makes an environment on top of the first one, which stays as it is: what is installed there goes before.
LIBRARIES := -c 'import sysconfig; print(sysconfig.get_path("purelib"))'
define on-top
	$(BIN)/python -m venv $(1)
	echo "import site; site.addsitedir('$$($(BIN)/python $(LIBRARIES))')" > "$$($(1)/bin/python $(LIBRARIES))/first.pth"
endef

FRAMEWORKS := build/frameworks
$(FRAMEWORKS)/.installed: $(wildcard tests/frameworks/*.txt) | $(VENV)/.installed
	$(call on-top,$(FRAMEWORKS))
	$(FRAMEWORKS)/bin/python -m pip install -q -c tests/frameworks/constraints.txt setuptools wheel
	DS_BUILD_OPS=0 $(FRAMEWORKS)/bin/python -m pip install -q --no-build-isolation \
	  -c constraints.txt -c tests/frameworks/constraints.txt -r tests/frameworks/requirements.txt
	@touch $@

test-frameworks: setup $(FRAMEWORKS)/.installed ## trainings with transformers, accelerate, Lightning, DeepSpeed, torchft and Ray
	$(FRAMEWORKS)/bin/python -m pytest -m frameworks tests/frameworks $(PYTEST_ARGS)

# TORCH: what to install, torch==2.14.1 for one. Away from an index of CPU builds a torch for Linux on x86-64 comes
# with gigabytes of CUDA packages.
TORCH ?= torch
NEWEST := build/newest-torch
test-newest-torch: setup ## the backend's tests on the newest torch that pip has, or on TORCH=torch==VERSION
	$(call on-top,$(NEWEST))
	$(NEWEST)/bin/python -m pip install -q --upgrade "$(TORCH)"
	$(NEWEST)/bin/python -c "import torch; print('torch', torch.__version__, 'in', torch.__file__)"
	$(NEWEST)/bin/python -m pytest -m "not slow" tests/host_agent/backend tests/e2e/test_training.py $(PYTEST_ARGS)

test-cuda: setup ## on a machine with an NVIDIA GPU: the bits of the CPU, and a table of how fast
	@$(BIN)/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || \
	  { echo "no NVIDIA GPU that torch can use is here: nothing was tested" >&2; exit 1; }
	$(BIN)/python -m pytest -m cuda tests/cuda $(PYTEST_ARGS)

test-deploy: setup ## Slurm (apt install slurm-wlm; as root) and the manifests for Kubernetes
	$(PIP) install -q -c constraints.txt kubernetes-validate kubeflow-trainer-api
	$(PYTEST) tests/deploy $(PYTEST_ARGS)

lint: $(VENV)/.lint types ## formatters, linters, types, imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	git ls-files '*.cpp' '*.hpp' '*.inl' | xargs $(BIN)/clang-format --dry-run -Werror
	$(MAKE) imports

# The linters want the packages under their import names: folders here, wiresum.* when installed.
build/types: $(VENV)/.lint
	@rm -rf $@ && mkdir -p $@ && cp -r public/wiresum $@/wiresum
	@for p in $(PACKAGES); do cp -r $$p $@/wiresum/$$p; done
	@cp $$($(BIN)/python -c 'import wiresum.controller.v1.controller_pb2 as m; print(m.__file__.removesuffix("_pb2.py"))')* \
	  $@/wiresum/controller/v1/

types: build/types ## types alone
	cd build/types && MYPYPATH=. ../../$(BIN)/mypy --cache-dir ../mypy --config-file ../../pyproject.toml -p wiresum

# -S: without the hook that finds the installed packages, which are the same ones by other names.
imports: build/types ## who imports whom alone
	cd build/types && PYTHONPATH=".:$$(../../$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
	  ../../$(BIN)/python -S ../../$(BIN)/lint-imports --no-logo --no-cache ../../pyproject.toml

format: $(VENV)/.lint ## format Python and C++
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	git ls-files '*.cpp' '*.hpp' '*.inl' | xargs $(BIN)/clang-format -i

p4: $(BIN)/python ## compile the P4 program again (needs p4c)
	$(BIN)/python p4/compile.py
	$(BIN)/python p4/generate.py

model: ## search all states of the models of the protocol (needs spin)
	$(PYTHON) p4/model/check.py

clean: ## remove .venv, build and out
	rm -rf $(VENV) build out
