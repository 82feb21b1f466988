# The two commands a newcomer needs are `make demo` and `make test`; each makes the environment it runs in.

PYTHON ?= python3
VENV := .venv
SEQ2SERVE := $(VENV)/bin/seq2serve
BEAM = $(shell sed -n 's/^apache-beam==\([0-9.]*\).*/\1/p' requirements.lock)

.PHONY: demo install test notebooks picture test-peers test-runners test-flink test-dataflow lint lock clean

install: $(VENV)/installed

demo: $(VENV)/installed
	$(SEQ2SERVE) demo $(ARGS)

test: $(VENV)/installed
	$(VENV)/bin/python -m pytest $(ARGS)

# Every notebook from top to bottom; ARGS=--keep writes anew the outputs that are committed.
notebooks: $(VENV)/installed
	$(VENV)/bin/python notebooks/execute.py $(ARGS)

# The README's picture of a demo that has run; it runs once more.
picture: $(VENV)/installed
	$(VENV)/bin/python notebooks/picture.py

lint: $(VENV)/installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

# The programs that users would pick instead, to agree with and to be timed beside: several GB, an environment apart.
test-peers: .peers/installed
	.peers/bin/python -m pytest tests/peers $(ARGS)

# Beam's other runners on this machine, which need Go, of Beam's version all; minutes, for every worker starts TensorFlow.
test-runners: $(VENV)/installed .runners/prism .runners/boot
	SEQ2SERVE_PRISM=$(CURDIR)/.runners/prism SEQ2SERVE_BOOT=$(CURDIR)/.runners/boot \
		$(VENV)/bin/python -m pytest -m runners --numprocesses=0 tests/runners $(ARGS)

# Flink and Beam's runner for it, which need Java 11 or 17 and Maven; 160 MB are downloaded, once.
test-flink: $(VENV)/installed .flink/job.jar .runners/boot
	SEQ2SERVE_FLINK=$(CURDIR)/.flink SEQ2SERVE_BOOT=$(CURDIR)/.runners/boot \
		$(VENV)/bin/python -m pytest -m runners --numprocesses=0 tests/runners/test_flink.py $(ARGS)

# Dataflow's jobs, built and not sent, and pipelines on an object store; Google's clients are many, so in an environment
# apart.
test-dataflow: .dataflow/installed
	.dataflow/bin/python -m pytest --numprocesses=0 tests/runners/test_dataflow.py tests/runners/test_object_store.py $(ARGS)

# --no-deps: the lock file is complete, so nothing is resolved and nothing but what it names can come in.
$(VENV)/installed: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else "seq2serve needs Python 3.11 to 3.13: make PYTHON=python3.12")'
	$(PYTHON) -m venv --clear $(VENV)
	$(VENV)/bin/python -m pip install --quiet --no-deps --require-hashes -r requirements.lock
	$(VENV)/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

.peers/installed: tests/peers/requirements.lock pyproject.toml
	$(PYTHON) -m venv --clear .peers
	.peers/bin/python -m pip install --quiet --no-deps --require-hashes -r tests/peers/requirements.lock
	.peers/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

.dataflow/installed: tests/runners/requirements.lock pyproject.toml
	$(PYTHON) -m venv --clear .dataflow
	.dataflow/bin/python -m pip install --quiet --no-deps --require-hashes -r tests/runners/requirements.lock
	.dataflow/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

.runners/prism: requirements.lock
	GOBIN=$(CURDIR)/.runners go install github.com/apache/beam/sdks/v2/go/cmd/prism@v$(BEAM)

.runners/boot: requirements.lock
	GOBIN=$(CURDIR)/.runners go install github.com/apache/beam/sdks/v2/python/container@v$(BEAM)
	mv .runners/container $@

.flink/job.jar: $(wildcard tests/runners/flink/*)
	rm -rf .flink
	mvn --batch-mode --quiet --file tests/runners/flink/pom.xml dependency:copy-dependencies \
		-DincludeScope=runtime -DoutputDirectory=$(CURDIR)/.flink/lib
	javac -d .flink/classes -cp '.flink/lib/*' tests/runners/flink/*.java
	jar --create --file $@ -C .flink/classes .

# Pins everything anew, for every Python and platform we support.
lock:
	$(PYTHON) -m venv --clear .lock
	.lock/bin/python -m pip install --quiet uv
	.lock/bin/uv pip compile pyproject.toml --quiet --universal --generate-hashes --no-emit-index-url \
		--no-header --no-annotate --python-version 3.11 --extra dev --extra baselines --extra notebooks \
		--extra postgres --output-file requirements.lock
	.lock/bin/uv pip compile pyproject.toml --quiet --universal --generate-hashes --no-emit-index-url \
		--no-header --no-annotate --python-version 3.11 --extra peers --constraint requirements.lock \
		--output-file tests/peers/requirements.lock
	.lock/bin/uv pip compile pyproject.toml --quiet --universal --generate-hashes --no-emit-index-url \
		--no-header --no-annotate --python-version 3.11 --extra dev --extra gcp --constraint requirements.lock \
		--output-file tests/runners/requirements.lock
	rm -rf .lock

clean:
	rm -rf $(VENV) .peers .dataflow .runners .flink build *.egg-info
