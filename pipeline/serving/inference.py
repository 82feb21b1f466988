"""Answers requests for both APIs: admits them, runs the graph batch by batch, and counts them."""

import asyncio
import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import grpc
import numpy as np

from seq2serve.models.runtime import saved_model
from seq2serve.pipeline.serving.limits import MAX_BATCH_ROWS, MAX_ROWS, RUN_SECONDS, VALUE_BYTES
from seq2serve.pipeline.serving.metrics import (
    GRAPH_RUN_TIME,
    GRAPH_RUNS,
    REQUEST_COUNT,
    REQUEST_LATENCY,
    RUNTIME_LATENCY,
    Metrics,
)
from seq2serve.pipeline.serving.model import LoadedVersion, ServedModel, ServingError
from seq2serve.pipeline.serving.workers import Job, Workers

REGRESS_METHOD = "tensorflow/serving/regress"
_INVALID = grpc.StatusCode.INVALID_ARGUMENT


class Inference:
    """Runs the signatures of a served model.

    Args:
        model: a started ServedModel.
        workers: the threads that run the graph.
        metrics: counts the requests.
    """

    def __init__(self, model: ServedModel, workers: Workers, metrics: Metrics):
        self.model, self.workers, self.metrics = model, workers, metrics
        metrics.count(GRAPH_RUNS, 0)  # shown before the first request, too
        metrics.count(GRAPH_RUN_TIME, 0)

    @contextlib.contextmanager
    def answer(self, api: str, entrypoint: str) -> Iterator[Job]:
        """Yields the job of one request, and counts the request when the context ends.

        Args:
            api: Predict, Classify or Regress.
            entrypoint: REST or GRPC.
        Raises:
            ServingError: the request cannot be answered; also for a ValueError or a MemoryError in the context.
        """
        start, status = time.perf_counter(), grpc.StatusCode.UNKNOWN
        try:
            with self.workers.job() as job:
                yield job
            status = grpc.StatusCode.OK
            labels = {"model_name": self.model.name, "API": api, "entrypoint": entrypoint}
            self.metrics.observe(REQUEST_LATENCY, time.perf_counter() - start, **labels)
        except ServingError as error:
            status = error.code
            raise
        except ValueError as error:
            status = _INVALID
            raise ServingError(status, str(error)) from error
        except MemoryError as error:
            status = grpc.StatusCode.RESOURCE_EXHAUSTED
            raise ServingError(status, "not enough memory for this request") from error
        except asyncio.CancelledError:
            status = grpc.StatusCode.CANCELLED
            raise
        finally:
            self.metrics.count(REQUEST_COUNT, model_name=self.model.name, status=status.name)

    async def run(
        self, job: Job, loaded: LoadedVersion, signature: str, inputs: Mapping[str, Any], api: str = "Predict"
    ) -> dict[str, np.ndarray]:
        """Calls a signature, in batches of at most MAX_BATCH_ROWS rows.

        Args:
            job: the job of the request.
            loaded: a version in use.
            signature: its name.
            inputs: input name -> array or nested list.
            api: as in `answer`.
        Raises:
            ServingError: there is no such signature, the inputs do not match it, the graph fails, or the outputs of two
                batches cannot be joined.
        """
        signatures = loaded.runtime.signatures
        if signature not in signatures:
            message = f'Serving signature key "{signature}" not found.'
            raise ServingError(grpc.StatusCode.FAILED_PRECONDITION, message)
        rows, parts = _count_rows(signatures[signature], inputs), [inputs]
        if rows > MAX_BATCH_ROWS:
            parts = await job.run(lambda: _split(signature, signatures[signature], inputs, rows))
        outputs = []
        for part in parts:
            outputs.append(await self._run_part(job, loaded, signature, part, api))
        return outputs[0] if len(outputs) == 1 else await job.run(lambda: _join(outputs, parts))

    async def _run_part(
        self, job: Job, loaded: LoadedVersion, signature: str, inputs: Mapping[str, Any], api: str
    ) -> dict[str, np.ndarray]:
        def work() -> dict[str, np.ndarray]:
            start = time.perf_counter()
            seconds_left = max(0.0, job.deadline - time.monotonic())
            outputs = loaded.run(signature, inputs, min(RUN_SECONDS, seconds_left))
            seconds = time.perf_counter() - start
            self.metrics.count(GRAPH_RUNS)
            self.metrics.count(GRAPH_RUN_TIME, round(1e6 * seconds))
            self.metrics.observe(RUNTIME_LATENCY, seconds, model_name=self.model.name, API=api, runtime="TF1")
            return outputs

        # If the request is cancelled now, the thread still needs the version until the graph has ended.
        self.model.retain(loaded)
        outputs = await job.run_graph(work, lambda: self.model.release(loaded))
        job.reserve(sum(map(_size, outputs.values())))
        return outputs

    async def classify(
        self, job: Job, loaded: LoadedVersion, signature: str, examples: list[bytes]
    ) -> dict[str, np.ndarray]:
        """Calls a signature for the Classify API with serialised tf.Examples.

        Returns:
            The outputs `classes` and `scores`, [B, C] each.
        Raises:
            ServingError: the signature is not for the Classify API; also see `run`.
        """
        _check_method(loaded, signature, "classification", saved_model.CLASSIFY_METHOD)
        return await self.run(job, loaded, signature, {"inputs": examples}, "Classify")

    def regress(self, loaded: LoadedVersion, signature: str) -> None:
        """Refuses a request of the Regress API, with TF Serving's error if the signature is for another API.

        Raises:
            ServingError: always.
        """
        _check_method(loaded, signature, "regression", REGRESS_METHOD)
        raise ServingError(grpc.StatusCode.UNIMPLEMENTED, "seq2serve does not run signatures for the Regress API")


