"""Comparison of the C++ runtime's answers with those of Python TensorFlow and of TensorFlow Model Server."""

import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf
import tensorflow_text  # noqa: F401  # registers the tokenizer ops

from seq2serve.components.infra_validator.client import ServingClient, free_port
from seq2serve.components.infra_validator.trial import MAX_DIFFERING_SHARE, CheckFailedError, Exchange, alike
from seq2serve.models.runtime.literal_path import literal_path

_NAME = "trial"

Answer = Callable[[Exchange], Mapping[str, Any]]


def compare_with_python(directory: str, exchanges: Sequence[Exchange]) -> str:
    """Sends the same requests to the model in Python TensorFlow, and returns a summary.

    Raises:
        CheckFailedError: the answers differ.
    """
    with literal_path(directory) as path:
        signatures = tf.saved_model.load(path).signatures
    # Graph optimisation is off: it would take longer than all requests, and the C++ runtime has already covered it.
    options = tf.config.optimizer.get_experimental_options()
    tf.config.optimizer.set_experimental_options({**options, "disable_meta_optimizer": True})
    try:
        return _compare("Python", _python_answers(signatures), exchanges)
    finally:
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False, **options})


def _python_answers(signatures: Mapping[str, Callable]) -> Answer:
    def answer(exchange: Exchange) -> Mapping[str, Any]:
        function = signatures[exchange.signature]
        specs = function.structured_input_signature[1]
        tensors = {key: tf.constant(array, specs[key].dtype) for key, array in exchange.inputs.items()}
        return {key: value.numpy() for key, value in function(**tensors).items()}

    return answer


def compare_with_server(binary: str, directory: str, exchanges: Sequence[Exchange], time_limit: int) -> str:
    """Starts a model server on free ports, sends the same requests over REST and gRPC, and returns a summary.

    Args:
        binary: path of tensorflow_model_server.
        directory: the folder of a SavedModel.
        exchanges: the requests and the expected answers.
        time_limit: seconds within which the server must be ready.
    Raises:
        CheckFailedError: the server does not start, or its answers differ.
    """
    rest, grpc = free_port(), free_port()
    with tempfile.TemporaryDirectory() as folder:
        os.symlink(directory, os.path.join(folder, "1"))
        flags = {"port": grpc, "rest_api_port": rest, "model_name": _NAME, "model_base_path": folder}
        log = os.path.join(folder, "log")
        with open(log, "wb") as output:
            command = [binary, *(f"--{key}={value}" for key, value in flags.items())]
            server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            with ServingClient(_NAME, rest, grpc) as client:
                if not client.wait_until_ready(time_limit, lambda: server.poll() is None):
                    raise CheckFailedError(f"{binary} did not become ready: {_tail(log)}")
                by_rest = _compare("the model server over REST", lambda e: client.predict_by_rest(*e), exchanges)
                by_grpc = _compare("the model server over gRPC", lambda e: client.predict_by_grpc(*e[:2]), exchanges)
                return f"{by_rest}; {by_grpc}"
        finally:
            server.terminate()
            server.wait()


def _tail(path: str) -> str:
    with open(path, "rb") as file:
        return " ".join(file.read()[-1000:].decode(errors="replace").split()) or "no output"


def _compare(peer: str, answer: Answer, exchanges: Sequence[Exchange]) -> str:
    rows, differing = 0, []
    for exchange in exchanges:
        try:
            peer_outputs = answer(exchange)
        except Exception as error:  # the server and its client raise many types
            raise CheckFailedError(f"{peer} fails for signature {exchange.signature!r}: {error}") from error
        for row in range(len(next(iter(exchange.outputs.values()), ()))):
            rows += 1
            different = [
                key for key, array in exchange.outputs.items() if not alike(array[row], peer_outputs[key][row])
            ]
            if different:
                differing.append(f"signature {exchange.signature!r}, output {different[0]!r}, row {row}")
    if len(differing) > MAX_DIFFERING_SHARE * rows:
        raise CheckFailedError(
            f"{len(differing)} of {rows} rows differ between the C++ runtime and {peer}; the first: {differing[0]}"
        )
    return f"{rows} rows by {peer}, {len(differing)} of them different from the C++ runtime"
