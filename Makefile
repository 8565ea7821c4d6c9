# Every target sets up what it needs on a fresh Debian (make and python3 suffice) and is quick the second time.
# ops/setup.sh says what that is. PYTHON=/path/to/python3.11 chooses another interpreter; ARGS="..." hands arguments on.

PY := .venv/bin/python -P

.PHONY: help setup demo run test lint bench soak lock

help:           ## this list
	@sed -n 's/^\([a-z]*\):[a-z ]*## /  make \1	/p' Makefile | expand -t 16

setup:          ## install all that the other targets need
	@sh ops/setup.sh test

demo:           ## connect a mailbox on a local server and watch it sync
	@sh ops/setup.sh demo
	@$(PY) -m ops.demo $(ARGS)

run:            ## the daemon alone, for your own mailboxes
	@sh ops/setup.sh run
	@.venv/bin/accountsd $(ARGS)

test: lint      ## lint, then every test, against real servers
	@sh ops/setup.sh test
	$(PY) -m pytest $(ARGS)

lint:           ## style, types, who may import whom, names
	@sh ops/setup.sh run
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	$(PY) -m pytest --quiet --durations=0 tests/test_house.py

bench:          ## speed and memory, beside what others do
	@sh ops/setup.sh bench
	@$(PY) -m ops.bench $(ARGS)

soak:           ## long runs with faults, until interrupted
	@sh ops/setup.sh test
	@$(PY) -m ops.soak $(ARGS)

# For maintainers: after a change of dependencies in pyproject.toml. Index addresses stay out of the locks.
LOCK := .venv/lock-tools/bin/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-header --no-annotate --quiet

lock:           ## pin the dependencies of pyproject.toml anew
	@sh ops/setup.sh run
	@test -x .venv/lock-tools/bin/uv || \
		{ .venv/bin/python -m venv .venv/lock-tools && .venv/lock-tools/bin/pip install --quiet uv; }
	$(LOCK) --extra embedded --output-file requirements/run.lock
	$(LOCK) --extra embedded --extra dev --output-file requirements/dev.lock
