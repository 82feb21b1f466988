"""What happens beside training: the budget, the watch over the loss, evaluations, checkpoints, the progress bar.

Comes in: Keras's calls after each step. Goes out: files under the scratch folder, progress, and the end of training.
Read next: trainer.py, which calls them in the order in which they stand here; trainer_history.py for what they
remember; trainer_tensorboard.py for what is shown.
"""

import time
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from components import interrupt
from components.errors import UserError
from components.progress import Reporter, note
from components.trainer_history import History, Judge
from models.config import TrainingConfig
from models.evaluation import Evaluation, Findings
from models.training import averaged

LOG_STEPS = 20  # steps between two points of a training curve


def steps_done(optimizer: keras.optimizers.Optimizer) -> int:
    """Returns how many steps the whole training has taken; `int` cannot read a variable that several devices hold."""
    return int(optimizer.iterations.numpy())


def at_checkpoint(model: keras.Model, every: int) -> bool:
    """Returns whether there is a checkpoint after this step: each `every`th of the whole training, and the last."""
    return steps_done(model.optimizer) % every == 0 or model.stop_training


class Budget(keras.callbacks.Callback):
    """Ends training after so many steps or minutes.

    Args:
        history: knows how long training has taken.
        total_steps: when training ends; where minutes count a variable, float32, which is kept at what it will probably
            be, for the schedule to follow.
        minutes: of training; 0 where steps count.
    """

    def __init__(self, history: History, total_steps: int | tf.Variable, minutes: float):
        super().__init__()
        self._history, self._total_steps, self._seconds = history, total_steps, 60 * minutes

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Starts the clock, or lets it go on."""
        self._start = time.monotonic() - self._history.seconds
        self._foresee()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Looks at the clock."""
        self._history.seconds = time.monotonic() - self._start
        self._foresee()
        self.model.stop_training = self.is_used_up(steps_done(self.model.optimizer))

    def is_used_up(self, step: int) -> bool:
        """Returns whether nothing of it is left after so many steps."""
        return self._history.seconds >= self._seconds if self._seconds else step >= self._total_steps

    def _foresee(self) -> None:
        step = steps_done(self.model.optimizer)
        if self._seconds and step:
            self._total_steps.assign(step * self._seconds / self._history.seconds)


class Watch(keras.callbacks.Callback):
    """Stops a run whose loss is no longer a number, or has been far above what it was for long.

    Args:
        history: gets the numbers of each step.
        every: steps between two checkpoints.
    """

    def __init__(self, history: History, every: int):
        super().__init__()
        self._history, self._every = history, every
        self.point: dict[str, float] = {}  # of the training curve, where there is one at this step

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Notes when the step begins."""
        self._start = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Looks at the loss; raises UserError."""
        check_finite(logs["loss"], self.model.optimizer)
        self._history.add_step({**logs, "seconds": time.monotonic() - self._start})
        at_point = steps_done(self.model.optimizer) % LOG_STEPS == 0 or at_checkpoint(self.model, self._every)
        self.point = self._history.make_point() if at_point else {}
        if self._history.diverges():
            loss, lowest = self.point["loss"], self._history.lowest_loss
            raise _astray(f"The loss diverges, {loss:.3g} where it was {lowest:.3g} before,", self.model.optimizer)


def check_finite(loss: float, optimizer: keras.optimizers.Optimizer) -> None:
    """Checks that the loss is a number.

    Args:
        loss: of a step, or of the eval split after it.
        optimizer: knows the step and its learning rate.
    Raises:
        UserError: the loss is NaN or infinite.
    """
    if not np.isfinite(loss):
        raise _astray(f"The loss is {loss}", optimizer)


def _astray(what: str, optimizer: keras.optimizers.Optimizer) -> UserError:
    step, rate = steps_done(optimizer), float(optimizer.learning_rate)
    return UserError(
        f"{what} at step {step}, at learning rate {rate:.2g}. Try a smaller "
        "training.learning_rate, a longer training.warmup_steps or a smaller training.clip_norm."
    )


