"""JSON requests and responses of TensorFlow Serving's REST API.

Source: https://www.tensorflow.org/tfx/serving/api_rest and tensorflow_serving/util/json_tensor.cc. The table in
pipeline/README.md lists the differences.
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import orjson

from seq2serve.models.runtime.protos import example_pb2
from seq2serve.models.runtime.saved_model import SERVING_DEFAULT, Signature

BYTES_SUFFIX = "_bytes"  # string outputs whose names have this suffix are written as base64

# `Inf` outside of strings. The quantifiers are possessive, so that a long string needs no memory.
_STRING_OR_INF = re.compile(r'"(?:[^"\\]++|\\.)*+"|Inf(?!inity)', re.DOTALL)


class PredictRequest(NamedTuple):
    """A parsed predict request.

    Args:
        signature: name of the signature.
        inputs: input name -> values of all rows.
        by_row: True for the row format ("instances"), False for the column format ("inputs"); the response has the
            same format.
    """

    signature: str
    inputs: dict[str, Any]
    by_row: bool


def parse_object(body: bytes) -> dict[str, Any]:
    """Parses a JSON object.

    Raises:
        ValueError: it is not a JSON object.
    """
    try:
        value = orjson.loads(body or b"null")
    except orjson.JSONDecodeError as error:
        raise ValueError(f"JSON Parse error: {error}") from error
    if not isinstance(value, dict):
        raise ValueError("JSON Value: the request body is not a JSON object")
    return value


def parse_body(body: bytes) -> dict[str, Any]:
    """Parses the body of a request: a JSON object and the extensions of it that the model server accepts.

    These are NaN, Inf, Infinity and -Infinity as numbers, a byte order mark before the object, and any text after it.

    Raises:
        ValueError: the body does not start with a JSON object.
    """
    if not body:
        raise ValueError("JSON Parse error: The document is empty")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:  # orjson is strict and fast; the standard library knows the extensions
        value = _parse_extended_json(body)
    if not isinstance(value, dict):
        raise ValueError("JSON Value: the request body is not a JSON object")
    return value


def _parse_extended_json(body: bytes) -> Any:
    try:
        text = body.decode("utf-8-sig").lstrip(" \t\r\n")
        if "Inf" in text:
            text = _STRING_OR_INF.sub(lambda match: "Infinity" if match[0] == "Inf" else match[0], text)
        return json.JSONDecoder().raw_decode(text)[0]
    except (RecursionError, ValueError) as error:
        raise ValueError(f"JSON Parse error: {error}") from error


def signature_name(request: Mapping[str, Any]) -> str:
    """Returns the signature name of a request, by default serving_default.

    Raises:
        ValueError: the name is not a string.
    """
    name = request.get("signature_name", SERVING_DEFAULT)
    if not isinstance(name, str):
        raise ValueError("'signature_name' key must be a string value.")
    return name or SERVING_DEFAULT


def parse_predict(body: bytes, signatures: Mapping[str, Signature]) -> PredictRequest:
    """Parses the body of a predict request, in row or column format.

    Raises:
        ValueError: the body has neither format, or there is no such signature.
    """
    request = parse_body(body)
    name = signature_name(request)
    if name not in signatures:
        raise ValueError(f'Serving signature name: "{name}" not found in signature def')
    if ("instances" in request) == ("inputs" in request):
        has_both = "instances" in request
        raise ValueError(
            "Not formatted correctly: expecting one of 'instances' and 'inputs', not both"
            if has_both
            else "Missing 'inputs' or 'instances' key"
        )
    names = list(signatures[name].inputs)
    try:
        if "instances" in request:
            return PredictRequest(name, _columns_of(request["instances"], names), True)
        inputs = _named_inputs(request["inputs"], names)
        return PredictRequest(name, {key: inputs[key] for key in names if key in inputs}, False)
    except RecursionError as error:
        raise ValueError("JSON Value: nested too deeply") from error


def _columns_of(instances: Any, names: list[str]) -> dict[str, list[Any]]:
    if not isinstance(instances, list) or not instances:
        raise ValueError("Expecting 'instances' value to be a non-empty list")
    is_named, keys = _is_named(instances[0]), set(names)
    for number, instance in enumerate(instances):
        if _is_named(instance) != is_named:
            expected = "object but got value/list" if is_named else "value/list but got object"
            raise ValueError(f"Expecting {expected} at item {number} of input list")
        if is_named and instance.keys() != keys:
            raise ValueError(
                f"Failed to process element: {number} of 'instances' list: the keys {', '.join(instance)} must be "
                f"equal to: {', '.join(names)}"
            )
    rows = [_named_inputs(instance, names) for instance in instances]
    return {name: [row[name] for row in rows] for name in rows[0]}


def _named_inputs(value: Any, names: list[str]) -> dict[str, Any]:
    """Returns input name -> value; if a signature has one input, its name may be omitted."""
    if _is_named(value):
        return {name: _decode(entry) for name, entry in value.items()}
    if len(names) != 1:
        raise ValueError(f"the inputs {', '.join(names)} must be named: expecting a JSON object")
    return {names[0]: _decode(value)}


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and not _is_base64(value)


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"b64"}


def _decode(value: Any) -> Any:
    """Replaces each {"b64": text} with bytes, in lists of any depth."""
    if isinstance(value, list):
        return [_decode(entry) for entry in value] if any(isinstance(e, dict | list) for e in value) else value
    if not _is_base64(value):
        return value
    try:
        return _from_base64(value["b64"])
    except (AttributeError, ValueError, binascii.Error) as error:
        raise ValueError("JSON Value: unable to base64 decode") from error


def _from_base64(text: str) -> bytes:
    """Decodes base64 as Abseil does: white space is skipped, and the padding may be missing or written as dots."""
    packed = "".join(text.split())
    digits = packed.rstrip("=.")
    padding = -len(digits) % 4
    if len(packed) - len(digits) not in (0, padding):
        raise ValueError("the padding is wrong")
    return base64.b64decode(digits + "=" * padding, validate=True)


def write_predictions(outputs: Mapping[str, np.ndarray], by_row: bool) -> bytes:
    """Writes the response to a predict request, in the format of the request.

    Raises:
        ValueError: in the row format, an output has no rows, or the outputs have different numbers of rows.
    """
    columns = {name: _with_literals(encode(name, array)) for name, array in outputs.items()}
    if by_row:
        if scalars := [name for name, array in outputs.items() if not array.ndim]:
            raise ValueError(f"Tensor name: {scalars[0]} has no shape information")
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        return dump({"predictions": [_unwrap(row) for row in rows]})
    return dump({"outputs": _unwrap(columns)})


def dump(value: Any) -> bytes:
    """Writes JSON; numbers in NumPy arrays have as few digits as their dtype allows."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def _unwrap(outputs: dict[str, Any]) -> Any:
    """Omits the name if a signature has one output, as the model server does."""
    return next(iter(outputs.values())) if len(outputs) == 1 else outputs


