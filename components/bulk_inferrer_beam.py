"""What BulkInferrer runs on Beam's workers: rows read, batched, answered, written in their order.

Comes in: shards of Examples. Goes out: for each a shard of predictions and one of failures.
Read next: models/runtime.py, the C++ runtime that answers.
"""

import dataclasses
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Sequence

import apache_beam as beam
import numpy as np
from apache_beam.ml.inference.base import KeyedModelHandler, ModelHandler, PredictionResult, RunInference

from components.examples_io import read_batches
from components.remote_files import fetched_folder, is_known, write_file
from components.serving_store import local_copy
from components.shards import shard_name
from components.tasks import get_task
from models.runtime import SavedModelRuntime, TensorFlowError

BATCH_ROWS = 64

Key = tuple[int, int]  # shard, row
Row = dict[str, str]


@dataclasses.dataclass(frozen=True)
class Failure:
    """What stands in the place of an answer. `reason`: the runtime's."""

    reason: str


class SavedModelHandler(ModelHandler[Row, PredictionResult, SavedModelRuntime]):
    """Beam's way to a SavedModel: loaded once a process, asked a batch at a time.

    Args:
        saved_model: folder of a version, on a disk or an object store.
        task: name of a Task, which says what of a row is sent as `text`, and what its answers are called.
    """

    def __init__(self, saved_model: str, task: str):
        super().__init__()
        self._saved_model, self._task = saved_model, task

    def load_model(self) -> SavedModelRuntime:
        """Loads the model; a folder without one fails here, before any row is read."""
        # Without the extra gcp Beam does not know gs://, where the Pusher may have pushed by TensorFlow.
        reach = fetched_folder if is_known(self._saved_model) else local_copy
        with reach(self._saved_model) as folder:
            return SavedModelRuntime(folder)

    def run_inference(
        self, batch: Sequence[Row], model: SavedModelRuntime, inference_args=None
    ) -> Iterator[PredictionResult]:
        """Answers a batch; one that fails is asked row by row, so that a bad row takes none down with it.

        Yields:
            A PredictionResult a row, whose inference is output name -> value, or a Failure.
        """
        task = get_task(self._task)
        try:
            texts = [task.prompt(row[task.text_columns[0]]) for row in batch]
            outputs = {task.answer_name(k): v for k, v in model.run("serving_default", {"text": texts}).items()}
        except (TensorFlowError, MemoryError) as error:
            if len(batch) == 1:
                yield PredictionResult(batch[0], Failure(str(error) or "out of memory"))
            else:
                for row in batch:
                    yield from self.run_inference([row], model)
        else:
            for index, row in enumerate(batch):
                yield PredictionResult(row, {name: _json_value(values[index]) for name, values in outputs.items()})


def _json_value(value: object) -> object:
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, list):
        return [_json_value(item) for item in value]
    return value.decode() if isinstance(value, bytes) else value


class ReadRows(beam.DoFn):
    """(shard, path) -> batches of ((shard, row), {column: text}).

    Batches are made here, not by Beam, which makes them as large as time allows: how many sentences are computed
    together shows in the last digits of a score.

    Args:
        columns: of the examples.
        num_examples: rows to read, 0 for all.
    """

    def __init__(self, columns: list[str], num_examples: int):
        self._columns, self._num_examples = columns, num_examples

    def process(self, element: tuple[int, str]) -> Iterator[list[tuple[Key, Row]]]:
        """Yields the rows of a shard, BATCH_ROWS at a time."""
        shard, path = element
        rows = itertools.islice(enumerate(self._rows(path)), self._num_examples or None)
        while batch := [((shard, number), row) for number, row in itertools.islice(rows, BATCH_ROWS)]:
            yield batch

    def _rows(self, path: str) -> Iterator[Row]:
        for batch in read_batches(path, self._columns):
            for values in zip(*batch.values(), strict=True):
                texts = (value[0].decode() if value else "" for value in values)
                yield dict(zip(batch, texts, strict=True))


class WriteResults(beam.DoFn):
    """(shard, results) -> two files, rows in order; yields their counts.

    Args:
        target: folder of the InferenceResult.
        num_shards: in all.
    """

    def __init__(self, target: str, num_shards: int):
        self._target, self._num_shards = target, num_shards

    def process(self, element: tuple[int, Iterable[tuple[int, PredictionResult]]]) -> Iterator[dict]:
        """Yields {"num_predictions", "num_failures", "first_failure"}."""
        shard, results = element
        predictions, failures = [], []
        for row, result in sorted(results, key=lambda result: result[0]):
            if isinstance(result.inference, Failure):
                failures.append({"key": row, **result.example, "reason": result.inference.reason})
            else:
                predictions.append({"key": row, **result.example, **result.inference})
        for kind, lines in (("predictions", predictions), ("failures", failures)):
            path = os.path.join(self._target, f"{shard_name(kind, shard, self._num_shards)}.jsonl")
            write_file(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode())
        yield {
            "num_predictions": len(predictions),
            "num_failures": len(failures),
            "first_failure": failures[0]["reason"] if failures else "",
        }


class InferShards(beam.PTransform):
    """Answers every row of every shard by Beam's RunInference.

    Args:
        saved_model: folder of a version.
        task: name of a Task.
        num_examples: rows of a shard, 0 for all.
        target: folder of the InferenceResult.
        num_shards: in all.
    """

    def __init__(self, saved_model: str, task: str, num_examples: int, target: str, num_shards: int):
        super().__init__()
        self._handler = KeyedModelHandler(SavedModelHandler(saved_model, task)).with_no_batching()
        self._read = ReadRows(list(get_task(task).columns), num_examples)
        self._write = WriteResults(target, num_shards)

    def expand(self, shards: beam.PCollection) -> beam.PCollection:
        """(shard, path) -> counts, one dict a shard."""
        results = shards | beam.Reshuffle() | beam.ParDo(self._read) | RunInference(self._handler)
        return results | beam.Map(_by_shard) | beam.GroupByKey() | beam.ParDo(self._write)


def _by_shard(keyed: tuple[Key, PredictionResult]) -> tuple[int, tuple[int, PredictionResult]]:
    (shard, row), result = keyed
    return shard, (row, result)
