"""A server whose model has signatures that take time, and whose outputs depend on the batch."""

import re
import urllib.request

import pytest


@pytest.fixture(scope="session")
def slow_model(echo_class, tmp_path_factory):
    """The folder of a model with the signatures `wait`, which takes some seconds per batch, `ragged` and `echo`."""
    import tensorflow as tf

    from seq2serve.models.export.export import export

    class Slow(echo_class):
        """Its signatures are independent of each other."""

        def signatures(self):
            return {name: getattr(self, name) for name in ("serving_default", "wait", "ragged", "echo")}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "seconds")])
        def wait(self, seconds):
            end = tf.timestamp() + tf.cast(tf.reduce_max(seconds), tf.float64)
            rounds = tf.while_loop(lambda _: tf.timestamp() < end, lambda count: count + 1, [0])[0]
            return {"waited": seconds + 0.0 * tf.cast(rounds, tf.float32)}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.int32, "length")])
        def ragged(self, length):
            return {"ones": tf.ones([tf.size(length), tf.reduce_max(length)])}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x"), tf.TensorSpec([None], tf.string, "tag")])
        def echo(self, x, tag):
            return {"x": tf.identity(x), "tag": tf.identity(tag)}

    folder = str(tmp_path_factory.mktemp("slow"))
    export(Slow("slow"), folder, ["a"])
    return folder


@pytest.fixture(scope="session")
def slow(slow_model, running):
    """A Server of `slow_model`, shared by all tests."""
    with running(slow_model, "--name", "echo") as server:
        yield server


@pytest.fixture(scope="session")
def fetch():
    """Returns a function: Server, path -> text."""

    def fetch(server, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{server.rest_port}{path}", timeout=30) as response:
            return response.read().decode()

    return fetch


@pytest.fixture(scope="session")
def graph_runs(fetch):
    """Returns a function: Server -> number of batches that the graph has run."""

    def graph_runs(server):
        text = fetch(server, "/monitoring/prometheus/metrics")
        return int(re.search(r"^:tensorflow:core:graph_runs\{\} (\d+)$", text, re.MULTILINE)[1])

    return graph_runs
