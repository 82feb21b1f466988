"""A client for the REST and gRPC APIs of TF Serving and compatible servers."""

import base64
import contextlib
import http.client
import json
import socket
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

import grpc
import numpy as np

from seq2serve.models.runtime.protos import from_tensor_proto, predict_pb2, prediction_service_pb2_grpc, to_tensor_proto

_TIMEOUT = 60  # seconds per request


class ServingClient:
    """Queries one model of a server on this machine.

    Args:
        model: the model's name on the server.
        rest_port, grpc_port: the server's ports.
    """

    def __init__(self, model: str, rest_port: int, grpc_port: int):
        self._model, self._rest_port = model, rest_port
        self._channel = grpc.insecure_channel(f"localhost:{grpc_port}")
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def __enter__(self) -> "ServingClient":
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def wait_until_ready(self, seconds: float, is_alive: Callable[[], bool] = lambda: True) -> bool:
        """Waits until a version of the model is available; returns False on a timeout or if the server has stopped."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and is_alive():
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
                _, answer = self.rest("GET", f"/v1/models/{self._model}")
                states = [version["state"] for version in answer.get("model_version_status", ())]
                if "AVAILABLE" in states:
                    return True
            time.sleep(0.05)
        return False

    def rest(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Sends a request, with a JSON body if there is one, and returns the status code and the JSON response."""
        connection = http.client.HTTPConnection("localhost", self._rest_port, timeout=_TIMEOUT)
        with contextlib.closing(connection):
            connection.request(method, path, None if body is None else json.dumps(body))
            response = connection.getresponse()
            return response.status, json.loads(response.read())

    def predict_by_rest(
        self, signature: str, inputs: Mapping[str, np.ndarray], outputs: Collection[str]
    ) -> dict[str, list[Any]]:
        """Sends a Predict request over REST, in the row format.

        Args:
            signature: the signature's name.
            inputs: input name -> array; all arrays have the same number of rows.
            outputs: names of the outputs.
        Returns:
            Output name -> a list with one entry per row; strings are bytes.
        Raises:
            RuntimeError: the server returned an error.
        """
        columns = {name: [_to_json(value) for value in array] for name, array in inputs.items()}
        instances = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        request = {"signature_name": signature, "instances": instances}
        status, answer = self.rest("POST", f"/v1/models/{self._model}:predict", request)
        if status != 200:
            raise RuntimeError(f"status {status}: {answer.get('error')}")
        rows = answer["predictions"]
        if not isinstance(rows[0], dict) or "b64" in rows[0]:  # the server omits the name of a single output
            (name,) = outputs
            rows = [{name: row} for row in rows]
        return {name: [_from_json(row[name]) for row in rows] for name in outputs}

    def predict_by_grpc(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Sends a Predict request over gRPC and returns output name -> array.

        Raises:
            grpc.RpcError: the server returned an error.
        """
        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = self._model, signature
        for name, array in inputs.items():
            request.inputs[name].CopyFrom(to_tensor_proto(np.asarray(array)))
        answer = self._stub.Predict(request, timeout=_TIMEOUT)
        return {name: from_tensor_proto(proto) for name, proto in answer.outputs.items()}


def free_port() -> int:
    """Returns an unused port of this machine."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def _to_json(value: Any) -> Any:
    if not isinstance(value, bytes):
        return np.asarray(value).tolist()
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(value).decode()}


def _from_json(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, dict):
        return base64.b64decode(value["b64"])
    if isinstance(value, list):
        entries = [_from_json(entry) for entry in value]
        return np.array(entries, object if entries and isinstance(entries[0], bytes) else None)
    return value
