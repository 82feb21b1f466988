"""Fixtures: a toy pipeline in its own process, a PostgreSQL server, `seq2serve serve`, and a model for it.

The model is small and has signatures of every kind.
"""

import contextlib
import glob
import http.client
import json
import os
import pathlib
import pwd
import shutil
import sqlite3
import subprocess
import sys
import tempfile

import pytest

REPOSITORY = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="session")
def echo_class():
    """A module for `export` whose answers contain its tag, which identifies the version that answered."""
    import tensorflow as tf

    from seq2serve.models.export.warmup import alone_and_together

    def spec(dtype, name, *more):
        return tf.TensorSpec([None, *more], dtype, name=name)

    class Vocabulary:
        """The part of a tokenizer that `export` uses."""

        vocab_size = 3

        def id_to_piece(self, ids):
            return tf.strings.as_string(ids)

    class Echo(tf.Module):
        tokenizer = Vocabulary()

        def __init__(self, tag):
            super().__init__()
            self.tag = tag

        def signatures(self):
            names = ("serving_default", "n_best", "attention", "classify", "only", "encode")
            return {name: getattr(self, name) for name in names}

        def warmup_requests(self, samples):
            return alone_and_together("serving_default", {"text": samples})

        def config(self):
            return {"tag": self.tag}

        @tf.function(input_signature=[spec(tf.string, "text")])
        def serving_default(self, text):
            translation = tf.strings.join([self.tag, ":", text])
            return {"translation": translation, "score": 0.1 * tf.cast(tf.strings.length(text), tf.float32)}

        @tf.function(input_signature=[spec(tf.string, "text")])
        def n_best(self, text):
            translations = tf.stack([text, tf.strings.upper(text)], 1)
            return {"translations": translations, "scores": tf.zeros_like(translations, tf.float32)}

        @tf.function(input_signature=[spec(tf.string, "source"), spec(tf.string, "target")])
        def attention(self, source, target):
            size, pieces = tf.shape(source)[0], tf.tile([["▁Gu", "ten", "▁Tag"]], [tf.shape(source)[0], 1])
            return {
                "source_tokens": pieces,
                "source_length": tf.fill([size], 3),
                "target_tokens": pieces[:, 1:],
                "target_length": tf.fill([size], 2),
                "attention": tf.fill([size, 1, 2, 2, 3], 0.25),
            }

        @tf.function(input_signature=[spec(tf.string, "inputs")])
        def classify(self, inputs):
            text = tf.io.parse_example(inputs, {"text": tf.io.FixedLenFeature([], tf.string)})["text"]
            classes = tf.stack([tf.fill(tf.shape(text), "length"), text], 1)
            lengths = tf.cast(tf.strings.length(text), tf.float32)
            return {"classes": classes, "scores": tf.stack([lengths, -lengths], 1)}

        @tf.function(input_signature=[spec(tf.float32, "x", 2)])
        def only(self, x):
            return {"doubled": 2.0 * x}

        @tf.function(input_signature=[spec(tf.string, "data")])
        def encode(self, data):
            return {"same_bytes": tf.identity(data), "length": tf.strings.length(data)}

    return Echo


@pytest.fixture(scope="session")
def models(echo_class, tmp_path_factory):
    """Returns a function that exports the model of a tag, once per session."""
    from seq2serve.models.export.export import export

    exported = {}

    def model(tag):
        if tag not in exported:
            exported[tag] = str(tmp_path_factory.mktemp(f"model-{tag}"))
            export(echo_class(tag), exported[tag], ["a", "few words"])
        return exported[tag]

    return model


