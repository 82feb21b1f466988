"""An exported graph holds nothing twice, and answers as before."""

import collections

import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from models.saved_model import iterate_functions, read_meta_graph
from models.shared_nodes import share_nodes


class Module(tf.Module):
    """Computes one thing twice, draws twice, and begins what nobody asks for."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")], autograph=False)
    def serve(self, x):
        tf.math.cumsum(x)
        half, same = tf.exp(x * 0.5), tf.exp(x * 0.5)
        with tf.control_dependencies([tf.negative(half)]):
            zeros = tf.zeros_like(same)
        repeated = tf.while_loop(lambda i, _: i < 3, lambda i, y: (i + 1, tf.sin(y) * tf.sin(y)), (0, zeros + half))
        draws = [tf.random.uniform([2]), tf.random.uniform([2])]
        return {"sum": half + same, "repeated": repeated[1], "draws": tf.stack(draws) + 0.0 * half[0]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared")
    module = Module()
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})
    return folder


def ops(folder):
    """Counts the ops of the function behind the signature, and of the loop in it."""
    functions = iterate_functions(read_meta_graph(str(folder)))
    return collections.Counter(node.op for function in functions for node in function.node_def)


def answer(folder):
    answers = tf.saved_model.load(str(folder)).signatures["serving_default"](tf.constant([0.5, 2.0]))
    return {name: value.numpy() for name, value in answers.items()}


def test_what_is_computed_twice_or_for_nobody_goes_and_the_answers_stay(folder):
    path = folder / "saved_model.pb"
    before, expected = ops(folder), answer(folder)
    saved_model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    share_nodes(saved_model)
    path.write_bytes(saved_model.SerializeToString(deterministic=True))
    after, answers = ops(folder), answer(folder)
    assert {op: (before[op], after[op]) for op in ("Exp", "Sin", "Neg", "Cumsum")} == {
        "Exp": (2, 1),
        "Neg": (1, 1),  # nobody takes its result, but something waits for it
        "Sin": (2, 1),
        "Cumsum": (1, 0),
    }
    assert before["RandomUniform"] == after["RandomUniform"] == 2  # two draws are two numbers
    for name in ("sum", "repeated"):
        assert answers[name].tolist() == expected[name].tolist()
    assert answers["draws"][0].tolist() != answers["draws"][1].tolist()
