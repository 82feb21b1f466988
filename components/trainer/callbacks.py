"""The Trainer's Keras callbacks, in the order in which they run: budget, divergence, evaluation, checkpoint, bar."""

import math
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from seq2serve.components.base import interrupt
from seq2serve.components.base.errors import UserError
from seq2serve.components.base.progress import Reporter, note
from seq2serve.components.tasks.evaluation import Evaluation, Findings
from seq2serve.components.tasks.metric import Metric
from seq2serve.components.trainer.checkpoints import CHECKPOINTS, KEPT, state_of
from seq2serve.components.trainer.history import (
    DIVERGED_FLOOR,
    DIVERGED_RATIO,
    STANDARD_ERROR,
    CheckpointRanking,
    History,
)
from seq2serve.models.config import TrainingConfig
from seq2serve.models.training.optimizer import averaged

ESTIMATE_STEPS, ESTIMATE_SECONDS = 20, 60  # whichever comes first, before the time of training is estimated
LOG_STEPS = 20  # steps between two points of a training curve


def steps_done(optimizer: keras.optimizers.Optimizer) -> int:
    """Returns the number of steps of the whole training; `int` cannot read a variable that is mirrored on devices."""
    return int(optimizer.iterations.numpy())


def at_checkpoint(model: keras.Model, every: int) -> bool:
    """Returns whether a checkpoint is due: every `every` steps of the whole training, and after the last step."""
    return steps_done(model.optimizer) % every == 0 or model.stop_training


class Budget(keras.callbacks.Callback):
    """Ends training after a number of steps or minutes.

    Args:
        history: this callback updates its `seconds`.
        total_steps: number of steps; if time is limited, a float32 variable with the current estimate, which the
            learning rate schedule follows.
        minutes: time limit; 0 if the number of steps is limited.
    """

    def __init__(self, history: History, total_steps: int | tf.Variable, minutes: float):
        super().__init__()
        self._history, self._total_steps, self._seconds = history, total_steps, 60 * minutes

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Starts or resumes the clock."""
        self._start = time.monotonic() - self._history.seconds
        self._estimate()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Stops training if the budget is exhausted."""
        self._history.seconds = time.monotonic() - self._start
        self._estimate()
        self.model.stop_training = self.is_exhausted(steps_done(self.model.optimizer))

    def is_exhausted(self, step: int) -> bool:
        """Returns whether the budget is exhausted after a number of steps."""
        return self._history.seconds >= self._seconds if self._seconds else step >= self._total_steps

    def _estimate(self) -> None:
        step = steps_done(self.model.optimizer)
        if self._seconds and step:
            self._total_steps.assign(step * self._seconds / self._history.seconds)


