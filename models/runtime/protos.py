"""The protocol buffers and gRPC services of TF Serving, without Python TensorFlow.

The generated code of tensorflow-serving-api imports generated code of the tensorflow package. That code contains only
descriptors, but Python would first run `tensorflow/__init__.py`, which takes five seconds and 400 MB.
"""

import math

import numpy as np
from tensorboard.util import tensor_util

from seq2serve.models.runtime.tensorflow_stub import tensorflow_stub

MAX_REPEATED_BYTES = 32 * 2**20  # largest tensor that may be written as one repeated number

with tensorflow_stub():
    from tensorflow.core.example import example_pb2
    from tensorflow.core.framework import tensor_pb2
    from tensorflow_serving.apis import (
        classification_pb2,
        get_model_metadata_pb2,
        get_model_status_pb2,
        input_pb2,
        model_service_pb2_grpc,
        predict_pb2,
        prediction_log_pb2,
        prediction_service_pb2_grpc,
    )

__all__ = [
    "classification_pb2",
    "example_pb2",
    "from_tensor_proto",
    "get_model_metadata_pb2",
    "get_model_status_pb2",
    "input_pb2",
    "model_service_pb2_grpc",
    "predict_pb2",
    "prediction_log_pb2",
    "prediction_service_pb2_grpc",
    "to_tensor_proto",
]


def to_tensor_proto(array: np.ndarray) -> tensor_pb2.TensorProto:
    """Converts an array to a tensorflow.TensorProto; strings are an object array of bytes."""
    proto = tensor_util.make_tensor_proto(array, shape=array.shape)
    return tensor_pb2.TensorProto.FromString(proto.SerializeToString())


def from_tensor_proto(proto: tensor_pb2.TensorProto) -> np.ndarray:
    """Converts a tensorflow.TensorProto to an array.

    As in TensorFlow, a tensor in which all numbers are equal may contain the number only once. A string must not be
    repeated in this way: its copies would take far more memory than the message.

    Returns:
        The array. It may be read-only, because repeated numbers share memory.
    Raises:
        ValueError: the values do not match the shape and the dtype, or a repeated number makes too large a tensor.
    """
    shape = [dimension.size for dimension in proto.tensor_shape.dim]
    values = sum(len(value) for field, value in proto.ListFields() if field.name.endswith("_val"))
    try:
        if values != 1 or math.prod(shape) == 1:
            return tensor_util.make_ndarray(proto)
        return _repeat(proto, shape)
    except (OverflowError, TypeError, ValueError) as error:
        raise ValueError(f"a tensor is broken: {error}") from error


def _repeat(proto: tensor_pb2.TensorProto, shape: list[int]) -> np.ndarray:
    if proto.string_val:
        raise ValueError(f"it has one string for the shape {shape}; strings cannot be repeated")
    scalar = tensor_pb2.TensorProto()
    scalar.CopyFrom(proto)
    scalar.ClearField("tensor_shape")
    number = tensor_util.make_ndarray(scalar)
    if math.prod(shape) * number.itemsize > MAX_REPEATED_BYTES:
        raise ValueError(f"it has one number for the shape {shape}, which is more than {MAX_REPEATED_BYTES} bytes")
    return np.broadcast_to(number, shape)
