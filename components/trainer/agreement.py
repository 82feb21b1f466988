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

_CONTINUE, _END, _INTERRUPTED = 0.0, 1.0, 2.0


class Exchange:
    """Sends small numbers between the machines of a strategy. All must call the same methods in the same order.

    Args:
        strategy: of several machines.
    """

    def __init__(self, strategy: tf.distribute.MultiWorkerMirroredStrategy):
        self._strategy, self._size = strategy, strategy.num_replicas_in_sync
        self._functions = {
            dtype: tf.function(self._sum, input_signature=[tf.TensorSpec([None, None], dtype)], autograph=False)
            for dtype in (tf.float32, tf.float64, tf.int64)
        }

    @property
    def is_chief(self) -> bool:
        """Returns whether this machine is the chief."""
        return self._strategy.cluster_resolver.task_id == 0

    def from_chief(self, values: np.ndarray) -> np.ndarray:
        """Returns the chief's values, float32, float64 or int64 [N], on every machine; those of the others are lost."""
        rows = np.zeros((self._size, len(values)), values.dtype)
        rows[0] = values
        return self._add_up(rows)

    def from_all(self, value: int) -> list[int]:
        """Returns a number of every machine's, in their order."""
        per_replica = self._add_up(np.eye(self._size, dtype=np.int64) * value)
        local = len(self._strategy.extended.worker_devices)
        return [int(number) for number in per_replica[::local]]

    def _add_up(self, rows: np.ndarray) -> np.ndarray:
        """Returns the sum of each replica's own row: row i of replica i."""
        return self._functions[tf.as_dtype(rows.dtype)](tf.constant(rows)).numpy()

    def _sum(self, rows: tf.Tensor) -> tf.Tensor:
        def add() -> tf.Tensor:
            replica = tf.distribute.get_replica_context()
            return replica.all_reduce("sum", tf.gather(rows, replica.replica_id_in_sync_group))

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
                f"the weights of {name} differ from those of {names[0]} after the last step, so a network, memory or "
                f"processor error went unnoticed; run the same command again to train from the last checkpoint",
                code="weights-differ",
                machine=name,
            )


class Agreement(keras.callbacks.Callback):
    """Makes every machine end training after the same step, and know the chief's estimate of the number of steps.

    Args:
        exchange: between the machines.
        total_steps: number of steps; a variable if time is limited.
    """

    def __init__(self, exchange: Exchange, total_steps: int | tf.Variable):
        super().__init__()
        self._exchange, self._total_steps = exchange, total_steps
        self.was_interrupted = False

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Agrees on the estimate with which a resumed training begins."""
        self._agree()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Agrees on whether training goes on after this step."""
        self._agree()

    def _agree(self) -> None:
        own = _INTERRUPTED if interrupt.pressed() else _END if self.model.stop_training else _CONTINUE
        decision, total_steps = self._exchange.from_chief(np.array([own, float(self._total_steps)]))
        self.was_interrupted = decision == _INTERRUPTED
        if not self._exchange.is_chief:  # Ctrl-C ends the chief's training itself, once the step is saved
            self.model.stop_training = decision != _CONTINUE
        if isinstance(self._total_steps, tf.Variable):
            self._total_steps.assign(total_steps)
