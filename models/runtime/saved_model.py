"""Reads a SavedModel's signatures and nodes without TensorFlow, and converts inputs to a signature's dtypes."""

import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError

from seq2serve.models.runtime.tensorflow_stub import tensorflow_stub

with tensorflow_stub():
    from tensorflow.core.framework import function_pb2, node_def_pb2, types_pb2
    from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef, TensorInfo
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

SERVE = "serve"  # tag of the graph that the model server loads
SERVING_DEFAULT = "serving_default"
CLASSIFY_METHOD = "tensorflow/serving/classify"  # method name that a signature needs for the server's Classify call

# The dtypes that clients can send and receive. Resources, variants and quantised dtypes are not among them.
_DTYPES = {
    types_pb2.DT_STRING: "string",
    types_pb2.DT_BOOL: "bool",
    types_pb2.DT_HALF: "float16",
    types_pb2.DT_FLOAT: "float32",
    types_pb2.DT_DOUBLE: "float64",
    types_pb2.DT_INT8: "int8",
    types_pb2.DT_INT16: "int16",
    types_pb2.DT_INT32: "int32",
    types_pb2.DT_INT64: "int64",
    types_pb2.DT_UINT8: "uint8",
    types_pb2.DT_UINT16: "uint16",
    types_pb2.DT_UINT32: "uint32",
    types_pb2.DT_UINT64: "uint64",
}
DTYPE_NUMBERS = {name: number for number, name in _DTYPES.items()}


class TensorSpec(NamedTuple):
    """One input or output of a signature.

    Args:
        dtype: "string" or a numpy name like "float32"; the DT_ name of a dtype that clients cannot send.
        shape: sizes of the dimensions, None for any size; None instead of the tuple allows any rank.
        tensor: name of the tensor in the graph, like "serving_default_text:0".
    """

    dtype: str
    shape: tuple[int | None, ...] | None
    tensor: str

    def accepts(self, shape: tuple[int, ...]) -> bool:
        """Returns whether an array of this shape is valid."""
        if self.shape is None:
            return True
        return len(shape) == len(self.shape) and all(
            expected in (None, size) for expected, size in zip(self.shape, shape, strict=True)
        )

    def accepts_any_batch(self) -> bool:
        """Returns whether the server can batch the tensor: dimension 0 has any size and clients can send the dtype."""
        return self.dtype in DTYPE_NUMBERS and (self.shape is None or self.shape[:1] == (None,))

    def __str__(self) -> str:
        if self.shape is None:
            return f"{self.dtype} of any rank"
        return f"{self.dtype} [{', '.join('?' if size is None else str(size) for size in self.shape)}]"


class Signature(NamedTuple):
    """Inputs and outputs of one entry point of a SavedModel, by name."""

    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]


def read_meta_graph(directory: str) -> MetaGraphDef:
    """Reads the graph that the model server would load.

    Args:
        directory: the folder of a SavedModel.
    Returns:
        The MetaGraphDef whose tags are exactly `serve`.
    Raises:
        ValueError: there is no saved_model.pb, it is broken, or it contains no graph with that tag.
    """
    path = os.path.join(directory, "saved_model.pb")
    try:
        with open(path, "rb") as file:
            saved_model = SavedModel.FromString(file.read())
    except OSError as error:
        raise ValueError(f"no SavedModel: {path}: {error.strerror}") from error
    except DecodeError as error:
        raise ValueError(f"{path} is broken: it cannot be parsed as a SavedModel") from error
    for meta_graph in saved_model.meta_graphs:
        if set(meta_graph.meta_info_def.tags) == {SERVE}:
            return meta_graph
    raise ValueError(f"{path} holds no graph with the tag {SERVE!r}")


