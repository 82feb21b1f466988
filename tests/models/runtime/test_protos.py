"""TF Serving's messages are available without Python TensorFlow, and compatible with it."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from seq2serve.models.runtime.protos import MAX_REPEATED_BYTES, from_tensor_proto, to_tensor_proto

WITHOUT_TENSORFLOW = """
import sys
import seq2serve.pipeline.serving.server, seq2serve.pipeline.commands.predictions
assert "tensorflow" not in sys.modules
from seq2serve.models.runtime.protos import example_pb2, predict_pb2
import tensorflow as tf
request = predict_pb2.PredictRequest()
request.inputs["text"].CopyFrom(tf.make_tensor_proto(["a"]))
assert tf.train.Example is example_pb2.Example
print(tf.make_ndarray(request.inputs["text"]), tf.reduce_sum([1, 2]).numpy())
"""


def test_the_server_does_not_import_tensorflow_which_can_be_imported_later():
    child = subprocess.run([sys.executable, "-c", WITHOUT_TENSORFLOW], capture_output=True, text=True, check=False)
    assert child.stdout == "[b'a'] 3\n", child.stderr


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "uint8", "bool"])
@pytest.mark.parametrize("shape", [(0,), (3,), (2, 0), (2, 3)])
def test_arrays_survive_conversion_also_through_tensorflow(dtype, shape):
    array = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    for proto in (to_tensor_proto(array), tf.make_tensor_proto(array)):
        converted = from_tensor_proto(proto)
        assert converted.dtype == dtype
        np.testing.assert_array_equal(converted, array)
    np.testing.assert_array_equal(tf.make_ndarray(to_tensor_proto(array)), array)


def test_strings_survive_conversion():
    array = np.array([[b"", b"\xff\0"]], object)
    assert from_tensor_proto(to_tensor_proto(array)).tolist() == array.tolist()
    assert from_tensor_proto(tf.make_tensor_proto(array)).tolist() == array.tolist()


def one_value(value, size):
    proto = tf.make_tensor_proto([value])
    proto.tensor_shape.dim[0].size = size
    return proto


@pytest.mark.parametrize("value", [1.5, 7, True, np.int64(-1), np.float16(0.5)])
def test_a_repeated_number_is_stored_once_and_equal_to_tensorflows(value):
    proto = one_value(value, 5)
    array = from_tensor_proto(proto)
    assert array.strides == (0,)
    assert array.dtype == tf.make_ndarray(proto).dtype
    assert array.tolist() == tf.make_ndarray(proto).tolist() == [value] * 5


def test_a_small_message_for_a_huge_tensor_is_an_error():
    assert from_tensor_proto(one_value(1.0, MAX_REPEATED_BYTES // 4)).nbytes == MAX_REPEATED_BYTES
    with pytest.raises(ValueError, match="one number for the shape"):
        from_tensor_proto(one_value(1.0, MAX_REPEATED_BYTES // 4 + 1))


@pytest.mark.parametrize("size", [0, 2, 2**20])
def test_a_repeated_string_is_an_error(size):
    with pytest.raises(ValueError, match="one string for the shape"):
        from_tensor_proto(one_value(b"a", size))


def test_a_number_out_of_range_is_an_error():
    proto = tf.make_tensor_proto(np.uint8([7]))
    proto.ClearField("tensor_content")
    proto.int_val.append(300)
    with pytest.raises(ValueError, match="a tensor is broken"):
        from_tensor_proto(proto)
