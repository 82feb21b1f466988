"""The Beam transforms of BulkInferrer: read rows, query the model in batches, write the results in order."""

import dataclasses
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Sequence

import apache_beam as beam
from apache_beam.ml.inference.base import KeyedModelHandler, ModelHandler, PredictionResult, RunInference

from seq2serve.components.storage.beam_files import write_file
from seq2serve.components.storage.examples_io import read_batches
from seq2serve.components.storage.files import local_copy
from seq2serve.components.storage.shards import shard_name
from seq2serve.components.tasks.task import Task
from seq2serve.models.runtime.answers import json_value
from seq2serve.models.runtime.runtime import SavedModelRuntime, TensorFlowError

BATCH_ROWS = 64

Key = tuple[int, int]  # shard, row
Row = dict[str, str]


@dataclasses.dataclass(frozen=True)
class FailedRow:
    """The result of a row that failed, with the runtime's error message as `reason`."""

    reason: str


class SavedModelHandler(ModelHandler[Row, PredictionResult, SavedModelRuntime]):
    """A Beam ModelHandler of a SavedModel, which is loaded once per process.

    Args:
        saved_model: folder of a version, on a disk or an object store.
        task: makes the prompt from a row, and names the outputs.
    """

    def __init__(self, saved_model: str, task: Task):
        super().__init__()
        self._saved_model, self._task = saved_model, task

    def load_model(self) -> SavedModelRuntime:
        """Loads the model; raises ValueError if there is none, before any row is read."""
        with local_copy(self._saved_model) as folder:
            return SavedModelRuntime(folder)

    def run_inference(
        self, batch: Sequence[Row], model: SavedModelRuntime, inference_args=None
    ) -> Iterator[PredictionResult]:
        """Queries the model with a batch. If that fails, sends the rows one by one, so that only a bad row fails.

        Yields:
            A PredictionResult per row. Its `inference` is output name -> value, or a FailedRow.
        """
        task = self._task
        try:
            texts = [task.prompt(row[task.text_columns[0]]) for row in batch]
            outputs = model.run("serving_default", {"text": texts})
            answers = {task.answer_name(name): values for name, values in outputs.items()}
        except (TensorFlowError, MemoryError) as error:
            if len(batch) == 1:
                yield PredictionResult(batch[0], FailedRow(str(error) or "out of memory"))
            else:
                for row in batch:
                    yield from self.run_inference([row], model)
        else:
            for index, row in enumerate(batch):
                yield PredictionResult(row, {name: json_value(values[index]) for name, values in answers.items()})


class ReadRows(beam.DoFn):
    """(shard, path) -> batches of ((shard, row), {column: text}).

    Beam's batching is off because it adapts the batch size to the latency, and the last digits of a score depend on the
    batch size.

    Args:
        columns: of the examples.
        num_examples: number of rows to read from the start of each shard; 0 for all.
    """

    def __init__(self, columns: list[str], num_examples: int):
        self._columns, self._num_examples = columns, num_examples

    def process(self, element: tuple[int, str]) -> Iterator[list[tuple[Key, Row]]]:
        """Yields the rows of a shard, BATCH_ROWS at a time."""
        shard, path = element
        rows = itertools.islice(enumerate(self._rows(path)), self._num_examples or None)
        while batch := [((shard, index), row) for index, row in itertools.islice(rows, BATCH_ROWS)]:
            yield batch

    def _rows(self, path: str) -> Iterator[Row]:
        for batch in read_batches(path, self._columns):
            for values in zip(*batch.values(), strict=True):
                texts = (value[0].decode() if value else "" for value in values)
                yield dict(zip(batch, texts, strict=True))


class WriteResults(beam.DoFn):
    """(shard, results) -> counts; writes a file of predictions and a file of failures, rows in order.

    Args:
        target: folder of the InferenceResult.
        num_shards: total number of shards.
    """

    def __init__(self, target: str, num_shards: int):
        self._target, self._num_shards = target, num_shards

    def process(self, element: tuple[int, Iterable[tuple[int, PredictionResult]]]) -> Iterator[dict]:
        """Yields {"num_predictions", "num_failures", "first_failure"}."""
        shard, results = element
        predictions, failures = [], []
        for row, result in sorted(results, key=lambda result: result[0]):
            if isinstance(result.inference, FailedRow):
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
    """Queries the model for every row of every shard with Beam's RunInference, and writes the results.

    Args:
        saved_model, task: as for SavedModelHandler.
        num_examples: as for ReadRows.
        target, num_shards: as for WriteResults.
    """

    def __init__(self, saved_model: str, task: Task, num_examples: int, target: str, num_shards: int):
        super().__init__()
        self._handler = KeyedModelHandler(SavedModelHandler(saved_model, task)).with_no_batching()
        self._read = ReadRows(list(task.columns), num_examples)
        self._write = WriteResults(target, num_shards)

    def expand(self, shards: beam.PCollection) -> beam.PCollection:
        """(shard, path) -> counts, one dict per shard."""
        results = shards | beam.Reshuffle() | beam.ParDo(self._read) | RunInference(self._handler)
        return results | beam.Map(_by_shard) | beam.GroupByKey() | beam.ParDo(self._write)


def _by_shard(keyed: tuple[Key, PredictionResult]) -> tuple[int, tuple[int, PredictionResult]]:
    (shard, row), result = keyed
    return shard, (row, result)