class Evaluate(keras.callbacks.Callback):
    """Evaluates what a checkpoint would export, keeps its weights if they may be, ends training when nothing improves.

    Args:
        evaluation: of the model.
        judge: compares evaluations; its history gets each of them.
        kept: weights of checkpoints.
        config: says how often, what is kept, and when to end.
    """

    def __init__(self, evaluation: Evaluation, judge: Judge, kept: "KeptWeights", config: TrainingConfig):
        super().__init__()
        self._evaluation, self._judge, self._kept, self._config = evaluation, judge, kept, config
        self.findings: Findings | None = None  # of this step, where there is a checkpoint

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Evaluates where there is a checkpoint."""
        self.findings = None
        if not at_checkpoint(self.model, self._config.checkpoint_steps):
            return
        step = steps_done(self.model.optimizer)
        with averaged(self.model):
            self.findings = self._evaluation.run()
            self._judge.history.evaluations.append({"step": step, **self.findings.metrics})
            if step in self._judge.exported(self._config):
                self._kept.save(step)
        if self.gives_up():
            self.model.stop_training = True
            best, number = self._judge.best(1)[0], self._judge.since_best()
            note(
                f"Trainer stops at step {step}: the {self._judge.metric} of step {best} has not been passed in "
                f"{number} evaluation{'s' * (number > 1)} (training.patience)"
            )

    def gives_up(self) -> bool:
        """Returns whether so many evaluations in a row have found nothing better that training should end."""
        return 0 < self._config.patience <= self._judge.since_best()


class KeptWeights:
    """Weights of checkpoints that may be exported.

    Args:
        model: whose trainable weights are meant.
        folder: where to.
    """

    def __init__(self, model: keras.Model, folder: str):
        self._variables, self._folder = [variable.value for variable in model.trainable_variables], folder
        self._checkpoint = tf.train.Checkpoint(weights=self._variables)

    def save(self, step: int) -> None:
        """Keeps the weights that the model has now."""
        self._checkpoint.write(self._path(step))

    def restore_mean(self, steps: Sequence[int]) -> None:
        """Gives the model the mean of what was kept at some steps."""
        sums = [np.zeros(variable.shape) for variable in self._variables]
        for step in steps:
            self._checkpoint.read(self._path(step)).assert_consumed()
            sums = [total + variable.numpy() for total, variable in zip(sums, self._variables, strict=True)]
        for variable, total in zip(self._variables, sums, strict=True):
            variable.assign((total / len(steps)).astype(np.float32))

    def forget_others(self, steps: Sequence[int]) -> None:
        """Removes what was kept at all other steps."""
        for path in Path(self._folder, "kept").glob("weights-*"):
            if int(path.name.removeprefix("weights-").partition(".")[0]) not in steps:
                path.unlink()

    def _path(self, step: int) -> str:
        return f"{self._folder}/kept/weights-{step}"


class Checkpoint(keras.callbacks.Callback):
    """Saves all that decides the rest of the run, so that a killed run goes on as if nothing had happened.

    Weights, optimizer (its step count among them), averaged weights, the states of the random generators and the
    history. TensorFlow's checkpoint is written under another name and then named in one rename.

    Args:
        model: built and compiled, its optimizer built.
        judge: its history is saved.
        kept: weights that the checkpoint relies on.
        folder: where to.
        config: says how often.
    """

    def __init__(self, model: keras.Model, judge: Judge, kept: KeptWeights, folder: str, config: TrainingConfig):
        super().__init__()
        self._judge, self._kept, self._config, self._optimizer = judge, kept, config, model.optimizer
        # The variables one by one: a checkpoint of the model itself has no states of random generators.
        state = [variable.value for variable in (*model.variables, *model.optimizer.variables)]
        self._history = tf.Variable("", dtype=tf.string)
        self._checkpoint = tf.train.Checkpoint(state=state, history=self._history)
        self._manager = tf.train.CheckpointManager(self._checkpoint, f"{folder}/checkpoints", max_to_keep=2)

    def restore(self) -> int:
        """Restores the last checkpoint; returns how many steps were done by then, 0 where there is none."""
        if self._manager.latest_checkpoint:
            self._checkpoint.restore(self._manager.latest_checkpoint).assert_consumed()
            self._judge.history.restore(self._history.numpy().decode())
        return steps_done(self._optimizer)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Saves after so many steps, after the last, and when Ctrl-C was pressed, which then ends the run."""
        step = steps_done(self._optimizer)
        if interrupt.pressed():
            note(f"Trainer stops at step {step}, which is saved")
        if interrupt.pressed() or at_checkpoint(self.model, self._config.checkpoint_steps):
            self._history.assign(self._judge.history.to_json())
            self._manager.save(checkpoint_number=step)
            # Only now: a run that was killed before would go on from a checkpoint that relies on what is removed.
            self._kept.forget_others(self._judge.exported(self._config))


class ProgressBar(keras.callbacks.Callback):
    """Shows steps, their rate, the time left, the loss and the metric; raises KeyboardInterrupt after Ctrl-C.

    Args:
        reporter: shows them.
        judge: knows the metric.
        total_steps: a number, or a variable that may change.
    """

    def __init__(self, reporter: Reporter, judge: Judge, total_steps: int | tf.Variable):
        super().__init__()
        self._reporter, self._judge, self._total_steps = reporter, judge, total_steps

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Moves the bar."""
        last = self._judge.history.evaluations[-1:]
        metric = "".join(f", {self._judge.metric} {evaluation[self._judge.metric]:.3f}" for evaluation in last)
        step, total = steps_done(self.model.optimizer), int(self._total_steps)
        self._reporter.update(step, f"loss {logs['loss']:.3f}{metric}", total)
