"""The answers of Python TensorFlow and of a model server are compared with the C++ runtime's, row by row."""

import numpy as np
import pytest
import tensorflow as tf

from seq2serve.components.infra_validator.peers import compare_with_python, compare_with_server
from seq2serve.components.infra_validator.trial import CheckFailedError, Exchange

TEXTS = np.array([b"one", b"", "f\u00fcnf".encode()], object)


class Lengths(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def serve(self, text):
        length = tf.strings.length(text)
        return {"copy": tf.identity(text), "length": length, "matrix": tf.stack([length, 2 * length], 1)}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    module, path = Lengths(), str(tmp_path_factory.mktemp("lengths"))
    tf.saved_model.save(module, path, signatures={"serving_default": module.serve})
    return path


def exchange(lengths=(3, 0, 5)):
    lengths = np.array(lengths, np.int32)
    outputs = {"copy": TEXTS, "length": lengths, "matrix": np.stack([lengths, 2 * lengths], 1)}
    return Exchange("serving_default", {"text": TEXTS}, outputs)


def test_equal_answers_pass(directory):
    saw = compare_with_python(directory, [exchange(), exchange()])
    assert saw == "6 rows by Python, 0 of them different from the C++ runtime"


def test_a_different_answer_fails_and_the_message_has_signature_output_and_row(directory):
    message = "1 of 3 rows differ .* Python; the first: signature 'serving_default', output 'length', row 2"
    with pytest.raises(CheckFailedError, match=message):
        compare_with_python(directory, [exchange((3, 0, 6))])


def test_a_server_that_does_not_start_fails_and_the_message_has_its_last_output(directory, tmp_path):
    server = tmp_path / "tensorflow_model_server"
    server.write_text("#!/bin/sh\necho cannot bind $1 >&2\nexit 1\n", encoding="utf-8")
    server.chmod(0o755)
    with pytest.raises(CheckFailedError, match=r"did not become ready: cannot bind --port=\d+"):
        compare_with_server(str(server), directory, [exchange()], 10)
