# make setup | demo | test | check | bench | locks        (README.md says what each is for)
PYTHON ?= python3
BIN := .venv/bin
ROOMS := edgepack arch durable columns oci bundle fleet runtimes buildx packager edge_agent hub
CODE := $(ROOMS) tests bench examples scripts

.PHONY: setup demo test test-frameworks test-faults test-clients test-images test-wheel check format bench bench-frameworks
.PHONY: bench-faults test-images-all locks environment-locks clean

setup: .venv/.ready

.venv/.ready: pyproject.toml $(wildcard locks/*.txt) scripts/setup.sh
	@PYTHON="$(PYTHON)" sh scripts/setup.sh

demo: setup
	@$(BIN)/python -m examples.demo

test: setup
	@$(BIN)/pytest -q -n auto --dist loadfile -m "not images and not frameworks and not clients and not faults"

test-frameworks: setup
	@$(BIN)/pytest -q -n auto --dist loadfile -m "frameworks $(ONLY)"

test-faults: setup
	@$(BIN)/pytest -q -n 2 -m faults

test-clients: setup
	@$(BIN)/pytest -q -m clients

test-images: setup
	@$(BIN)/pytest -q -m images

test-images-all: setup
	@EDGEPACK_TEST_EXAMPLES=all $(BIN)/pytest -q -m images

test-wheel: setup
	@sh scripts/test-wheel.sh

check: setup
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

bench: setup
	@$(BIN)/python -m bench

bench-faults: setup
	@$(BIN)/python -m bench.faults

bench-frameworks: setup
	@$(BIN)/python -m bench.frameworks

locks: setup
	@for minor in 3.10 3.11 3.12 3.13; do \
	  $(BIN)/uv pip compile -q pyproject.toml --extra test --python-version $$minor --python-platform x86_64-manylinux_2_28 \
	    --upgrade --generate-hashes --no-annotate --no-header -o locks/py$$(echo $$minor | tr -d .).txt || exit 1; \
	done

environment-locks: setup
	@$(BIN)/python scripts/environment_locks.py

clean:
	rm -rf .venv .demo dist build
