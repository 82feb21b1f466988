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

MAX_ELEMENTS = 2**24


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

    Raises:
        ValueError: the message does not hold what its shape and type say.
    """
    # A tensor of one value repeated may be written as that value; its size is then for the sender to choose.
    if math.prod(dimension.size for dimension in proto.tensor_shape.dim) > MAX_ELEMENTS:
        raise ValueError(f"a tensor has more than {MAX_ELEMENTS} elements")
    try:
        return tensor_util.make_ndarray(proto)
    except (TypeError, ValueError) as error:
        raise ValueError(f"a tensor is broken: {error}") from error