class DivergenceGuard(keras.callbacks.Callback):
    """Stops training if the loss is NaN or infinite, or stays far above its minimum or above that of guessing.

    Args:
        history: this callback adds each step to it.
        config: `checkpoint_steps` and `warmup_steps`.
        total_steps: a number, or a variable that may change during training.
        num_choices: number of labels or pieces that the model chooses from.
    """

    def __init__(self, history: History, config: TrainingConfig, total_steps: int | tf.Variable, num_choices: int):
        super().__init__()
        self._history, self._config, self._total_steps = history, config, total_steps
        self._num_choices = num_choices
        self.point: dict[str, float] = {}  # of the training curve; empty if there is none at this step

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Records the time at which the step starts."""
        self._start = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Records the step and checks its loss; raises UserError."""
        check_finite(logs["loss"], self.model.optimizer)
        self._history.add_step({**logs, "seconds": time.monotonic() - self._start})
        step, config = steps_done(self.model.optimizer), self._config
        at_point = step % LOG_STEPS == 0 or at_checkpoint(self.model, config.checkpoint_steps)
        is_warm = step > min(config.warmup_steps, int(self._total_steps) // 2)
        chance = math.log(self._num_choices)
        self.point = self._history.make_point(chance if is_warm else math.inf) if at_point else {}
        if self._history.diverges():
            loss, lowest = self.point["loss"], self._history.lowest_loss
            if loss > DIVERGED_RATIO * max(lowest, DIVERGED_FLOOR):
                raise _divergence(f"The loss has diverged from {lowest:.3g} to {loss:.3g}", self.model.optimizer)
            raise _divergence(
                f"The model does not learn: guessing one of {self._num_choices:,} has a loss of {chance:.3g}, and "
                f"after the warm-up the loss is still {loss:.3g}",
                self.model.optimizer,
            )


def check_finite(loss: float, optimizer: keras.optimizers.Optimizer) -> None:
    """Checks that the loss is finite.

    Args:
        loss: of a step, or of the eval split.
        optimizer: for the message, which contains the step and the learning rate.
    Raises:
        UserError: the loss is NaN or infinite.
    """
    if not np.isfinite(loss):
        raise _divergence(f"The loss is {loss}", optimizer)


def _divergence(problem: str, optimizer: keras.optimizers.Optimizer) -> UserError:
    step, rate = steps_done(optimizer), float(optimizer.learning_rate)
    return UserError(
        f"{problem} at step {step}, at learning rate {rate:.2g}. Try a smaller training.learning_rate, a longer "
        "training.warmup_steps or a smaller training.clip_norm.",
        code="loss-diverged",
        step=step,
        learning_rate=rate,
    )


class Evaluate(keras.callbacks.Callback):
    """Evaluates each checkpoint, saves weights that may be exported, and stops early if the metric does not improve.

    Args:
        evaluation: of the model on the eval split.
        ranking: ranks the checkpoints; this callback adds each evaluation to its history.
        snapshots: saves weights.
        config: `checkpoint_steps`, `export`, `export_checkpoints` and `patience`.
    """

    def __init__(
        self, evaluation: Evaluation, ranking: CheckpointRanking, snapshots: "WeightSnapshots", config: TrainingConfig
    ):
        super().__init__()
        self._evaluation, self._ranking, self._snapshots, self._config = evaluation, ranking, snapshots, config
        self.findings: Findings | None = None  # of this step; None if it was not evaluated

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Evaluates if a checkpoint is due."""
        self.findings = None
        if not at_checkpoint(self.model, self._config.checkpoint_steps):
            return
        step = steps_done(self.model.optimizer)
        with averaged(self.model):
            self.evaluate(step)
        if self.should_stop_early():
            self.model.stop_training = True
            best, number = self._ranking.best(1)[0], self._ranking.since_best()
            evaluations = f"{number} evaluation{'s' * (number > 1)}"
            note(
                f"Trainer stops early at step {step}: {self._ranking.metric.name} has not improved for {evaluations}, "
                f"since step {best} (training.patience)"
            )

    def evaluate(self, step: int) -> None:
        """Evaluates the current weights, those of a step."""
        self.findings = self._evaluation.run()
        error = {STANDARD_ERROR: self.findings.standard_error}
        self._ranking.history.evaluations.append({"step": step, **self.findings.metrics, **error})
        if step in self._ranking.kept(self._config):
            self._snapshots.save(step)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Returns the metrics of an evaluation."""
        return self._evaluation.metrics

    def should_stop_early(self) -> bool:
        """Returns whether the metric has not improved for `training.patience` evaluations."""
        return 0 < self._config.patience <= self._ranking.since_best()


class WeightSnapshots:
    """Saves the trainable weights of checkpoints that may be exported, and restores their mean.

    Args:
        model: whose weights are saved and restored.
        folder: of the files.
    """

    def __init__(self, model: keras.Model, folder: str):
        self._variables, self._folder = [variable.value for variable in model.trainable_variables], folder
        self._checkpoint = tf.train.Checkpoint(weights=self._variables)

    def save(self, step: int) -> None:
        """Saves the current weights."""
        self._checkpoint.write(self._path(step))

    def restore_mean(self, steps: Sequence[int]) -> None:
        """Sets the weights of the model to the mean of the weights saved at these steps."""
        sums = [np.zeros(variable.shape) for variable in self._variables]
        for step in steps:
            self._checkpoint.read(self._path(step)).assert_consumed()
            sums = [total + variable.numpy() for total, variable in zip(sums, self._variables, strict=True)]
        for variable, total in zip(self._variables, sums, strict=True):
            variable.assign((total / len(steps)).astype(np.float32))

    def forget_others(self, steps: Sequence[int]) -> None:
        """Removes the weights of all steps but these."""
        for path in Path(self._folder, KEPT).glob("weights-*"):
            if int(path.name.removeprefix("weights-").partition(".")[0]) not in steps:
                path.unlink()

    def _path(self, step: int) -> str:
        return f"{self._folder}/{KEPT}/weights-{step}"


class Checkpoint(keras.callbacks.Callback):
    """Saves the complete state of training, so that a killed run resumes exactly.

    The state consists of weights, optimizer with step count, averaged weights, states of random generators, and the
    history. TensorFlow writes a checkpoint under a temporary name and then renames it.

    Args:
        model: built and compiled, with a built optimizer.
        ranking: its history is part of the checkpoint.
        snapshots: the weights to which the history refers; outdated ones are removed.
        folder: `checkpoints` is created in it.
        config: `checkpoint_steps`, `export` and `export_checkpoints`.
    """

    def __init__(
        self,
        model: keras.Model,
        ranking: CheckpointRanking,
        snapshots: WeightSnapshots,
        folder: str,
        config: TrainingConfig,
    ):
        super().__init__()
        self._ranking, self._snapshots, self._config, self._optimizer = ranking, snapshots, config, model.optimizer
        self._history = tf.Variable("", dtype=tf.string)
        self._checkpoint = tf.train.Checkpoint(**state_of(model), history=self._history)
        self._manager = tf.train.CheckpointManager(self._checkpoint, f"{folder}/{CHECKPOINTS}", max_to_keep=2)

    def restore(self) -> int:
        """Restores the last checkpoint and returns its step; 0 if there is none."""
        # Read again: another process may have written it.
        if latest := tf.train.latest_checkpoint(self._manager.directory):
            self._checkpoint.restore(latest).assert_consumed()
            self._ranking.history.restore(self._history.numpy().decode())
        return steps_done(self._optimizer)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Saves if a checkpoint is due, or after Ctrl-C; the progress bar then ends the run."""
        step = steps_done(self._optimizer)
        if interrupt.pressed():
            note(f"Trainer saves step {step} and stops")
        if interrupt.pressed() or at_checkpoint(self.model, self._config.checkpoint_steps):
            self.save(step)

    def save(self, step: int) -> None:
        """Saves the current state, that of a step."""
        self._history.assign(self._ranking.history.to_json())
        self._manager.save(checkpoint_number=step)
        # Only now: if the run is killed before this line, the previous checkpoint still needs these weights.
        self._snapshots.forget_others(self._ranking.kept(self._config))


class TimeEstimate(keras.callbacks.Callback):
    """Says once, after the first steps, how long a training of minutes takes; if it is long, how to make it shorter.

    Args:
        total_steps: number of steps.
        config: `minutes` and `epochs`; nothing is said if the time is limited.
    """

    def __init__(self, total_steps: int | tf.Variable, config: TrainingConfig):
        super().__init__()
        self._total_steps, self._is_reported, self._seconds = total_steps, bool(config.minutes), []
        self._limit = "epochs" if config.epochs else "steps"

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Records the time at which the step starts."""
        self._start = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Estimates by the median step: the first ones compile, and one with an evaluation takes longer."""
        self._seconds.append(time.monotonic() - self._start)
        is_enough = len(self._seconds) >= ESTIMATE_STEPS or sum(self._seconds) > ESTIMATE_SECONDS
        if self._is_reported or not is_enough:
            return
        self._is_reported = True
        steps = int(self._total_steps) - steps_done(self.model.optimizer)
        minutes = steps * statistics.median(self._seconds) / 60
        if minutes < 1:
            return
        time_left = f"{minutes:.0f} minutes" if minutes < 60 else f"{minutes / 60:.1f} hours"
        advice = (
            f". A smaller training.{self._limit}, model.d_model or number of layers makes it shorter; "
            "training.minutes=60 instead ends it after an hour"
        )
        note(f"Trainer: {steps:,} more steps take about {time_left}, and the evaluations{advice * (minutes >= 60)}")


class ProgressBar(keras.callbacks.Callback):
    """Shows step, rate, remaining time, loss and metric; the reporter raises KeyboardInterrupt after Ctrl-C.

    Args:
        reporter: the progress bar.
        ranking: for the last value of the metric.
        total_steps: a number, or a variable that may change during training.
    """

    def __init__(self, reporter: Reporter, ranking: CheckpointRanking, total_steps: int | tf.Variable):
        super().__init__()
        self._reporter, self._ranking, self._total_steps = reporter, ranking, total_steps

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Updates the progress bar."""
        last = self._ranking.history.evaluations[-1:]
        metric = self._ranking.metric
        value = "".join(f", {metric.name} {metric.text(evaluation[metric.name])}" for evaluation in last)
        step, total = steps_done(self.model.optimizer), int(self._total_steps)
        self._reporter.update(step, f"loss {logs['loss']:.3f}{value}", total)
