"""Agreement between machines: all start from the chief's state, make the chief's decisions, and end with its weights.

The chief is the machine of the first replica. Only it reads and writes checkpoints, evaluates and looks at the clock.
While it does, the others wait for it in their next exchange.
"""

import zlib
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from seq2serve.components.base import interrupt
from seq2serve.components.base.errors import Seq2ServeError
from seq2serve.components.trainer.callbacks import at_checkpoint, steps_done


class Exchange:
    """Sends small numbers between the machines of a strategy. All must call the same methods in the same order.

    Args:
        strategy: of several machines.
    """

    def __init__(self, strategy: tf.distribute.MultiWorkerMirroredStrategy):
        self._strategy = strategy
        self._index = strategy.cluster_resolver.task_id
        self._number = len(strategy.cluster_resolver.cluster_spec().as_dict()["worker"])
        self._functions = {
            dtype: tf.function(self._sum, input_signature=[tf.TensorSpec([None], dtype)], autograph=False)
            for dtype in (tf.float32, tf.float64, tf.int64)
        }

    @property
    def is_chief(self) -> bool:
        """Returns whether this machine is the chief."""
        return self._index == 0

    def from_chief(self, values: np.ndarray) -> np.ndarray:
        """Returns the chief's values, float32, float64 or int64 [N], on every machine; those of the others are lost."""
        return self._add_up(values if self.is_chief else np.zeros_like(values))

    def from_all(self, value: int) -> list[int]:
        """Returns a number of every machine's, in their order."""
        values = np.zeros(self._number, np.int64)
        values[self._index] = value
        return self._add_up(values).tolist()

    def _add_up(self, values: np.ndarray) -> np.ndarray:
        """Returns the sum of the values of all machines."""
        return self._functions[tf.as_dtype(values.dtype)](tf.constant(values)).numpy()

    def _sum(self, values: tf.Tensor) -> tf.Tensor:
        local = self._strategy.num_replicas_in_sync // self._number

        def add() -> tf.Tensor:
            replica = tf.distribute.get_replica_context()
            is_first = replica.replica_id_in_sync_group % local == 0  # of this machine: only it contributes
            return replica.all_reduce("sum", tf.where(is_first, values, tf.zeros_like(values)))

        return self._strategy.experimental_local_results(self._strategy.run(add))[0]


def share_state(model: keras.Model, exchange: Exchange) -> None:
    """Sets all variables of a compiled model and of its optimizer to those of the chief, bit for bit."""
    for variable in (*model.variables, *model.optimizer.variables):
        values = np.asarray(variable.numpy())
        wire = values.astype(np.float32 if np.issubdtype(values.dtype, np.floating) else np.int64)
        variable.assign(exchange.from_chief(wire.reshape(-1)).astype(values.dtype).reshape(values.shape))


def check_weights(model: keras.Model, exchange: Exchange, names: Sequence[str]) -> None:
    """Checks that the weights of all machines are equal, bit for bit.

    Args:
        names: of the machines, for the message.
    Raises:
        Seq2ServeError: those of a machine differ from the chief's.
    """
    own = 0
    for variable in model.trainable_variables:
        own = zlib.crc32(variable.numpy().tobytes(), own)
    checksums = exchange.from_all(own)
    for name, checksum in zip(names, checksums, strict=True):
        if checksum != checksums[0]:
            raise Seq2ServeError(
                f"the weights of {name} differ from those of {names[0]} after step {steps_done(model.optimizer)}, so a "
                f"network, memory or processor error went unnoticed; run the same commands again on all machines to "
                f"resume from the last checkpoint",
                code="weights-differ",
                machine=name,
            )


class Agreement(keras.callbacks.Callback):
    """Makes every machine end training after the same step, and know the chief's estimate of the number of steps.

    It compares the weights of all machines whenever a checkpoint is due. On the chief, it runs before the checkpoint is
    saved.

    Args:
        exchange: between the machines.
        total_steps: number of steps; a variable if time is limited.
        checkpoint_steps: number of steps between two checkpoints.
        names: of the machines.
    """

    def __init__(self, exchange: Exchange, total_steps: int | tf.Variable, checkpoint_steps: int, names: Sequence[str]):
        super().__init__()
        self._exchange, self._total_steps = exchange, total_steps
        self._checkpoint_steps, self._names = checkpoint_steps, names

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Agrees on the estimate with which a resumed training begins."""
        self._agree()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Agrees on whether training continues after this step; raises Seq2ServeError if weights differ."""
        is_last = self._agree()
        if is_last or at_checkpoint(self.model, self._checkpoint_steps):
            check_weights(self.model, self._exchange, self._names)

    def _agree(self) -> bool:
        """Returns whether the chief ends training now, and takes over its estimate."""
        own = np.array([interrupt.pressed() or self.model.stop_training, float(self._total_steps)])
        is_last, total_steps = self._exchange.from_chief(own)
        if not self._exchange.is_chief:  # Ctrl-C ends the chief's training itself, once the step is saved
            self.model.stop_training = bool(is_last)
        if isinstance(self._total_steps, tf.Variable):
            self._total_steps.assign(total_steps)
        return bool(is_last)
