# Two commands: `make run` boots the default guest, `make test` runs every check. Both set up
# .venv themselves from the pinned lock files; nothing else on the machine is changed.
# ARGS is handed on:  make run ARGS="--mem 1G --stats"   make test ARGS="-k gicv2"

VENV := .venv
BIN := $(VENV)/bin
# The first Python on the path that is new enough and can make virtual environments.
FIND_PYTHON = for p in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  && { echo $$p; exit; }; done
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: run test check conformance-real tables lockstep test-arm64 compare-fp lock clean

run: $(VENV)/run.stamp
	@$(BIN)/armkvm run $(ARGS)

# The checks that need no guest first: they are the quick ones.
test: check
	$(BIN)/python -m pytest -q -n 2 $(ARGS)

check: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/mypy

# The conformance client on the real KVM, at EL2 inside QEMU; some minutes, not part of `make test`.
conformance-real: $(VENV)/run.stamp
	$(BIN)/python tools/conformance_real.py $(ARGS)

# The tables of docs/check.md and docs/late-vgic.md, from what `armkvm check` finds; some minutes.
tables: $(VENV)/test.stamp
	$(BIN)/python tools/check_tables.py $(ARGS)

# Debian's kernel on the engine and on a second CPU, compared from boot to power-off. Fetches it.
lockstep: $(VENV)/test.stamp
	$(BIN)/python -m tests.lockstep.compare --debian $(ARGS)

# The tests of isa and engine, conformance and a boot on an arm64 host, under qemu-user. The first
# time it fetches Debian's arm64 Python and wheels and compiles the engine there; they stay in .arm64.
test-arm64: $(VENV)/test.stamp
	$(BIN)/python tools/test_arm64.py $(ARGS)

# Ten million floating-point operand tuples against unicorn and qemu-aarch64; under a minute.
compare-fp: $(VENV)/test.stamp
	$(BIN)/python -m tests.oracle.operands $(ARGS)

$(BIN)/python:
	@python=$$($(FIND_PYTHON)); \
	if [ -z "$$python" ]; then \
	  echo "make: no Python 3.11 or newer with the venv module found (Debian: apt install python3-venv; or make PYTHON=...)" >&2; \
	  exit 1; \
	fi; \
	echo "Setting up $(VENV) with $$python" && $$python -m venv $(VENV)

# The stamps are written last, so an interrupted set-up is simply continued.
$(VENV)/run.stamp: requirements.txt pyproject.toml | $(BIN)/python
	@$(PIP) --require-hashes -r requirements.txt
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/test.stamp: requirements-test.txt $(VENV)/run.stamp
	@$(PIP) --require-hashes -r requirements-test.txt
	@touch $@

# Renew the lock files; needs uv.
LOCK = uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	--no-annotate --no-emit-index-url --custom-compile-command 'make lock' pyproject.toml -
lock:
	echo 'setuptools>=77' | $(LOCK) -o requirements.txt
	echo 'setuptools>=77' | $(LOCK) --extra test -o requirements-test.txt

clean:
	rm -rf $(VENV) .arm64 build *.egg-info src/*.egg-info .pytest_cache .mypy_cache .ruff_cache
