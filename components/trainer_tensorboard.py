"""What TensorBoard shows of a training: curves, answers, attention, settings; histograms and a profile where asked for.

Comes in: the points of the training curve and the findings of evaluations. Goes out: event files in the scratch folder.
Read next: trainer_callbacks.py for where they come from; heat_map_image.py for how attention is drawn.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams

from components import interrupt
from components.task import Recipe, spread
from components.trainer_callbacks import Evaluate, Watch, at_checkpoint, steps_done
from models.evaluation import Findings
from models.warm_start import named_weights

NUM_TEXTS = 8  # answers shown of an evaluation
PROFILED_STEPS = 5


class TensorBoardLog(keras.callbacks.Callback):
    """Writes what there is to see after each step, of training to `logs/train`, of evaluations to `logs/validation`.

    The events between two checkpoints have a file of their own, named by the step it begins at: those a killed run
    wrote after its last checkpoint are removed with their file, for the steps will be taken again. It must come before
    Checkpoint, so that a checkpoint never knows of a step that the log does not.

    Args:
        folder: `logs` is made in it.
        watch: makes the points of the curve.
        evaluate: evaluates on the eval split.
        recipe: for the HParams tab, which compares runs by it; says how often there are checkpoints.
    """

    def __init__(self, folder: str, watch: Watch, evaluate: Evaluate, recipe: Recipe):
        super().__init__()
        self._logs, self._watch, self._evaluate, self._recipe = f"{folder}/logs", watch, evaluate, recipe

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Removes what is about to be written again, and opens the files."""
        step = steps_done(self.model.optimizer)
        for path in Path(self._logs).glob("*/*.from-*"):
            if int(path.name.rpartition("-")[2]) >= step:
                path.unlink()
        self._open(step)
        if not step:
            with self._validation.as_default():
                hparams.hparams(flat(dataclasses.asdict(self._recipe)))

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Writes what there is at this step."""
        step, config = steps_done(self.model.optimizer), self._recipe.training
        ends = at_checkpoint(self.model, config.checkpoint_steps)
        if self._watch.point:
            rate = float(self.model.optimizer.learning_rate)
            _write_scalars(self._train, step, {**self._watch.point, "learning_rate": rate})
        if self._evaluate.findings:
            self._write_findings(step, self._evaluate.findings)
        if ends and config.histograms:
            with self._train.as_default(step):
                for name, weight in named_weights(self.model).items():
                    tf.summary.histogram(f"weights/{name}", weight)
        if interrupt.pressed() or ends:
            self._close()
            self._open(step)

    def on_train_end(self, logs: dict | None = None) -> None:
        """Closes the files."""
        self._close()

    def _write_findings(self, step: int, findings: Findings) -> None:
        from components.heat_map_image import draw  # slow to import

        _write_scalars(self._validation, step, findings.metrics)
        with self._validation.as_default(step):
            if findings.texts:
                tf.summary.text("answers", table(spread(findings.texts, NUM_TEXTS)))
            for heat_map in findings.maps:
                tf.summary.image(f"attention/{heat_map.title}", draw(heat_map)[None])

    def _open(self, step: int) -> None:
        self._train, self._validation = (
            tf.summary.create_file_writer(f"{self._logs}/{name}", filename_suffix=f".from-{step}")
            for name in ("train", "validation")
        )

    def _close(self) -> None:
        self._train.close()
        self._validation.close()


class Profile(keras.callbacks.Callback):
    """Records what a few steps spend their time on, for TensorBoard's Profile tab (the package xprof).

    Args:
        folder: `logs/train` is made in it.
        first_step: the first that is recorded.
    """

    def __init__(self, folder: str, first_step: int):
        super().__init__()
        self._folder, self._first_step = f"{folder}/logs/train", first_step
        self._left = 0

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Begins before the first."""
        if steps_done(self.model.optimizer) + 1 == self._first_step:
            tf.profiler.experimental.start(self._folder)
            self._left = PROFILED_STEPS

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Writes after the last, or with the end of training."""
        if self._left:
            self._left = 0 if self.model.stop_training else self._left - 1
            if not self._left:
                tf.profiler.experimental.stop()


def flat(settings: Mapping[str, object]) -> dict[str, object]:
    """Turns sections of settings into one: {"training": {"steps": 1}} -> {"training.steps": 1}."""
    return {f"{section}.{key}": value for section, keys in settings.items() for key, value in keys.items()}


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """Returns texts as a table in Markdown."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([_cell(text) for text in row.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cell(text: str) -> str:
    return "".join(f"\\{letter}" if letter in r"\`*_{}[]<>#|~" else letter for letter in " ".join(text.split()))


def _write_scalars(writer: tf.summary.SummaryWriter, step: int, values: dict) -> None:
    with writer.as_default(step):
        for name, value in values.items():
            tf.summary.scalar(name, value)