def read_signatures(meta_graph: MetaGraphDef) -> dict[str, Signature]:
    """Returns signature name -> Signature, without TensorFlow's internal entries."""
    return {
        name: Signature(_specs(definition.inputs), _specs(definition.outputs))
        for name, definition in sorted(meta_graph.signature_def.items())
        if not name.startswith("__saved_model")
    }


def iterate_nodes(meta_graph: MetaGraphDef) -> Iterator[tuple[str, node_def_pb2.NodeDef]]:
    """Yields (function name, node) for every node; the name is empty for nodes outside functions."""
    for node in meta_graph.graph_def.node:
        yield "", node
    for function in iterate_functions(meta_graph):
        for node in function.node_def:
            yield function.signature.name, node


def iterate_functions(meta_graph: MetaGraphDef) -> Iterator[function_pb2.FunctionDef]:
    """Yields every function in the graph's library."""
    yield from meta_graph.graph_def.library.function


def convert_inputs(name: str, signature: Signature, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Converts inputs to the dtypes of a signature and checks their shapes.

    Args:
        name: name of the signature, for messages.
        signature: the signature.
        inputs: input name -> array or nested list; str and bytes for strings (str is encoded as UTF-8).
    Returns:
        Input name -> array in the signature's dtype; strings as an object array of bytes.
    Raises:
        ValueError: an input is missing, unknown or of the wrong dtype or shape, or a number is out of range.
    """
    for verb, names in (("lacks", signature.inputs.keys() - inputs), ("has no", inputs.keys() - signature.inputs)):
        if names:
            expected = ", ".join(signature.inputs) or "nothing"
            raise ValueError(f"signature {name!r} {verb} input {', '.join(sorted(names))}; it takes {expected}")
    return {
        key: _convert(f"input {key!r} of signature {name!r}", spec, inputs[key])
        for key, spec in signature.inputs.items()
    }


def _convert(label: str, spec: TensorSpec, value: Any) -> np.ndarray:
    array = _strings(label, value) if spec.dtype == "string" else _numbers(label, spec, value)
    if not spec.accepts(array.shape):
        raise ValueError(f"{label} takes {spec}, got the shape {list(array.shape)}")
    return array


def _strings(label: str, value: Any) -> np.ndarray:
    texts = np.asarray(value, dtype=object)
    result = np.empty(texts.shape, dtype=object)
    for index, text in np.ndenumerate(texts):
        if not isinstance(text, str | bytes):
            raise ValueError(f"{label} takes strings, got {text!r:.80} at {list(index)}")
        try:
            result[index] = text.encode() if isinstance(text, str) else bytes(text)
        except UnicodeEncodeError as error:
            raise ValueError(f"{label} takes valid Unicode, got {text!r:.80} at {list(index)}") from error
    return result


def _numbers(label: str, spec: TensorSpec, value: Any) -> np.ndarray:
    if spec.dtype not in DTYPE_NUMBERS:
        raise ValueError(f"{label} has the dtype {spec.dtype}, which clients cannot send")
    array, dtype = np.asarray(value), np.dtype(spec.dtype)
    is_same_kind = (array.dtype.kind == "b") == (dtype.kind == "b") and np.can_cast(array.dtype, dtype, "same_kind")
    if array.size and not is_same_kind:
        raise ValueError(f"{label} takes {spec}, got {array.dtype}")
    converted = array.astype(dtype)
    if dtype.kind in "iu" and not np.array_equal(converted, array):
        raise ValueError(f"{label} takes {spec}, got a number that is out of range")
    return converted


def _specs(tensors: Mapping[str, TensorInfo]) -> dict[str, TensorSpec]:
    specs = {}
    for name, info in sorted(tensors.items()):
        sizes = tuple(None if dimension.size < 0 else dimension.size for dimension in info.tensor_shape.dim)
        shape = None if info.tensor_shape.unknown_rank else sizes
        dtype = _DTYPES.get(info.dtype, types_pb2.DataType.Name(info.dtype))
        specs[name] = TensorSpec(dtype, shape, info.name)
    return specs
