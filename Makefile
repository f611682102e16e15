# make demo   everything from a fresh clone: installs what it needs into .venv, trains, identifies, deploys and compares
# make demo ARM=1   the same with an arm that pushes an object
# make venv   installs everything into .venv
# make test   style, types and all tests
# make check  the same without what is slow, needs ROS 2 or keeps to the wall clock
#
# Variables: PYTHON (the interpreter to build .venv from), EXTRAS (what to install).
# PyPI's torch for Linux brings CUDA along (several GB). For the small build without it:
#   PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make venv

PYTHON ?= python3
BIN := .venv/bin
# The demo needs less than everything; where everything is installed already, it takes that.
STAMP := .venv/.installed
DEMO_STAMP := $(if $(wildcard $(STAMP)),$(STAMP),.venv/.installed-for-demo$(if $(ARM),-arm))
# A ROS 2 that is already sourced wins over the wheels; one inside the interpreter's own folder, as of an activated virtual
# environment, is not seen from .venv.
ROS := $(shell $(PYTHON) -c 'import rclpy, sys; sys.exit(rclpy.__file__.startswith(sys.prefix))' 2>/dev/null || echo ,ros)
ifndef EXTRAS
EXTRAS := train,vision,drivers,franka,dev$(ROS)
.venv/.installed-for-demo: EXTRAS := train,drone$(ROS)
.venv/.installed-for-demo-arm: EXTRAS := train,arm$(ROS)
endif
# Never talk to robots on the network by accident; set it to SUBNET to do so on purpose.
export ROS_AUTOMATIC_DISCOVERY_RANGE ?= LOCALHOST

# The tests start hundreds of processes; where Python may not keep bytecode, each compiles torch anew for ten seconds.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help venv demo test lint check clean

help:
	@sed -n '/^$$/q;s/^# \{0,1\}//p' Makefile

venv: $(STAMP)

.venv/.installed .venv/.installed-for-demo .venv/.installed-for-demo-arm: setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { \
	  echo 'Python 3.11 to 3.13 is needed, $(PYTHON) is another or is missing. Try: make PYTHON=python3.12' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo '$(PYTHON) has no venv module. On Debian and Ubuntu: sudo apt-get install python3-venv' >&2; exit 1; }
	@echo '== 1/2 making .venv'
	@$(PYTHON) -m venv .venv
	@echo '== 2/2 installing [$(EXTRAS)] as pinned in constraints.txt; unpacking at the end is silent for half a minute'
	@$(BIN)/python -m pip install --no-compile --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

demo: $(DEMO_STAMP)
	$(BIN)/sim2real demo $(if $(ARM),--arm)

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

PYTEST := $(BIN)/python -m pytest -q --durations=25
SIDE_BY_SIDE := -n auto --maxprocesses 8 --dist loadgroup

# What keeps to the wall clock comes after the rest and has the machine to itself.
test: lint
	$(PYTEST) $(SIDE_BY_SIDE) -m 'not ros and not realtime'
	$(PYTEST) -m 'ros or realtime'

check: lint
	$(PYTEST) $(SIDE_BY_SIDE) -m 'not slow and not ros and not realtime'

clean:
	rm -rf .venv build install log dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
