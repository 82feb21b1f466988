"""What happens beside training: checkpoints, TensorBoard, the progress bar, the watch for NaN.

Comes in: Keras's calls after each step. Goes out: files under the scratch folder, and progress.
Read next: trainer.py, which uses them.
"""

import keras
import numpy as np
import tensorflow as tf

from components.errors import UserError
from components.progress import Reporter

LOG_STEPS = 20  # steps between two points of a training curve


class Checkpoint(keras.callbacks.Callback):
    """Saves all that decides the rest of the run, so that a killed run goes on as if nothing had happened.

    Weights, optimizer (its step count among them), averaged weights and the states of the random generators.
    TensorFlow's checkpoint is written under another name and then named in one rename.

    Args:
        model: built and compiled, its optimizer built.
        folder: where to.
        every: steps between two checkpoints.
    """

    def __init__(self, model: keras.Model, folder: str, every: int):
        super().__init__()
        self._every, self._optimizer = every, model.optimizer
        # The variables one by one: a checkpoint of the model itself has no states of random generators.
        state = [variable.value for variable in (*model.variables, *model.optimizer.variables)]
        self._checkpoint = tf.train.Checkpoint(state=state)
        self._manager = tf.train.CheckpointManager(self._checkpoint, f"{folder}/checkpoints", max_to_keep=2)

    def restore(self) -> int:
        """Restores the last checkpoint; returns how many steps were done by then, 0 where there is none."""
        if self._manager.latest_checkpoint:
            self._checkpoint.restore(self._manager.latest_checkpoint).assert_consumed()
        return int(self._optimizer.iterations)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Saves after every `every`th step of the whole training."""
        step = int(self._optimizer.iterations)
        if step % self._every == 0:
            self._manager.save(checkpoint_number=step)

    def on_train_end(self, logs: dict | None = None) -> None:
        """Saves the last step, so that a kill while exporting costs no training."""
        step = int(self._optimizer.iterations)
        if step % self._every:
            self._manager.save(checkpoint_number=step)


class StopAtNaN(keras.callbacks.Callback):
    """Stops a run whose loss is no longer a number."""

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Looks at the loss; raises UserError."""
        check_finite(logs["loss"], self.model.optimizer)


def check_finite(loss: float, optimizer: keras.optimizers.Optimizer) -> None:
    """Checks that training has not gone astray.

    Args:
        loss: of a step, or of the eval split after it.
        optimizer: knows the step and its learning rate.
    Raises:
        UserError: the loss is NaN or infinite.
    """
    if not np.isfinite(loss):
        step, rate = int(optimizer.iterations), float(optimizer.learning_rate)
        raise UserError(
            f"The loss is {loss} at step {step}, at learning rate {rate:.2g}. Try a smaller "
            "training.learning_rate, a longer training.warmup_steps or a smaller training.clip_norm."
        )


class ProgressBar(keras.callbacks.Callback):
    """Shows steps, their rate, the time left and the loss.

    Args:
        reporter: shows them.
        start: steps done before.
    """

    def __init__(self, reporter: Reporter, start: int):
        super().__init__()
        self._reporter, self._start = reporter, start

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Moves the bar."""
        self._reporter.update(self._start + batch + 1, f"loss {logs['loss']:.3f}")


class TensorBoardLog(keras.callbacks.Callback):
    """Writes the curves of training and evaluation (TensorBoard's tags as Keras names them).

    The events between two checkpoints have a file of their own, named by the step it begins at: those a killed run
    wrote after its last checkpoint are removed with their file, for the steps will be taken again. It must come before
    Checkpoint, so that a checkpoint never knows of a step that the log does not.

    Args:
        folder: `logs/train` and `logs/validation` are made in it.
        evaluation: computes loss and accuracy on the eval split.
        every: steps between two evaluations, and between two checkpoints.
    """

    def __init__(self, folder: str, evaluation: "Evaluation", every: int):
        super().__init__()
        self._logs, self._evaluation, self._every = f"{folder}/logs", evaluation, every

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Removes what is about to be written again, and opens the files."""
        step = int(self.model.optimizer.iterations)
        for path in tf.io.gfile.glob(f"{self._logs}/*/*.from-*"):
            if int(path.rpartition("-")[2]) >= step:
                tf.io.gfile.remove(path)
        self._open(step)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Writes the mean loss and accuracy since the last point, the learning rate, now and then the eval split's."""
        step = int(self.model.optimizer.iterations)
        at_checkpoint = step % self._every == 0
        if at_checkpoint or step % LOG_STEPS == 0:
            rate = self.model.optimizer.learning_rate
            _write_scalars(self._train, step, {**logs, "learning_rate": rate})
            self.model.reset_metrics()
        if at_checkpoint:
            _write_scalars(self._validation, step, self._evaluation.run())
            self._close()
            self._open(step)

    def on_train_end(self, logs: dict | None = None) -> None:
        """Closes the files."""
        self._close()

    def _open(self, step: int) -> None:
        self._train, self._validation = (
            tf.summary.create_file_writer(f"{self._logs}/{name}", filename_suffix=f".from-{step}")
            for name in ("train", "validation")
        )

    def _close(self) -> None:
        self._train.close()
        self._validation.close()


def _write_scalars(writer: tf.summary.SummaryWriter, step: int, values: dict) -> None:
    with writer.as_default(step):
        for name, value in values.items():
            tf.summary.scalar(name, value)


class Evaluation:
    """Computes the mean loss and accuracy of a model's answers, weighted as the loss weights its labels.

    Args:
        model: compiled with a models.training.MaskedCrossEntropy.
        batches: (inputs, labels) each.
    """

    def __init__(self, model: keras.Model, batches: tuple):
        self._model, self._batches = model, batches

    def run(self) -> dict[str, float]:
        """Returns `loss` in nats a label (each of a text's tokens is one), label smoothing included, and `accuracy`."""
        sums = [self._sums(inputs, labels).numpy() for inputs, labels in self._batches]
        loss, weight, right, number = np.sum(sums, axis=0)
        return {"loss": float(loss / weight), "accuracy": float(right / number)}

    @tf.function(reduce_retracing=True)
    def _sums(self, inputs: tf.Tensor | dict[str, tf.Tensor], labels: tf.Tensor) -> tf.Tensor:
        logits, loss = self._model(inputs, training=False), self._model.loss
        counted = labels != loss.pad_id
        right = (tf.argmax(logits, -1, output_type=labels.dtype) == labels) & counted
        weight = tf.reduce_sum(loss.weights(labels))
        numbers = [tf.math.count_nonzero(which, dtype=tf.float32) for which in (right, counted)]
        return tf.stack([loss(labels, logits) * weight, weight, *numbers])
