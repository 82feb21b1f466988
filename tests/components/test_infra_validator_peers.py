"""What Python TensorFlow and a model server answer is compared with what the C++ runtime answered, row by row."""

import numpy as np
import pytest
import tensorflow as tf

from components.infra_validator_child import Exchange, Refused
from components.infra_validator_peers import compare_with_python, compare_with_server

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


def test_equal_answers_are_counted(directory):
    saw = compare_with_python(directory, [exchange(), exchange()])
    assert saw == "6 rows by Python, 0 unlike the C++ runtime's"


def test_other_answers_are_refused_with_signature_output_and_row(directory):
    with pytest.raises(Refused, match=r"1 of 3 rows differ .* Python: 'serving_default', 'length' of row 2"):
        compare_with_python(directory, [exchange((3, 0, 6))])


def test_a_server_that_does_not_start_is_refused_with_its_last_words(directory, tmp_path):
    server = tmp_path / "tensorflow_model_server"
    server.write_text("#!/bin/sh\necho cannot bind $1 >&2\nexit 1\n", encoding="utf-8")
    server.chmod(0o755)
    with pytest.raises(Refused, match=r"did not get ready: cannot bind --port=\d+"):
        compare_with_server(str(server), directory, [exchange()], 10)
