"""What tests of serving share: a small model of every kind of signature, and `seq2serve serve` in a process of its own.

Comes in: nothing. Goes out: fixtures. Read next: test_serving.py.
"""

import contextlib
import http.client
import json
import os
import pathlib
import subprocess
import sys

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
