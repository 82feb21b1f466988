"""The messages and gRPC services of TF Serving, without Python TensorFlow.

Comes in: nothing. Goes out: the modules of tensorflow-serving-api, and tensors as messages.
Read next: saved_model.py for the names of types.

That package's generated code imports generated code of the tensorflow package, which is nothing but descriptors; yet to
get there Python would first run `tensorflow/__init__.py`, for five seconds and 400 MB.
"""

import contextlib
import importlib.util
import math
import sys
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
from tensorboard.util import tensor_util

MAX_REPEATED_BYTES = 32 * 2**20  # as much as a message may have that does not abbreviate


@contextlib.contextmanager
def _hollow_tensorflow() -> Iterator[None]:
    """Lets submodules of tensorflow be imported without tensorflow itself, which may still be imported afterwards."""
    if "tensorflow" in sys.modules:
        yield
        return
    spec = importlib.util.find_spec("tensorflow")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("the package tensorflow is not installed")
    hollow = types.ModuleType("tensorflow")
    hollow.__path__ = list(spec.submodule_search_locations)
    sys.modules["tensorflow"] = hollow
    try:
        yield
    finally:
        del sys.modules["tensorflow"]


with _hollow_tensorflow():
    from tensorflow.core.example import example_pb2
    from tensorflow.core.framework import tensor_pb2
    from tensorflow.core.protobuf import meta_graph_pb2
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
    from tensorflow_serving.config import model_server_config_pb2

__all__ = [
    "classification_pb2",
    "example_pb2",
    "from_tensor_proto",
    "get_model_metadata_pb2",
    "get_model_status_pb2",
    "input_pb2",
    "meta_graph_pb2",
    "model_server_config_pb2",
    "model_service_pb2_grpc",
    "predict_pb2",
    "prediction_log_pb2",
    "prediction_service_pb2_grpc",
    "to_tensor_proto",
]


def to_tensor_proto(array: np.ndarray) -> Any:
    """Makes a tensorflow.TensorProto of an array; strings are an object array of bytes."""
    proto = tensor_util.make_tensor_proto(array, shape=array.shape)
    return tensor_pb2.TensorProto.FromString(proto.SerializeToString())


def from_tensor_proto(proto: Any) -> np.ndarray:
    """Makes an array of a tensorflow.TensorProto.

    A number that is repeated all over a tensor may be written once, as TensorFlow allows; a string may not, for each of
    its copies would cost the reader a multiple of what all of them cost the sender.

    Returns:
        The array; not to be written to, for repeated numbers are one in memory.
    Raises:
        ValueError: the message does not hold what its shape and type say, or repeats a number too often.
    """
    shape = [dimension.size for dimension in proto.tensor_shape.dim]
    values = sum(len(value) for field, value in proto.ListFields() if field.name.endswith("_val"))
    try:
        if values != 1 or math.prod(shape) == 1:
            return tensor_util.make_ndarray(proto)
        return _repeat(proto, shape)
    except (OverflowError, TypeError, ValueError) as error:
        raise ValueError(f"a tensor is broken: {error}") from error


def _repeat(proto: Any, shape: list[int]) -> np.ndarray:
    if proto.string_val:
        raise ValueError(f"it has one string for the shape {shape}")
    alone = type(proto)()
    alone.CopyFrom(proto)
    alone.ClearField("tensor_shape")
    number = tensor_util.make_ndarray(alone)
    if math.prod(shape) * number.itemsize > MAX_REPEATED_BYTES:
        raise ValueError(f"it has one number for the shape {shape}, which is more than {MAX_REPEATED_BYTES} bytes")
    return np.broadcast_to(number, shape)
