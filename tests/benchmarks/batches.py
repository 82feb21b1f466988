"""Measures training's batches of pairs: how much of them is padding, and how long they take beside a training step.

    .venv/bin/python tests/benchmarks/batches.py
    .venv/bin/python tests/benchmarks/batches.py source=train.en.gz,target=train.de.gz

Without files the text is the demo's corpus. All is by the demo preset, but for the budget of a batch, which is that
preset's, that of small and the default one. Prints a line a budget. A step is one of the demo's model, so larger models
wait less for their batches; which are drawn here with nothing else going on, and in training made beside the steps.
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

from components.artifact import Examples, RawFiles, Schema, Tokenizer, TransformedExamples
from components.component import Context
from components.example_gen import ExampleGen, Splitting
from components.file_formats import Reading
from components.task import Features, Recipe
from components.tasks import get_task
from components.transform import Preprocessing, Transform
from models.config import TrainingConfig
from models.training import make_optimizer
from pipeline.config import preset
from pipeline.corpora import fetch_translation
from pipeline.fingerprint import resolve_raw_files

STEPS, WARMUP_STEPS = 30, 10
COLUMNS = ("source", "target")
DEMO = preset("demo", "translation")


def make_ids(files: str, folder: str) -> tuple[list[str], int]:
    """Returns the paths of the train split's ids, and the size of the vocabulary."""
    for name in ("examples", "ids", "tokenizer"):
        os.mkdir(f"{folder}/{name}")
    pathlib.Path(folder, "schema.pbtxt").write_text("".join(f'feature {{ name: "{c}" type: BYTES }}' for c in COLUMNS))
    examples, ids = Examples(f"{folder}/examples"), TransformedExamples(f"{folder}/ids")
    tokenizer, context = Tokenizer(f"{folder}/tokenizer"), Context()
    ExampleGen.function(
        files=resolve_raw_files(RawFiles(files)),
        examples=examples,
        columns=dict(zip(COLUMNS, COLUMNS, strict=True)),
        reading=Reading(),
        splitting=Splitting(DEMO.data.eval_share, DEMO.data.test_share),
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
    """Returns the share of the ids of an epoch that is padding, its different shapes, and the seconds of a batch."""
    task, ids, padding, shapes = get_task("translation"), 0, 0, set()
    for inputs, labels in task.make_batches(files, recipe, 0, 1).as_numpy_iterator():
        for array in (inputs["source"], labels):
            ids, padding = ids + array.size, padding + int(np.count_nonzero(array == 0))
        shapes.add((inputs["source"].shape, labels.shape))
    batches = iter(task.make_batches(files, recipe, 0, None))
    next(batches)  # reads the files
    for _ in range(WARMUP_STEPS):  # what was made ahead meanwhile
        next(batches)
    start = time.perf_counter()
    drawn = sum(1 for _ in itertools.islice(batches, 10 * STEPS))
    return padding / ids, len(shapes), (time.perf_counter() - start) / drawn


def step_seconds(files: list[str], recipe: Recipe, vocab_size: int) -> float:
    """Returns the median time of a step of the demo's model."""
    task, features = get_task("translation"), Features(vocab_size)
    model = task.make_model(recipe.model, features)
    model.compile(make_optimizer(recipe.training), task.make_loss(recipe.training, features))
    batches = list(itertools.islice(task.make_batches(files, recipe, 0, None), STEPS + WARMUP_STEPS))
    seconds = []
    for inputs, labels in batches:
        start = time.perf_counter()
        model.train_on_batch(inputs, labels)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[WARMUP_STEPS:])


def main() -> None:
    """Prints a line for each budget."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="?", help="as `seq2serve run` takes them; columns source and target")
    files = parser.parse_args().files or str(fetch_translation("de"))
    with tempfile.TemporaryDirectory() as folder:
        ids, vocab_size = make_ids(files, folder)
        small = preset("small", "translation").training
        for budget in (DEMO.training.batch_tokens, small.batch_tokens, TrainingConfig().batch_tokens):
            training = dataclasses.replace(DEMO.training, batch_tokens=budget)
            recipe = Recipe(DEMO.model, training, DEMO.decoding)
            padding, shapes, seconds = padding_and_seconds(ids, recipe)
            step = step_seconds(ids, recipe, vocab_size)
            print(
                f"batch_tokens {budget:6}: {padding:.1%} padding, {shapes} shapes, a batch {1000 * seconds:.2f} ms, a "
                f"step {1000 * step:.0f} ms, {seconds / step:.2%} of it",
                flush=True,
            )


if __name__ == "__main__":
    main()
