"""A training with its state on disk: resumes from the last checkpoint, trains, and sets the weights to export.

See also: callbacks.py for checkpoints, evaluation and early stopping.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any

import keras

from seq2serve.components.base import interrupt
from seq2serve.components.base.progress import note, progress
from seq2serve.components.trainer import callbacks
from seq2serve.components.trainer.history import CheckpointRanking, History, describe_choice
from seq2serve.components.trainer.preparation import Training
from seq2serve.components.trainer.tensorboard import Profile, TensorBoardLog
from seq2serve.models.training.replicas import shared_batches


class TrainingSession:
    """A training in this process, at its last checkpoint if there is one.

    Args:
        training: what to train.
        scratch: folder of the checkpoints, without characters that TensorFlow interprets.
        continued: the ModelRun whose state is in `scratch`; empty if its state is that of this training.
    """

    def __init__(self, training: Training, scratch: str, continued: str = ""):
        self._training, self._scratch, self._continued = training, scratch, continued
        self._config = training.data.recipe.training
        self._evaluation = training.data.evaluation(training.network)
        self.ranking = CheckpointRanking(History(), self._evaluation.metric)
        self._snapshots = callbacks.WeightSnapshots(training.network, scratch)
        self._checkpoint = callbacks.Checkpoint(training.network, self.ranking, self._snapshots, scratch, self._config)
        self._budget = callbacks.Budget(self.ranking.history, training.total_steps, self._config.minutes)
        self._evaluate = callbacks.Evaluate(self._evaluation, self.ranking, self._snapshots, self._config)
        self.restore()

    def restore(self) -> None:
        """Restores the last checkpoint, if there is one."""
        self._start = self._checkpoint.restore()
        if not self._budget.is_exhausted(self._start):
            history = self.ranking.history
            history.evaluations = history.for_more_steps(self._config.checkpoint_steps).evaluations

    def is_over(self) -> bool:
        """Returns whether training has ended: by its steps, its time or early stopping."""
        return self._budget.is_exhausted(self._start) or self._evaluate.should_stop_early()

    def train(
        self,
        observers: Sequence[keras.callbacks.Callback] = (),
        followers: Sequence[keras.callbacks.Callback] = (),
    ) -> None:
        """Trains to the end.

        Args:
            observers: callbacks that run after each evaluation, before the checkpoint is saved.
            followers: callbacks that run once it is decided whether training continues after a step, before its
                checkpoint is saved. If one raises an exception, it is not saved.
        Raises:
            UserError: the loss is NaN or diverges.
            KeyboardInterrupt: after Ctrl-C, once a checkpoint is saved.
        """
        data, network, total_steps, _ = self._training
        config, history, start = self._config, self.ranking.history, self._start
        if start:
            origin = (
                f"continues from step {start} of {self._continued}" if self._continued else f"resumes from step {start}"
            )
            note(f"Trainer {origin}")
        guard = callbacks.DivergenceGuard(history, config, total_steps, data.spec.num_choices)
        log = TensorBoardLog(self._scratch, guard, self._evaluate, data.recipe)
        profile, estimate = Profile(self._scratch, config.profile_step), callbacks.TimeEstimate(total_steps, config)
        with interrupt.put_off(), progress("Trainer", int(total_steps), "steps", start) as reporter:
            bar = callbacks.ProgressBar(reporter, self.ranking, total_steps)
            decided = [self._budget, guard, self._evaluate, *observers, *followers]
            order = [*decided, log, profile, self._checkpoint, estimate, bar]
            batches = shared_batches(data.train_batches(start), network.distribute_strategy)
            network.fit(batches, callbacks=order, verbose=0)

    def finish(self) -> dict[str, Any]:
        """Sets the weights to export, and returns the results; see `fit`."""
        network, config, history = self._training.network, self._config, self.ranking.history
        if not history.evaluations:  # training.steps=0: the model that training would start from
            os.makedirs(f"{self._scratch}/logs", exist_ok=True)
            self._evaluate.evaluate(0)
            self._checkpoint.save(0)
        exported = self.ranking.exported(config)
        self._snapshots.restore_mean(exported)
        self._evaluation.prepare()
        metrics = self._evaluation.run().metrics if len(exported) > 1 else self.ranking.at(exported[0])
        callbacks.check_finite(metrics["loss"], network.optimizer)
        choice = {**self.ranking.last_and_best(), "export": config.export}
        results = {"steps": callbacks.steps_done(network.optimizer), "exported_steps": exported, "checkpoints": choice}
        note(f"Trainer: {describe_choice(results)}")
        return {**results, **{f"eval_{name}": value for name, value in metrics.items()}}


def fit(
    training: Training,
    scratch: str,
    continued: str = "",
    observer: Callable[[CheckpointRanking], keras.callbacks.Callback] | None = None,
    elsewhere: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Trains, from the last checkpoint if there is one, and sets the weights to export.

    Args:
        training, scratch, continued: see TrainingSession.
        observer: (ranking with the evaluations so far) -> a callback that runs after each evaluation, before the
            checkpoint is saved.
        elsewhere: trains in other processes, which leave the last checkpoint in `scratch`; None to train in this one.
    Returns:
        `steps`: number of training steps; `exported_steps`: the checkpoints whose mean is exported; `checkpoints`: see
        CheckpointRanking.last_and_best; `eval_<metric>` of the exported weights.
    """
    session = TrainingSession(training, scratch, continued)
    if not session.is_over() and elsewhere:
        elsewhere()
        session.restore()
        assert session.is_over(), "the other processes have left no checkpoint of the last step"
    elif not session.is_over():
        session.train([observer(session.ranking)] if observer else [])
    return session.finish()
