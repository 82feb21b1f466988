"""Measures the batches of training: their share of padding, and the time to make one compared with a training step.

    .venv/bin/python tests/benchmarks/batches.py
    .venv/bin/python tests/benchmarks/batches.py source=train.en.gz,target=train.de.gz

Without files the text is the demo corpus. The settings are those of the demo preset, except for training.batch_tokens:
that of the presets demo and small, and the default. Prints one line for each.

A step is one of the demo model; larger models wait less for their batches. Batches are made here while nothing else
runs; in training they are made in parallel with the steps.
"""

import argparse
import dataclasses
import itertools
import os
import pathlib
import statistics
import tempfile
import time

import numpy as np

from seq2serve.components.base.artifact import Examples, RawFiles, Schema, Tokenizer, TransformedExamples
from seq2serve.components.base.component import Context
from seq2serve.components.example_gen.component import ExampleGen
from seq2serve.components.example_gen.config import InputConfig, SplitConfig
from seq2serve.components.tasks.data import DataSpec
from seq2serve.components.tasks.registry import get_task
from seq2serve.components.tasks.translation.demo import fetch_pairs
from seq2serve.components.transform.component import Transform
from seq2serve.components.transform.preprocessing import Preprocessing
from seq2serve.models.config import Recipe, TrainingConfig
from seq2serve.models.training.optimizer import make_optimizer
from seq2serve.pipeline.config import preset
from seq2serve.pipeline.running.raw_files import resolve_raw_files

STEPS, WARMUP_STEPS = 30, 10
COLUMNS = ("source", "target")
DEMO = preset("demo", "translation")


def make_ids(files: str, folder: str) -> tuple[list[str], int]:
    """Returns the paths of the ids of the train split, and the size of the vocabulary."""
    for name in ("examples", "ids", "tokenizer"):
        os.mkdir(f"{folder}/{name}")
    pathlib.Path(folder, "schema.pbtxt").write_text("".join(f'feature {{ name: "{c}" type: BYTES }}' for c in COLUMNS))
    examples, ids = Examples(f"{folder}/examples"), TransformedExamples(f"{folder}/ids")
    tokenizer, context = Tokenizer(f"{folder}/tokenizer"), Context()
    ExampleGen.function(
        files=resolve_raw_files(RawFiles(files)),
        examples=examples,
        columns=dict(zip(COLUMNS, COLUMNS, strict=True)),
        input_config=InputConfig(),
        split_config=SplitConfig(DEMO.data.eval_share, DEMO.data.test_share),
        max_reject_share=0.01,
        context=context,
    )
    Transform.function(
        examples=examples,
        schema=Schema(folder),
        transformed_examples=ids,
        tokenizer=tokenizer,
        preprocessing=Preprocessing(COLUMNS, DEMO.data.max_length),
        tokenizer_config=DEMO.tokenizer,
        context=context,
    )
    paths = sorted(pathlib.Path(ids.uri, "Split-train").iterdir())
    return [str(path) for path in paths], tokenizer.properties["vocab_size"]


def padding_and_seconds(files: list[str], recipe: Recipe) -> tuple[float, int, float]:
    """Returns the share of padding in an epoch, its number of different shapes, and the seconds per batch."""
    implementation, ids, padding, shapes = get_task("translation").implementation(), 0, 0, set()
    for inputs, labels in implementation.make_batches(files, recipe, 0, 1).as_numpy_iterator():
        for array in (inputs["source"], labels):
            ids, padding = ids + array.size, padding + int(np.count_nonzero(array == 0))
        shapes.add((inputs["source"].shape, labels.shape))
    batches = iter(implementation.make_batches(files, recipe, 0, None))
    next(batches)  # reads the files
    for _ in range(WARMUP_STEPS):  # batches that were prefetched meanwhile
        next(batches)
    start = time.perf_counter()
    count = sum(1 for _ in itertools.islice(batches, 10 * STEPS))
    return padding / ids, len(shapes), (time.perf_counter() - start) / count


def step_seconds(files: list[str], recipe: Recipe, vocab_size: int) -> float:
    """Returns the median seconds of a step of the demo model."""
    implementation = get_task("translation").implementation()
    data_spec = DataSpec(vocab_size, max_length=DEMO.data.max_length)
    model = implementation.make_model(recipe.model, data_spec)
    model.compile(make_optimizer(recipe.training), implementation.make_loss(recipe.training, data_spec))
    batches = list(itertools.islice(implementation.make_batches(files, recipe, 0, None), STEPS + WARMUP_STEPS))
    seconds = []
    for inputs, labels in batches:
        start = time.perf_counter()
        model.train_on_batch(inputs, labels)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[WARMUP_STEPS:])


def main() -> None:
    """Prints one line per value of training.batch_tokens."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="?", help="as for `seq2serve run`; columns source and target")
    files = parser.parse_args().files or str(fetch_pairs("de"))
    with tempfile.TemporaryDirectory() as folder:
        ids, vocab_size = make_ids(files, folder)
        small = preset("small", "translation").training
        for batch_tokens in (DEMO.training.batch_tokens, small.batch_tokens, TrainingConfig().batch_tokens):
            training = dataclasses.replace(DEMO.training, batch_tokens=batch_tokens)
            recipe = Recipe(DEMO.model, training, DEMO.decoding)
            padding, shapes, seconds = padding_and_seconds(ids, recipe)
            step = step_seconds(ids, recipe, vocab_size)
            print(
                f"batch_tokens {batch_tokens:6}: {padding:.1%} padding, {shapes} shapes, {1000 * seconds:.2f} ms per "
                f"batch, {1000 * step:.0f} ms per step, ratio {seconds / step:.2%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
