"""What tests share: a toy pipeline in a process of its own, a PostgreSQL server, and for serving a small model of every
kind of signature and `seq2serve serve`.

Comes in: nothing. Goes out: fixtures. Read next: test_resume.py, test_shared_store.py, test_serving.py.
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
    """A server for `export` that answers with its tag, so that one sees which version answered."""
    import tensorflow as tf

    from models.warmup import alone_and_together

    def spec(dtype, name, *more):
        return tf.TensorSpec([None, *more], dtype, name=name)

    class Vocabulary:
        """As much of a tokenizer as `export` asks for."""

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
    """Returns a function that exports a model with a tag, once."""
    from models.export import export

    exported = {}

    def model(tag):
        if tag not in exported:
            exported[tag] = str(tmp_path_factory.mktemp(f"model-{tag}"))
            export(echo_class(tag), exported[tag], ["a", "few words"])
        return exported[tag]

    return model


class Server:
    """A `seq2serve serve` in a process of its own."""

    def __init__(self, folder, *options):
        from components.serving_client import ServingClient, free_port

        self.rest_port, self.grpc_port = free_port(), free_port()
        ports = ["--port", str(self.rest_port), "--grpc-port", str(self.grpc_port)]
        command = [sys.executable, "-m", "pipeline", "serve", str(folder), *ports, *options]
        self.process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.client = ServingClient("echo", self.rest_port, self.grpc_port)

    def post(self, path, body):
        """Posts bytes; returns status and parsed answer."""
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
    """Returns a context manager: a Server that is ready."""

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
    """A Server of the model tagged "one"; look, and push nothing."""
    from components.serving_folder import publish

    folder = tmp_path_factory.mktemp("serving") / "echo"
    publish(str(folder), models("one"), {}, 5)
    with running(folder) as server:
        yield server


# A pipeline of its own process: Count -> Train (checkpoints in scratch, two outputs) -> Push. Every execution adds a
# line to calls.txt; `crash` says where the process kills itself, `slow` how long Train takes, `machine` its name.
TOY = '''
import json, os, signal, socket, sys, time
from pathlib import Path

from components.artifact import Examples, Model, ModelEvaluation, ModelRun, RawFiles
from components.component import Context, Input, Output, component, raw_files
from components.errors import Seq2ServeError
from pipeline import root as pipeline_root
from pipeline.metadata import MetadataStore
from pipeline.runner import Pipeline, Runner
import helper

HERE = Path(__file__).parent
DEFAULTS = {"root": str(HERE / "root"), "metadata": "", "machine": "", "crash": "", "slow": 0.0, "steps": 3}
SETTINGS = {**DEFAULTS, **json.loads(sys.argv[1])}


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def called(name):
    with (HERE / "calls.txt").open("a") as file:
        file.write(name + chr(10))


@component
def Count(files: Input[RawFiles], examples: Output[Examples], context: Context) -> None:
    called("Count")
    Path(examples.path("half")).write_text("half")
    if SETTINGS["crash"] == "in Count":
        die()
    Path(examples.path("count.txt")).write_text(str(helper.count(files)))


@component
def Train(
    examples: Input[Examples], model: Output[Model], model_run: Output[ModelRun], steps: int, context: Context
) -> None:
    checkpoint = Path(context.scratch, "step")
    start = int(checkpoint.read_text()) if checkpoint.exists() else 0
    called(f"Train from {start}")
    for step in range(start, steps):
        checkpoint.write_text(str(step + 1))
        time.sleep(SETTINGS["slow"] / steps)
        if SETTINGS["crash"] == "in Train" and step == 1:
            die()
    Path(model.path("model.txt")).write_text(Path(examples.path("count.txt")).read_text() + f" x {steps}")
    Path(model_run.path("log.txt")).write_text("log")


@component
def Judge(model: Input[Model], evaluation: Output[ModelEvaluation]) -> None:
    called("Judge")
    Path(evaluation.path("metrics.json")).write_text(Path(model.path("model.txt")).read_text())


def crash_at(module, name, wanted, before):
    """Kills the process just before or after the wanted call (counted from 1) of module.name."""
    original, calls = getattr(module, name), []
    def replacement(*arguments, **keywords):
        calls.append(name)
        if len(calls) == wanted and before:
            die()
        result = original(*arguments, **keywords)
        if len(calls) == wanted:
            die()
        return result
    setattr(module, name, replacement)


# Calls are counted over the run: Count's one output, then Train's two.
if SETTINGS["crash"] == "before Train is renamed":
    crash_at(pipeline_root.os, "rename", 2, before=True)
elif SETTINGS["crash"] == "between Train's renames":
    crash_at(pipeline_root.os, "rename", 3, before=True)
elif SETTINGS["crash"] == "before Train is committed":
    crash_at(MetadataStore, "publish", 2, before=True)
elif SETTINGS["crash"] == "after Train is committed":
    crash_at(MetadataStore, "publish", 2, before=False)
elif SETTINGS["crash"] == "before Train begins":
    crash_at(MetadataStore, "begin_execution", 2, before=False)

if SETTINGS["machine"]:
    socket.gethostname = lambda: SETTINGS["machine"]

files = raw_files(str(HERE / "data.tsv"))
count = Count(files=files)
train = Train(examples=count.outputs["examples"], steps=SETTINGS["steps"])
judge = Judge(model=train.outputs["model"])
pipeline = Pipeline("toy", SETTINGS["root"], (files.node, count, train, judge))
result = Runner(pipeline, metadata_url=SETTINGS["metadata"]).run()
heavy = sorted({"tensorflow", "apache_beam", "keras", "numpy"} & set(sys.modules))
outputs = {f"{name}/{key}": made.uri for name, node in result.nodes.items() for key, made in node.outputs.items()}
print(json.dumps({"heavy": heavy, "outputs": outputs, "seconds": result.seconds}))
'''
HELPER = """
def count(files):
    import tensorflow, apache_beam  # only when it runs, as in real components
    return sum(file["bytes"] for file in files.properties["files"])
