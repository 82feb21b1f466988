"""Others that must answer as the C++ runtime did: Python TensorFlow, and a TensorFlow Model Server if there is one.

Comes in: the folder of a SavedModel and the exchanges of the trial. Goes out: a sentence on each comparison.
Read next: infra_validator_child.py, which made the exchanges; serving_client.py, which talks to the server.
"""

import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf
import tensorflow_text  # noqa: F401  # the ops of a tokenizer, which this process may not have needed so far

from components.infra_validator_child import MAX_DIFFERING_SHARE, Exchange, Refused, alike
from components.serving_client import ServingClient, free_port
from models.literal_path import literal_path

_NAME = "trial"

Answer = Callable[[Exchange], Mapping[str, Any]]


def compare_with_python(directory: str, exchanges: Sequence[Exchange]) -> str:
    """Asks the same of the graph that Python loads.

    Raises:
        Refused: it answers otherwise.
    """
    with literal_path(directory) as path:
        signatures = tf.saved_model.load(path).signatures
    # The graph as it was written: to optimise it takes longer than all the answers, and the C++ runtime has done so.
    before = tf.config.optimizer.get_experimental_options()
    tf.config.optimizer.set_experimental_options({**before, "disable_meta_optimizer": True})
    try:
        return _compare("Python", _answering(signatures), exchanges)
    finally:
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False, **before})


def _answering(signatures: Mapping[str, Callable]) -> Answer:
    def answer(exchange: Exchange) -> Mapping[str, Any]:
        function = signatures[exchange.signature]
        specs = function.structured_input_signature[1]
        tensors = {key: tf.constant(array, specs[key].dtype) for key, array in exchange.inputs.items()}
        return {key: value.numpy() for key, value in function(**tensors).items()}

    return answer


def compare_with_server(binary: str, directory: str, exchanges: Sequence[Exchange], time_limit: int) -> str:
    """Starts a model server on a free port and asks it the same, over REST and over gRPC.

    Args:
        binary: of tensorflow_model_server.
        directory: the folder of a SavedModel.
        exchanges: what to ask and what to expect.
        time_limit: seconds in which it must be ready.
    Raises:
        Refused: it does not start, or answers otherwise.
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
                    raise Refused(f"{binary} did not get ready: {_tail(log)}")
                by_rest = _compare("the model server over REST", lambda e: client.predict_by_rest(*e), exchanges)
                by_grpc = _compare("the model server over gRPC", lambda e: client.predict_by_grpc(*e[:2]), exchanges)
                return f"{by_rest}; {by_grpc}"
        finally:
            server.terminate()
            server.wait()


def _tail(path: str) -> str:
    with open(path, "rb") as file:
        return " ".join(file.read()[-1000:].decode(errors="replace").split()) or "it said nothing"


def _compare(who: str, answer: Answer, exchanges: Sequence[Exchange]) -> str:
    rows, differing = 0, []
    for exchange in exchanges:
        try:
            other = answer(exchange)
        except Exception as error:  # whatever that server or library raises is the reason
            raise Refused(f"{who} fails at {exchange.signature!r}: {error}") from error
        for row in range(len(next(iter(exchange.outputs.values()), ()))):
            rows += 1
            wrong = [key for key, array in exchange.outputs.items() if not alike(array[row], other[key][row])]
            differing += [f"{exchange.signature!r}, {wrong[0]!r} of row {row}"] if wrong else []
    if len(differing) > MAX_DIFFERING_SHARE * rows:
        raise Refused(f"{len(differing)} of {rows} rows differ between the C++ runtime and {who}: {differing[0]}")
    return f"{rows} rows by {who}, {len(differing)} unlike the C++ runtime's"