class Server:
    """A `seq2serve serve` process."""

    def __init__(self, folder, *options):
        from seq2serve.components.infra_validator.client import ServingClient, free_port

        self.rest_port, self.grpc_port = free_port(), free_port()
        ports = ["--port", str(self.rest_port), "--grpc-port", str(self.grpc_port)]
        command = [sys.executable, "-m", "seq2serve", "serve", str(folder), *ports, *options]
        self.process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.client = ServingClient("echo", self.rest_port, self.grpc_port)

    def post(self, path, body):
        """Posts bytes; returns the status and the parsed answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.rest_port, timeout=30)
        with contextlib.closing(connection):
            connection.request("POST", path, body)
            response = connection.getresponse()
            return response.status, json.loads(response.read())

    def ask(self, text, which=""):
        status, answer = self.post(f"/v1/models/echo{which}:predict", json.dumps({"instances": [text]}))
        return answer["predictions"][0]["translation"] if status == 200 else f"{status} {answer['error']}"

    def memory_mib(self):
        pages = int(pathlib.Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.fixture(scope="session")
def running():
    """Returns a context manager that yields a Server which is ready."""

    @contextlib.contextmanager
    def running(folder, *options):
        server = Server(folder, *options)
        alive = server.process.poll
        try:
            assert server.client.wait_until_ready(60, lambda: alive() is None), server.process.stderr.read()
            yield server
        finally:
            server.process.terminate()
            server.process.wait()

    return running


@pytest.fixture(scope="session")
def server(models, running, tmp_path_factory):
    """A Server of the model with the tag "one" and the label "live", shared by all tests: do not push to its folder."""
    from seq2serve.components.pusher.versions import publish

    folder = tmp_path_factory.mktemp("serving") / "echo"
    number = publish(str(folder), models("one"), {}, 5)
    config = folder / "models.config"
    label = f'version_labels {{ key: "live" value: {number} }}'
    config.write_text(config.read_text().replace("base_path", f"{label} base_path"))
    with running(folder) as server:
        yield server


TOY = pathlib.Path(__file__).with_name("toy")


class Toy:
    """The toy pipeline in its own folder."""

    def __init__(self, folder: pathlib.Path, metadata: str = "") -> None:
        self.folder, self.root, self.metadata = folder, folder / "root", metadata
        for name in ("toy.py", "helper.py"):
            shutil.copy(TOY / name, folder)
        # Empty modules replace TensorFlow and Beam, so that importing them is fast.
        for name in ("tensorflow", "apache_beam"):
            (folder / f"{name}.py").write_text("")
        (folder / "data.tsv").write_text("source\ttarget\na\tb\n")

    def start(self, stdout: int = subprocess.PIPE, **settings) -> subprocess.Popen:
        command = [sys.executable, str(self.folder / "toy.py"), json.dumps({"metadata": self.metadata, **settings})]
        environment = dict(os.environ)
        return subprocess.Popen(command, env=environment, text=True, stdout=stdout, stderr=subprocess.PIPE)

    def run(self, **settings) -> "Finished":
        return self.finish(self.start(**settings))

    def finish(self, process: subprocess.Popen) -> "Finished":
        return Finished(process)

    def calls(self) -> list[str]:
        path = self.folder / "calls.txt"
        return path.read_text().splitlines() if path.exists() else []

    def states(self) -> list[tuple[str, str]]:
        with sqlite3.connect(self.root / "metadata.sqlite") as connection:
            return connection.execute("SELECT component, state FROM executions ORDER BY id").fetchall()

    def leftovers(self) -> list[str]:
        return [str(path) for name in (".staging", ".scratch") for path in (self.root / name).iterdir()]

    def artifacts(self) -> dict[str, str]:
        """Returns path -> content of every published file; the path has no execution id."""
        files = [path for path in self.root.glob("[A-Z]*/*/*/*") if path.is_file()]
        parts = [path.relative_to(self.root).parts for path in files]
        return {"/".join((*part[:2], part[3])): path.read_text() for part, path in zip(parts, files, strict=True)}


class Finished:
    """The result of a process of the toy pipeline; `components` is component -> (ran or reused, reason)."""

    def __init__(self, process: subprocess.Popen) -> None:
        self.out, self.err = process.communicate(timeout=60)
        self.code = process.returncode
        lines = [line.split(maxsplit=4) for line in self.out.splitlines() if line[:1].isupper()]
        self.components = {name: (verb, reason) for name, verb, _, _, reason in lines}
        self.summary = json.loads(self.out.splitlines()[-1]) if self.code == 0 else {}


@pytest.fixture
def make_toy():
    """Returns a function that creates the toy pipeline in a folder; the second argument is a shared store's URL."""
    return Toy


class Postgres:
    """A PostgreSQL server for this test session, on a Unix socket in its folder."""

    def __init__(self, programs: str, folder: str, user: str | None) -> None:
        self._programs, self.folder, self._user = programs, folder, user
        self.url = f"postgresql://tester@/postgres?host={folder}"
        self._call("initdb", "--username=tester", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C")

    def start(self) -> None:
        options = f"-c listen_addresses= -c unix_socket_directories={self.folder} -c fsync=off"
        self._call("pg_ctl", "start", "--wait", f"--log={self.folder}/log", f"--options={options}")

    def stop(self) -> None:
        self._call("pg_ctl", "stop", "--wait", "--mode=immediate")

    def _call(self, program: str, *arguments: str) -> None:
        command = [os.path.join(self._programs, program), *arguments, "-D", f"{self.folder}/data"]
        account = pwd.getpwnam(self._user) if self._user else None
        privileges = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []} if account else {}
        subprocess.run(command, check=True, cwd=self.folder, stdout=subprocess.DEVNULL, **privileges)


@pytest.fixture(scope="session")
def postgres():
    """A PostgreSQL server; skips the test if its programs (Debian: postgresql) or the extra `postgres` are missing."""
    pytest.importorskip("psycopg", reason="needs the extra postgres")
    initdb = shutil.which("initdb") or next(iter(glob.glob("/usr/lib/postgresql/*/bin/initdb")), None)
    if not initdb:
        pytest.skip("needs the programs of PostgreSQL")
    user = "nobody" if os.geteuid() == 0 else None  # initdb refuses root
    folder = tempfile.mkdtemp(prefix="seq2serve-", dir="/tmp")  # the path of a socket has at most 107 characters
    try:
        if user:
            shutil.chown(folder, user)
        server = Postgres(os.path.dirname(initdb), folder, user)
        server.start()
        yield server
        server.stop()
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def postgres_url(postgres):
    """URL of an empty database."""
    import psycopg

    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    return postgres.url