def encode(name: str, array: np.ndarray) -> Any:
    """Converts an output to JSON types: strings become text, or base64 if the name ends in BYTES_SUFFIX."""
    if array.dtype != object:
        return np.ascontiguousarray(array)
    is_binary, flat = name.endswith(BYTES_SUFFIX), np.empty(array.shape, object)
    for index, text in np.ndenumerate(array):
        flat[index] = {"b64": base64.b64encode(text).decode()} if is_binary else text.decode(errors="replace")
    return flat.tolist()


def _with_literals(value: Any) -> Any:
    """Replaces numbers that JSON does not have, so that they are written as NaN, Infinity and -Infinity."""
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f" or np.isfinite(value).all():
        return value
    numbers = np.empty(value.shape, object)
    for index, number in np.ndenumerate(value):
        numbers[index] = number if np.isfinite(number) else orjson.Fragment(json.dumps(float(number)))
    return numbers.tolist()


def parse_examples(body: bytes, method: str) -> tuple[str, list[bytes]]:
    """Parses the body of a classify or regress request.

    Args:
        body: the body.
        method: the method, for messages.
    Returns:
        The signature name, and the examples as serialised tf.Examples, including the features of the common context.
    Raises:
        ValueError: the body does not have this format.
    """
    request = parse_body(body)
    examples, context = request.get("examples"), request.get("context", {})
    if not isinstance(examples, list) or not examples or not isinstance(context, dict):
        raise ValueError(f"When method is {method}, key 'examples' is expected and must be a non-empty list/array")
    try:
        return signature_name(request), [_example(example, context) for example in examples]
    except (RecursionError, orjson.JSONEncodeError) as error:
        raise ValueError("JSON Value: nested too deeply") from error


def _example(features: Any, context: Mapping[str, Any]) -> bytes:
    if not isinstance(features, dict):
        raise ValueError(f"Example must be JSON object but got: {dump(features).decode():.80}")
    example = example_pb2.Example()
    for name, value in {**context, **features}.items():
        values = _decode(value if isinstance(value, list) else [value])
        feature = example.features.feature[name]
        if not values:
            continue  # a feature without a type
        if all(isinstance(entry, str | bytes) for entry in values):
            feature.bytes_list.value.extend(entry.encode() if isinstance(entry, str) else entry for entry in values)
        elif all(isinstance(entry, int) for entry in values):  # true is 1
            feature.int64_list.value.extend(map(int, values))
        elif all(isinstance(entry, float) for entry in values):
            feature.float_list.value.extend(values)
        else:
            raise ValueError(
                f"Example: the feature {name!r} must be a string, a number, or a list of only strings, only integers "
                f"or only numbers with a decimal point"
            )
    return example.SerializeToString()


def write_classifications(outputs: Mapping[str, np.ndarray]) -> bytes:
    """Writes the response to a classify request from the outputs `classes` and `scores`, [B, C] each."""
    pairs = zip(encode("classes", outputs["classes"]), _with_literals(outputs["scores"]), strict=True)
    return dump({"results": [[list(pair) for pair in zip(names, scores, strict=True)] for names, scores in pairs]})
