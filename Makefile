# `make demo` and `make test` are all that a newcomer needs; each creates its environment.

PYTHON ?= python3
VENV := .venv
SEQ2SERVE := $(VENV)/bin/seq2serve
BEAM = $(shell sed -n 's/^apache-beam==\([0-9.]*\).*/\1/p' requirements.lock)

.PHONY: demo install test notebooks picture test-peers test-server-versions test-machines test-runners test-flink test-dataflow lint lock clean

install: $(VENV)/installed

demo: $(VENV)/installed
	$(SEQ2SERVE) demo $(ARGS)

test: $(VENV)/installed
	$(VENV)/bin/python -m pytest $(ARGS)

# Executes every notebook; ARGS=--keep replaces the committed outputs.
notebooks: $(VENV)/installed
	$(VENV)/bin/python notebooks/execute.py $(ARGS)

# Runs the demo and draws the picture of README.md.
picture: $(VENV)/installed
	$(VENV)/bin/python notebooks/picture.py

# import-linter and mypy look for one package in one folder: a tree of links, recreated so that no file is missed.
LINKS := $(VENV)/links/seq2serve
lint: $(VENV)/installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	rm -rf $(LINKS) && mkdir -p $(LINKS)/pipeline
	ln -s $(CURDIR)/components $(CURDIR)/models $(wildcard $(CURDIR)/pipeline/api/*.py*) $(LINKS)
	ln -s $(filter-out %/api,$(wildcard $(CURDIR)/pipeline/*)) $(LINKS)/pipeline
	PYTHONPATH=$(VENV)/links $(VENV)/bin/lint-imports --no-logo
	MYPYPATH=$(VENV)/links $(VENV)/bin/mypy -p seq2serve.models -p seq2serve.components.base -m seq2serve -m seq2serve._run -m seq2serve._evaluate -m seq2serve._load -m seq2serve._rows

# Agreement with the programs that users would pick instead, in a separate environment of several GB.
test-peers: .peers/installed
	.peers/bin/python -m pytest tests/peers $(ARGS)

# Demo models in the C++ runtimes that TF Serving links, of TensorFlow and TF Text, in an environment for each release.
SERVER_VERSIONS = $(patsubst tests/server_versions/tensorflow-%.lock,%,$(wildcard tests/server_versions/*.lock))
test-server-versions: $(VENV)/installed $(SERVER_VERSIONS:%=.server-%/installed)
	SEQ2SERVE_SERVERS=$(CURDIR) $(VENV)/bin/python -m pytest --numprocesses=0 tests/server_versions $(ARGS)

# Training on several machines, each a process here; ARGS="-k two" takes about five minutes on two cores.
test-machines: $(VENV)/installed
	$(VENV)/bin/python -m pytest -m runners --numprocesses=0 \
		tests/runners/test_machines.py tests/runners/test_train_step.py $(ARGS)

# Beam's other runners on this machine, in Beam's version; needs Go, and minutes, because every worker starts TensorFlow.
test-runners: $(VENV)/installed .runners/prism .runners/boot
	SEQ2SERVE_PRISM=$(CURDIR)/.runners/prism SEQ2SERVE_BOOT=$(CURDIR)/.runners/boot \
		$(VENV)/bin/python -m pytest -m runners --numprocesses=0 tests/runners $(ARGS)

# Flink and Beam's runner for it; needs Java 11 or 17 and Maven, and downloads 160 MB once.
test-flink: $(VENV)/installed .flink/job.jar .runners/boot
	SEQ2SERVE_FLINK=$(CURDIR)/.flink SEQ2SERVE_BOOT=$(CURDIR)/.runners/boot \
		$(VENV)/bin/python -m pytest -m runners --numprocesses=0 tests/runners/test_flink.py $(ARGS)

# Dataflow's jobs, built but not sent, and pipelines on an object store, in a separate environment for Google's clients.
test-dataflow: .dataflow/installed
	.dataflow/bin/python -m pytest --numprocesses=0 tests/runners/test_dataflow.py tests/runners/test_object_store.py $(ARGS)

# --no-deps: the lock file is complete, so nothing is resolved, and nothing else can be installed.
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

# One environment per TensorFlow of a model server. TensorFlow 2.19 needs Python 3.12 or lower.
.server-%/installed: tests/server_versions/tensorflow-%.lock pyproject.toml
	$(PYTHON) -m venv --clear .server-$*
	.server-$*/bin/python -m pip install --quiet --no-deps --require-hashes -r $<
	.server-$*/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
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

# Pins all dependencies again, for every supported Python and platform.
lock:
	$(PYTHON) -m venv --clear .lock
	.lock/bin/python -m pip install --quiet uv
	.lock/bin/uv pip compile pyproject.toml --quiet --universal --generate-hashes --no-emit-index-url \
		--no-header --no-annotate --python-version 3.11 --extra dev --extra notebooks \
		--extra postgres --output-file requirements.lock
	.lock/bin/uv pip compile pyproject.toml --quiet --universal --generate-hashes --no-emit-index-url \
		--no-header --no-annotate --python-version 3.11 --extra peers --constraint requirements.lock \
		--output-file tests/peers/requirements.lock
	.lock/bin/uv pip compile pyproject.toml --quiet --universal --generate-hashes --no-emit-index-url \
		--no-header --no-annotate --python-version 3.11 --extra dev --extra gcp --constraint requirements.lock \
		--output-file tests/runners/requirements.lock
	for version in $(SERVER_VERSIONS); do \
		.lock/bin/uv pip compile tests/server_versions/tensorflow-$$version.in --quiet --universal --generate-hashes \
			--no-emit-index-url --no-header --no-annotate --python-version 3.11 \
			--output-file tests/server_versions/tensorflow-$$version.lock || exit 1; \
	done
	rm -rf .lock

clean:
	rm -rf $(VENV) .peers .dataflow .runners .flink .server-* build *.egg-info
