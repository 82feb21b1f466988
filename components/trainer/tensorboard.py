"""TensorBoard logs of training: curves, sample answers, attention maps and settings; histograms and a profile."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams

from seq2serve.components.base import interrupt
from seq2serve.components.tasks.data import sample_evenly
from seq2serve.components.tasks.evaluation import Findings
from seq2serve.components.trainer.attention_image import draw
from seq2serve.components.trainer.callbacks import DivergenceGuard, Evaluate, at_checkpoint, steps_done
from seq2serve.models.config import Recipe
from seq2serve.models.training.warm_start import named_weights

NUM_TEXTS = 8  # sample answers per evaluation
PROFILED_STEPS = 5


class TensorBoardLog(keras.callbacks.Callback):
    """Writes training events to `logs/train` and evaluation events to `logs/validation`.

    The events between two checkpoints have a separate file, named after its first step. A resumed run removes the files
    that the killed run wrote after its last checkpoint, because it repeats those steps. This callback must run before
    Checkpoint, so that a checkpoint never contains a step that is missing in the log.

    Args:
        folder: `logs` is created in it.
        guard: provides the points of the training curve.
        evaluate: provides the results of evaluations.
        recipe: for the HParams tab, which compares runs; `checkpoint_steps`.
    """

    def __init__(self, folder: str, guard: DivergenceGuard, evaluate: Evaluate, recipe: Recipe):
        super().__init__()
        self._logs, self._guard, self._evaluate, self._recipe = f"{folder}/logs", guard, evaluate, recipe

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Removes events that will be written again, and opens the files."""
        step = steps_done(self.model.optimizer)
        for path in Path(self._logs).glob("*/*.from-*"):
            if int(path.name.rpartition("-")[2]) >= step:
                path.unlink()
        # In a file of their own, because the settings of a training that continues an earlier one differ from its.
        for path in Path(self._logs).glob("validation/*.settings"):
            path.unlink()
        with tf.summary.create_file_writer(f"{self._logs}/validation", filename_suffix=".settings").as_default():
            hparams.hparams(flat(dataclasses.asdict(self._recipe)))
        self._open(step)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Writes the events of this step."""
        step, config = steps_done(self.model.optimizer), self._recipe.training
        is_checkpoint = at_checkpoint(self.model, config.checkpoint_steps)
        if self._guard.point:
            rate = float(self.model.optimizer.learning_rate)
            _write_scalars(self._train, step, {**self._guard.point, "learning_rate": rate})
        if self._evaluate.findings:
            self._write_findings(step, self._evaluate.findings)
        if is_checkpoint and config.histograms:
            with self._train.as_default(step):
                for name, weight in named_weights(self.model).items():
                    tf.summary.histogram(f"weights/{name}", weight)
        if interrupt.pressed() or is_checkpoint:
            self._close()
            self._open(step)

    def on_train_end(self, logs: dict | None = None) -> None:
        """Closes the files."""
        self._close()

    def _write_findings(self, step: int, findings: Findings) -> None:
        units = {metric.name: metric.unit for metric in self._evaluate.metrics}
        _write_scalars(self._validation, step, findings.metrics, units)
        with self._validation.as_default(step):
            if findings.texts:
                tf.summary.text("answers", table(sample_evenly(findings.texts, NUM_TEXTS)))
            for attention_map in findings.maps:
                tf.summary.image(f"attention/{attention_map.title}", draw(attention_map)[None])

    def _open(self, step: int) -> None:
        self._train, self._validation = (
            tf.summary.create_file_writer(f"{self._logs}/{name}", filename_suffix=f".from-{step}")
            for name in ("train", "validation")
        )

    def _close(self) -> None:
        self._train.close()
        self._validation.close()


class Profile(keras.callbacks.Callback):
    """Profiles a few steps for TensorBoard's Profile tab (the package xprof).

    Args:
        folder: `logs/train` is created in it.
        first_step: the first profiled step.
    """

    def __init__(self, folder: str, first_step: int):
        super().__init__()
        self._folder, self._first_step = f"{folder}/logs/train", first_step
        self._remaining = 0  # steps to profile; 0 if the profiler is off

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Starts the profiler before the first step."""
        if steps_done(self.model.optimizer) + 1 == self._first_step:
            tf.profiler.experimental.start(self._folder)
            self._remaining = PROFILED_STEPS

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Stops the profiler after the last profiled step, or at the end of training."""
        if self._remaining:
            self._remaining = 0 if self.model.stop_training else self._remaining - 1
            if not self._remaining:
                tf.profiler.experimental.stop()


def flat(settings: Mapping[str, object]) -> dict[str, object]:
    """Flattens sections of settings: {"training": {"steps": 1}} -> {"training.steps": 1}."""
    return {f"{section}.{key}": value for section, keys in settings.items() for key, value in keys.items()}


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """Returns rows of texts as a Markdown table; the columns are those of the first row."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([_cell(text) for text in row.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cell(text: str) -> str:
    return "".join(f"\\{letter}" if letter in r"\`*_{}[]<>#|~" else letter for letter in " ".join(text.split()))


def _write_scalars(
    writer: tf.summary.SummaryWriter,
    step: int,
    values: Mapping[str, float],
    units: Mapping[str, str] | None = None,
) -> None:
    with writer.as_default(step):
        for name, value in values.items():
            tf.summary.scalar(name, value, description=(units or {}).get(name))
