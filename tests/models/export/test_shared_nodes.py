"""Merging duplicate nodes removes them from the graph without changing its results."""

import collections

import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from seq2serve.models.export.shared_nodes import share_nodes
from seq2serve.models.runtime.saved_model import iterate_functions, read_meta_graph


class Module(tf.Module):
    """Has duplicate nodes, two random draws and nodes whose results are unused."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")], autograph=False)
    def serve(self, x):
        tf.math.cumsum(x)
        first, duplicate = tf.exp(x * 0.5), tf.exp(x * 0.5)
        with tf.control_dependencies([tf.negative(first)]):
            zeros = tf.zeros_like(duplicate)
        _, loop = tf.while_loop(lambda i, _: i < 3, lambda i, y: (i + 1, tf.sin(y) * tf.sin(y)), (0, zeros + first))
        draws = [tf.random.uniform([2]), tf.random.uniform([2])]
        return {"sum": first + duplicate, "loop": loop, "draws": tf.stack(draws) + 0.0 * first[0]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared")
    module = Module()
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})
    return folder


def count_ops(folder):
    """Counts the ops in all functions of the graph."""
    functions = iterate_functions(read_meta_graph(str(folder)))
    return collections.Counter(node.op for function in functions for node in function.node_def)


def run(folder):
    outputs = tf.saved_model.load(str(folder)).signatures["serving_default"](tf.constant([0.5, 2.0]))
    return {name: value.numpy() for name, value in outputs.items()}


def test_duplicate_and_unused_nodes_are_removed_without_changing_results(folder):
    path = folder / "saved_model.pb"
    before, expected = count_ops(folder), run(folder)
    saved_model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    share_nodes(saved_model)
    path.write_bytes(saved_model.SerializeToString(deterministic=True))
    after, outputs = count_ops(folder), run(folder)
    assert {op: (before[op], after[op]) for op in ("Exp", "Sin", "Neg", "Cumsum")} == {
        "Exp": (2, 1),
        "Neg": (1, 1),  # its result is unused, but it is a control dependency
        "Sin": (2, 1),
        "Cumsum": (1, 0),
    }
    assert before["RandomUniform"] == after["RandomUniform"] == 2  # stateful, so not duplicates
    for name in ("sum", "loop"):
        assert outputs[name].tolist() == expected[name].tolist()
    assert outputs["draws"][0].tolist() != outputs["draws"][1].tolist()
