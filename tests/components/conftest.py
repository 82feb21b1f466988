"""What tests of components share: Examples of a test's own; training on the house's text and what TensorBoard shows.

Comes in: nothing. Goes out: fixtures. Read next: test_trainer.py.
"""

import dataclasses
import os
import pathlib

import numpy as np
import pytest

from components.artifact import Examples, Model, ModelRun
from components.component import Context
from components.tasks import TASKS, TRANSLATION
from components.trainer import Trainer


@dataclasses.dataclass(frozen=True)
class Trained:
    """What a training left, and the weights that it had after each step."""

    model: Model
    model_run: ModelRun
    scratch: pathlib.Path
    steps: list[list[np.ndarray]]


@pytest.fixture(scope="module")
def not_exported():
    """Name of a task: translation without the export, which takes longest and is done for the house's own model."""
    name = "translation that is not exported"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TASKS, name, dataclasses.replace(TRANSLATION, export=lambda *_: None))
        yield name


@pytest.fixture(scope="module")
def train(house, not_exported, tmp_path_factory):
    """Returns a function that trains on the house's text and exports nothing."""
    from components import trainer_callbacks

    class Record(trainer_callbacks.ProgressBar):
        def on_train_batch_end(self, batch, logs=None):
            super().on_train_batch_end(batch, logs)
            steps.append([variable.numpy() for variable in self.model.trainable_variables])

    steps = []

    def train(recipe, scratch=None, **inputs):
        folder = tmp_path_factory.mktemp("trained")
        trained = Trained(Model(f"{folder}/model"), ModelRun(f"{folder}/run"), scratch or folder / "scratch", [])
        steps.clear()  # of a training that was interrupted
        for path in (trained.model.uri, trained.model_run.uri, trained.scratch):
            os.makedirs(path, exist_ok=True)
        Trainer.function(
            **{key: house.output("Transform", key) for key in ("transformed_examples", "tokenizer")} | inputs,
            model=trained.model,
            model_run=trained.model_run,
            task=not_exported,
            recipe=recipe,
            context=Context(scratch=str(trained.scratch)),
        )
        trained.steps[:] = steps
        return trained

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer_callbacks, "ProgressBar", Record)
        yield train


@pytest.fixture(scope="session")
def events():
    """Returns a function: of a ModelRun {(run, tag): [(step, value)]} as TensorBoard reads them, and each's plugin."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    def events(model_run):
        found, plugins = {}, {}
        for name in ("train", "validation"):
            accumulator = EventAccumulator(model_run.path("logs", name)).Reload()
            for tag in accumulator.Tags()["tensors"]:
                points = accumulator.Tensors(tag)
                found[name, tag] = [(event.step, make_ndarray(event.tensor_proto)) for event in points]
                plugins[name, tag] = accumulator.SummaryMetadata(tag).plugin_data.plugin_name
        return found, plugins

    return events


@pytest.fixture(scope="session")
def curves(events):
    """Returns a function: of a ModelRun {(run, tag): [(step, value)]} of what does not hang on the machine's speed."""

    def curves(model_run):
        found, plugins = events(model_run)
        return {
            key: [(step, float(value)) for step, value in points]
            for key, points in found.items()
            if plugins[key] == "scalars" and key[1] != "tokens_per_second"
        }

    return curves


@pytest.fixture
def write_examples(tmp_path):
    """Returns a function that writes shards of (source, target) rows as the test split of Examples."""
    import tensorflow as tf

    def example(**columns) -> bytes:
        values = {name: tf.train.BytesList(value=[text.encode()]) for name, text in columns.items()}
        features = {name: tf.train.Feature(bytes_list=value) for name, value in values.items()}
        return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()

    def write(*shards) -> Examples:
        folder = tmp_path / f"examples-{len(list(tmp_path.glob('examples-*')))}"
        (folder / "Split-test").mkdir(parents=True)
        for number, rows in enumerate(shards):
            path = folder / "Split-test" / f"data_tfrecord-{number:05d}-of-{len(shards):05d}"
            with tf.io.TFRecordWriter(str(path)) as file:
                for source, target in rows:
                    file.write(example(source=source, target=target))
        return Examples(str(folder), {"columns": ["source", "target"], "splits": ["test"]})

    return write