def _check_method(loaded: LoadedVersion, signature: str, kind: str, method: str) -> None:
    """Raises ServingError unless a signature exists and is for the API with this method name."""
    definitions = loaded.signatures.signature_def
    if signature not in definitions:
        raise ServingError(_INVALID, f"No signature was found with the name: {signature}")
    if definitions[signature].method_name != method:
        message = (
            f"Expected {kind} signature method_name to be {method}. Was: {definitions[signature].method_name} "
            f"(signature {signature!r})"
        )
        raise ServingError(_INVALID, message)


def _count_rows(signature: saved_model.Signature, inputs: Mapping[str, Any]) -> int:
    """Returns the number of rows; 0 if the inputs form no batch, which the runtime accepts or refuses as a whole.

    Raises:
        ServingError: the inputs have different numbers of rows, or too many.
    """
    is_batch = all(spec.accepts_any_batch() for spec in signature.inputs.values())
    if not is_batch or inputs.keys() != signature.inputs.keys() or not all(map(np.iterable, inputs.values())):
        return 0
    sizes = {len(value) for value in inputs.values() if not isinstance(value, str | bytes | dict)}
    if len(sizes) > 1:
        message = "Batching session Run() input tensors must have equal 0th-dimension size"
        raise ServingError(_INVALID, message)
    rows = max(sizes, default=0)
    if rows > MAX_ROWS:
        raise ServingError(_INVALID, f"Task size {rows} is larger than maximum input batch size {MAX_ROWS}")
    return rows


def _split(
    name: str, signature: saved_model.Signature, inputs: Mapping[str, Any], rows: int
) -> list[Mapping[str, np.ndarray]]:
    """Checks all rows, and returns the inputs of each batch."""
    arrays = saved_model.convert_inputs(name, signature, inputs)
    return [
        {key: array[start : start + MAX_BATCH_ROWS] for key, array in arrays.items()}
        for start in range(0, rows, MAX_BATCH_ROWS)
    ]


def _join(outputs: list[dict[str, np.ndarray]], inputs: list[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Joins the outputs of the batches of a request.

    Raises:
        ServingError: an output has no batch dimension, or its other dimensions differ between batches.
    """
    joined = {}
    sizes = [len(next(iter(part.values()))) for part in inputs]
    for name in outputs[0]:
        arrays = [part[name] for part in outputs]
        if [array.shape[:1] for array in arrays] != [(size,) for size in sizes]:
            message = f"Batched output tensor's 0th dimension does not equal that of the inputs: {name}"
            raise ServingError(grpc.StatusCode.FAILED_PRECONDITION, message)
        if len({array.shape[1:] for array in arrays}) > 1:
            message = (
                f"the shape of the output {name!r} depends on the batch, and a request of more than {MAX_BATCH_ROWS} "
                f"rows is several batches; send at most {MAX_BATCH_ROWS} rows"
            )
            raise ServingError(_INVALID, message)
        joined[name] = np.concatenate(arrays)
    return joined


def _size(array: np.ndarray) -> int:
    """Returns the estimated memory of an output, in bytes."""
    if array.dtype != object:
        return array.nbytes
    return sum(VALUE_BYTES + len(text) for text in array.flat)
