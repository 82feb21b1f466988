"""Fixtures of the component tests: Examples from rows, trainings on the finished run's text, TensorBoard events."""

import dataclasses
import os
import pathlib

import numpy as np
import pytest

from seq2serve.components.base.artifact import Examples, Model, ModelRun
from seq2serve.components.base.component import Context
from seq2serve.components.tasks.translation.task import Translation
from seq2serve.components.trainer.component import Trainer


@dataclasses.dataclass(frozen=True)
class Trained:
    """The outputs of a training, and the weights after each step."""

    model: Model
    model_run: ModelRun
    scratch: pathlib.Path
    steps: list[list[np.ndarray]]


class NotExported(Translation):
    """Translation without the export, which is slow."""

    name = "translation without export"

    def implementation(self):
        from seq2serve.components.tasks.translation.implementation import TranslationImplementation

        class Implementation(TranslationImplementation):
            def export(self, *_):
                pass

        return Implementation(self)


NOT_EXPORTED = NotExported()


@pytest.fixture(scope="module")
def train(finished_run, tmp_path_factory):
    """Returns a function that trains on the text of the finished run, without export."""
    from seq2serve.components.trainer import callbacks as trainer_callbacks

    class RecordWeights(trainer_callbacks.ProgressBar):
        def on_train_batch_end(self, batch, logs=None):
            super().on_train_batch_end(batch, logs)
            steps.append([variable.numpy() for variable in self.model.trainable_variables])

    steps = []

    def train(recipe, scratch=None, task=NOT_EXPORTED, earlier=(), **inputs):
        folder = tmp_path_factory.mktemp("trained")
        trained = Trained(Model(f"{folder}/model"), ModelRun(f"{folder}/run"), scratch or folder / "scratch", [])
        steps.clear()  # of a training that was interrupted
        for path in (trained.model.uri, trained.model_run.uri, trained.scratch):
            os.makedirs(path, exist_ok=True)
        Trainer.function(
            **{key: finished_run.output("Transform", key) for key in ("transformed_examples", "tokenizer")} | inputs,
            model=trained.model,
            model_run=trained.model_run,
            task=task,
            recipe=recipe,
            context=Context(scratch=str(trained.scratch), earlier=earlier),
        )
        trained.steps[:] = steps
        return trained

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer_callbacks, "ProgressBar", RecordWeights)
        yield train


@pytest.fixture(scope="session")
def events():
    """Returns a function that reads the events of a ModelRun as TensorBoard does.

    It returns {(run, tag): [(step, value)]} and {(run, tag): plugin}.
    """
    from tensorboard.backend.event_processing.event_accumulator import TENSORS, EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    def events(model_run):
        values, plugins = {}, {}
        for name in ("train", "validation"):
            accumulator = EventAccumulator(model_run.path("logs", name), {TENSORS: 0}).Reload()  # 0: all, not a sample
            for tag in accumulator.Tags()["tensors"]:
                points = accumulator.Tensors(tag)
                values[name, tag] = [(event.step, make_ndarray(event.tensor_proto)) for event in points]
                plugins[name, tag] = accumulator.SummaryMetadata(tag).plugin_data.plugin_name
        return values, plugins

    return events


@pytest.fixture(scope="session")
def curves(events):
    """Returns a function that reads the curves of a ModelRun as {(run, tag): [(step, value)]}, without throughput."""

    def curves(model_run):
        values, plugins = events(model_run)
        return {
            key: [(step, float(value)) for step, value in points]
            for key, points in values.items()
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
        return Examples(
            str(folder), {"columns": ["source", "target"], "splits": ["test"], "num_examples": {"train": 100}}
        )

    return write
