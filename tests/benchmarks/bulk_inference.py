"""Compares BulkInferrer with a plain loop that sends the same batches to the same SavedModel: the overhead of Beam.

    python -m tests.benchmarks.bulk_inference serving/en-de/1795352227 --rows 4000

Both load the model, read the rows and write the answers, alternately and in one process. Prints the median rows per
second of each, and the ratio to the loop.
"""

import argparse
import itertools
import json
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable

import tensorflow as tf

from seq2serve.components.base.artifact import Examples, InferenceResult, PushedModel
from seq2serve.components.base.component import Context
from seq2serve.components.bulk_inferrer.component import BulkInferrer
from seq2serve.components.bulk_inferrer.workers import BATCH_ROWS
from seq2serve.components.storage.examples_io import read_batches
from seq2serve.components.storage.shards import shard_name, shard_paths
from seq2serve.components.tasks.registry import get_task
from seq2serve.components.tasks.translation.demo import fetch_pairs
from seq2serve.models.runtime.runtime import SavedModelRuntime

SHARDS = 4


def write_examples(folder: pathlib.Path, num_rows: int) -> Examples:
    """Writes the demo corpus, repeated up to a number of rows, as the test split of Examples."""
    _, *lines = pathlib.Path(fetch_pairs("de")).read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in itertools.islice(itertools.cycle(lines), num_rows)]
    (folder / "Split-test").mkdir(parents=True)
    for shard in range(SHARDS):
        path = folder / "Split-test" / shard_name("data_tfrecord", shard, SHARDS)
        with tf.io.TFRecordWriter(str(path)) as writer:
            for row in rows[shard::SHARDS]:
                example = tf.train.Example()
                for column, text in zip(("source", "target"), row, strict=True):
                    example.features.feature[column].bytes_list.value.append(text.encode())
                writer.write(example.SerializeToString())
    return Examples(str(folder), {"columns": ["source", "target"], "splits": ["test"]})


def loop(examples: Examples, saved_model: str, folder: pathlib.Path) -> None:
    """Queries the model in a plain loop."""
    runtime = SavedModelRuntime(saved_model)
    with open(folder / "answers.jsonl", "w", encoding="utf-8") as file:
        for path in shard_paths(examples, "test"):
            texts = [value[0].decode() for batch in read_batches(path, ["source"]) for value in batch["source"]]
            for start in range(0, len(texts), BATCH_ROWS):
                batch = texts[start : start + BATCH_ROWS]
                outputs = runtime.run("serving_default", {"text": batch})
                for index, text in enumerate(batch):
                    answer = {"source": text, "translation": outputs["translation"][index].decode()}
                    file.write(json.dumps(answer, ensure_ascii=False) + "\n")


def bulk(examples: Examples, saved_model: str, folder: pathlib.Path) -> None:
    """Queries the model with BulkInferrer on Beam's local runner."""
    BulkInferrer.function(
        examples=examples,
        pushed_model=PushedModel("", {"pushed_destination": saved_model}),
        inference_result=InferenceResult(str(folder)),
        task=get_task("translation"),
        split="test",
        num_examples=0,
        context=Context(),
    )


def seconds(program: Callable, examples: Examples, saved_model: str) -> float:
    """Returns how long one of the two takes."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        program(examples, saved_model, pathlib.Path(folder))
        return time.perf_counter() - start


def main() -> None:
    """Runs the two alternately, so that other load on the machine affects both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("saved_model")
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        examples = write_examples(pathlib.Path(folder, "examples"), arguments.rows)
        times = {loop: [], bulk: []}
        for _ in range(arguments.repeat):
            for program, values in times.items():
                values.append(seconds(program, examples, arguments.saved_model))
    medians = {program: statistics.median(values) for program, values in times.items()}
    for program, median in medians.items():
        print(f"{program.__name__:5} {arguments.rows / median:8,.0f} rows/s  {medians[loop] / median:.2f} x the loop")


if __name__ == "__main__":
    main()
