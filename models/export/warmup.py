"""Warm-up requests, which the model server replays while it loads a model, so that the first request is not slow.

Source: https://www.tensorflow.org/tfx/serving/saved_model_warmup
"""

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError
from tensorboard.compat.tensorflow_stub import errors
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import PyRecordReader_New
from tensorboard.summary.writer.record_writer import RecordWriter

from seq2serve.models.runtime import saved_model
from seq2serve.models.runtime.protos import from_tensor_proto, prediction_log_pb2, to_tensor_proto

WARMUP_FILE = os.path.join("assets.extra", "tf_serving_warmup_requests")
MAX_REQUESTS = 1000  # the model server refuses to load a model with more


class WarmupRequest(NamedTuple):
    """One call of a signature.

    Args:
        signature: name of the signature.
        inputs: input name -> array or nested list, see `saved_model.convert_inputs`.
    """

    signature: str
    inputs: Mapping[str, Any]


def alone_and_together(signature: str, rows: Mapping[str, list]) -> list[WarmupRequest]:
    """Makes one request per row and one with all rows, because small and large batches run different code.

    Args:
        signature: name of the signature.
        rows: input name -> values, the same number for every input.
    Returns:
        The requests; the one with all rows is the last.
    """
    number = len(next(iter(rows.values())))
    alone = [{name: values[row : row + 1] for name, values in rows.items()} for row in range(number)]
    return [WarmupRequest(signature, inputs) for inputs in (*alone, dict(rows))]


def write_warmup_requests(directory: str, requests: Iterable[WarmupRequest]) -> None:
    """Writes the requests that the model server replays before it reports the model as available.

    Requests are checked here, because the server does not load a model with a request that does not fit its signature.

    Args:
        directory: the folder of a SavedModel; an existing warm-up file is replaced.
        requests: at most 1,000, in the order in which they are replayed.
    Raises:
        ValueError: there are too many requests, the model does not have a signature, or inputs do not fit a signature.
    """
    signatures = saved_model.read_signatures(saved_model.read_meta_graph(directory))
    logs = [_prediction_log(signatures, WarmupRequest(*request)) for request in requests]
    _check_number(len(logs))
    path = os.path.join(directory, WARMUP_FILE)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        writer = RecordWriter(file)
        for log in logs:
            writer.write(log.SerializeToString(deterministic=True))


def read_warmup_requests(directory: str) -> list[WarmupRequest]:
    """Reads the warm-up requests of a SavedModel.

    Args:
        directory: the folder of a SavedModel.
    Returns:
        The requests in order, with numpy arrays as inputs; empty if there is no warm-up file.
    Raises:
        ValueError: the file is corrupted, or the model server could not replay a request.
    """
    path = os.path.join(directory, WARMUP_FILE)
    if not os.path.exists(path):
        return []
    requests: list[WarmupRequest] = []
    try:
        for record in _records(path):
            requests.append(_warmup_request(record))
    except errors.DataLossError as error:
        raise ValueError(f"{WARMUP_FILE}: the file is cut off or corrupted at request {len(requests) + 1}") from error
    except (DecodeError, TypeError, ValueError) as error:
        raise ValueError(f"{WARMUP_FILE}: request {len(requests) + 1} is broken: {error}") from error
    _check_number(len(requests))
    return requests


def _records(path: str) -> Iterator[bytes]:
    reader = PyRecordReader_New(path)
    with contextlib.suppress(errors.OutOfRangeError):  # end of file
        while True:
            reader.GetNext()
            yield reader.record()


def _check_number(number: int) -> None:
    if number > MAX_REQUESTS:
        raise ValueError(f"{number} warm-up requests; the model server accepts at most {MAX_REQUESTS}")


def _prediction_log(
    signatures: Mapping[str, saved_model.Signature], request: WarmupRequest
) -> prediction_log_pb2.PredictionLog:
    if request.signature not in signatures:
        raise ValueError(
            f"warm-up request for signature {request.signature!r}, which the model does not have; it has "
            f"{', '.join(signatures)}"
        )
    inputs = saved_model.convert_inputs(request.signature, signatures[request.signature], request.inputs)
    log = prediction_log_pb2.PredictionLog()
    predict = log.predict_log.request
    predict.model_spec.signature_name = request.signature
    for name, array in inputs.items():
        predict.inputs[name].CopyFrom(to_tensor_proto(array))
    return log


def _warmup_request(record: bytes) -> WarmupRequest:
    log = prediction_log_pb2.PredictionLog.FromString(record)
    if log.WhichOneof("log_type") != "predict_log":
        raise ValueError(f"it contains {log.WhichOneof('log_type') or 'nothing'} instead of predict_log")
    predict = log.predict_log.request
    inputs: dict[str, np.ndarray] = {name: from_tensor_proto(proto) for name, proto in predict.inputs.items()}
    return WarmupRequest(predict.model_spec.signature_name or saved_model.SERVING_DEFAULT, inputs)