"""


class Toy:
    """The toy pipeline in a folder of its own."""

    def __init__(self, folder: pathlib.Path, metadata: str = "") -> None:
        self.folder, self.root, self.metadata = folder, folder / "root", metadata
        (folder / "toy.py").write_text(TOY)
        # What stands in for TensorFlow and Beam, so that a run may import them without paying for them.
        (folder / "helper.py").write_text(HELPER)
        for name in ("tensorflow", "apache_beam"):
            (folder / f"{name}.py").write_text("")
        (folder / "data.tsv").write_text("source\ttarget\na\tb\n")

    def start(self, stdout: int = subprocess.PIPE, **settings) -> subprocess.Popen:
        command = [sys.executable, str(self.folder / "toy.py"), json.dumps({"metadata": self.metadata, **settings})]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
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
        """Returns every published file's content, the execution's number left out of its path."""
        files = [path for path in self.root.glob("[A-Z]*/*/*/*") if path.is_file()]
        parts = [path.relative_to(self.root).parts for path in files]
        return {"/".join((*part[:2], part[3])): path.read_text() for part, path in zip(parts, files, strict=True)}


class Finished:
    """What a process of the toy pipeline printed, line by line: component -> (ran or reused, reason)."""

    def __init__(self, process: subprocess.Popen) -> None:
        self.out, self.err = process.communicate(timeout=60)
        self.code = process.returncode
        lines = [line.split(maxsplit=4) for line in self.out.splitlines() if line[:1].isupper()]
        self.components = {name: (verb, reason) for name, verb, _, _, reason in lines}
        self.summary = json.loads(self.out.splitlines()[-1]) if self.code == 0 else {}


@pytest.fixture
def make_toy():
    """Returns a function that puts the toy pipeline into a folder, with the URL of a store that it shares."""
    return Toy


class Postgres:
    """A PostgreSQL server of this session's own, on a socket in its folder."""

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
        nobody = pwd.getpwnam(self._user) if self._user else None
        rights = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []} if nobody else {}
        subprocess.run(command, check=True, cwd=self.folder, stdout=subprocess.DEVNULL, **rights)


@pytest.fixture(scope="session")
def postgres():
    """A PostgreSQL server, where its programs (Debian: postgresql) and its driver (the extra `postgres`) are there."""
    pytest.importorskip("psycopg", reason="needs the extra postgres")
    found = shutil.which("initdb") or next(iter(glob.glob("/usr/lib/postgresql/*/bin/initdb")), None)
    if not found:
        pytest.skip("needs the programs of PostgreSQL")
    user = "nobody" if os.geteuid() == 0 else None  # initdb refuses root
    folder = tempfile.mkdtemp(prefix="seq2serve-", dir="/tmp")  # a socket's path has 107 characters at most
    try:
        if user:
            shutil.chown(folder, user)
        server = Postgres(os.path.dirname(found), folder, user)
        server.start()
        yield server
        server.stop()
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def postgres_url(postgres):
    """URL of a database in which nothing is."""
    import psycopg

    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    return postgres.url
