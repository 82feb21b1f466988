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
        checkpoint = tf.train.Checkpoint(model=model, optimizer=model.optimizer)
        self._manager = tf.train.CheckpointManager(checkpoint, f"{folder}/checkpoints", max_to_keep=2)

    def restore(self) -> int:
        """Restores the last checkpoint; returns how many steps were done by then, 0 where there is none."""
        self._manager.restore_or_initialize()
        return int(self._optimizer.iterations)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Saves after every `every`th step of the whole training."""
        step = int(self._optimizer.iterations)
        if step % self._every == 0:
            self._manager.save(checkpoint_number=step)

    def on_train_end(self, logs: dict | None = None) -> None:
        """Saves the last step, so that a kill while exporting costs no training."""
        self._manager.save(checkpoint_number=int(self._optimizer.iterations))


class StopAtNaN(keras.callbacks.Callback):
    """Stops a run whose loss is no longer a number."""

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Looks at the loss.

        Raises:
            UserError: it is NaN or infinite.
        """
        if not np.isfinite(logs["loss"]):
            optimizer = self.model.optimizer
            step, rate = int(optimizer.iterations), float(optimizer.learning_rate)
            raise UserError(
                f"The loss is {logs['loss']} at step {step}, at learning rate {rate:.2g}. Try a smaller "
                "training.learning_rate, a longer training.warmup_steps or a smaller training.clip_norm."
            )


class ProgressBar(keras.callbacks.Callback):
    """Shows steps, their rate, the time left and the loss.

    Args:
        steps: of the whole training.
        start: done before.
    """

    def __init__(self, steps: int, start: int):
        super().__init__()
        self._steps, self._start = steps, start

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Opens the bar."""
        self._reporter = Reporter("Trainer", self._steps, "steps", self._start)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Moves the bar."""
        self._reporter.update(self._start + batch + 1, f"loss {logs['loss']:.3f}")

    def on_train_end(self, logs: dict | None = None) -> None:
        """Closes the bar."""
        self._reporter.close()


class TensorBoardLog(keras.callbacks.Callback):
    """Writes the curves of training and evaluation (TensorBoard's tags as Keras names them).

    Args:
        folder: `logs/train` and `logs/validation` are made in it.
        eval_batches: (inputs, labels) of the eval split.
        every: steps between two evaluations.
    """

    def __init__(self, folder: str, eval_batches: tuple, every: int):
        super().__init__()
        self._eval_batches, self._every = eval_batches, every
        self._train = tf.summary.create_file_writer(f"{folder}/logs/train")
        self._validation = tf.summary.create_file_writer(f"{folder}/logs/validation")

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Writes the step's loss, accuracy and learning rate, and now and then the eval split's."""
        step = int(self.model.optimizer.iterations)
        if step % LOG_STEPS == 0:
            with self._train.as_default(step):
                tf.summary.scalar("loss", logs["loss"])
                tf.summary.scalar("accuracy", logs["accuracy"])
                tf.summary.scalar("learning_rate", self.model.optimizer.learning_rate)
            self.model.reset_metrics()  # so that a point of the curve is the mean since the last one
        if step % self._every == 0:
            loss, accuracy = evaluate(self.model, self._eval_batches)
            with self._validation.as_default(step):
                tf.summary.scalar("loss", loss)
                tf.summary.scalar("accuracy", accuracy)

    def on_train_end(self, logs: dict | None = None) -> None:
        """Flushes the files."""
        self._train.close()
        self._validation.close()


def evaluate(model: keras.Model, batches: tuple) -> tuple[float, float]:
    """Computes the mean loss and accuracy of a model's answers, weighted by tokens.

    Args:
        model: compiled.
        batches: (inputs, labels) each.
    Returns:
        Loss in nats a token, label smoothing included; accuracy, 0 to 1.
    """

    @tf.function(reduce_retracing=True)
    def sums(inputs, labels):
        logits = model(inputs, training=False)
        tokens = tf.math.count_nonzero(labels, dtype=tf.float32)
        right = (tf.argmax(logits, -1, output_type=labels.dtype) == labels) & (labels != 0)
        return tf.stack([model.loss(labels, logits) * tokens, tf.math.count_nonzero(right, dtype=tf.float32), tokens])

    loss, right, tokens = np.sum([sums(inputs, labels).numpy() for inputs, labels in batches], axis=0)
    return float(loss / tokens), float(right / tokens)
