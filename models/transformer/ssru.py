"""SSRU: a recurrent layer that replaces the self-attention of a decoder.

Its state is one vector per sequence, so a step of decoding costs the same however many tokens came before.
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from seq2serve.models.transformer.layers import linear


def recurrence(decay: tf.Tensor, inputs: tf.Tensor) -> tf.Tensor:
    """Computes c_t = decay_t c_{t-1} + inputs_t, with c_{-1} = 0.

    The gradient is the same recurrence from the last position to the first, so no state but c is stored. One step after
    another is up to three times as fast on a CPU as a parallel scan, which computes log T times as much.

    Args:
        decay, inputs: float32 [B, T, D].
    Returns:
        float32 [B, T, D].
    """

    @tf.custom_gradient
    def with_gradient(decay: tf.Tensor, inputs: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple]]:
        states = _scan(decay, inputs)

        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            later = tf.pad(decay[:, 1:], [[0, 0], [0, 1], [0, 0]])  # the factor of c_t in c_{t+1}
            to_inputs = _scan(later, upstream, reverse=True)
            return to_inputs * tf.pad(states[:, :-1], [[0, 0], [1, 0], [0, 0]]), to_inputs

        return states, gradient

    return with_gradient(decay, inputs)


def _scan(decay: tf.Tensor, inputs: tf.Tensor, reverse: bool = False) -> tf.Tensor:
    steps = (tf.transpose(decay, [1, 0, 2]), tf.transpose(inputs, [1, 0, 2]))  # [T, B, D]
    start = tf.zeros_like(decay[:, 0])
    return tf.transpose(
        tf.scan(lambda state, step: step[0] * state + step[1], steps, start, reverse=reverse), [1, 0, 2]
    )


@keras.saving.register_keras_serializable("seq2serve")
class SSRU(keras.layers.Layer):
    """Simpler simple recurrent unit (Kim et al. 2019, "From Research to Production and Back", section 3.1).

    f_t = sigmoid(x_t W_f + b_f), c_t = f_t c_{t-1} + (1 - f_t) (x_t W + b), output relu(c_t). The paper has no b; like
    all biases it starts at zero.

    Args:
        d_model: D, the width of input, output and state.
        use_bias: whether to add b and b_f.
        centre: whether to subtract the mean of the output; see decoding/fold.py.
    """

    def __init__(self, d_model: int, use_bias: bool = True, centre: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.d_model, self.use_bias, self.centre = d_model, use_bias, centre
        self.in_bias = None

    def build(self, *_shapes: Any) -> None:
        """Creates in_kernel [D, 2 D], W and W_f side by side, and in_bias [2 D]."""
        limit = (3 / self.d_model) ** 0.5  # Glorot's for one D x D matrix
        uniform = keras.initializers.RandomUniform(-limit, limit)
        self.in_kernel = self.add_weight(shape=(self.d_model, 2 * self.d_model), initializer=uniform, name="in_kernel")
        if self.use_bias:
            self.in_bias = self.add_weight(shape=(2 * self.d_model,), initializer="zeros", name="in_bias")

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Computes all positions at once, the states in float32: float [B, T, D] -> [B, T, D]."""
        forget, update = self._gates(x)
        states = recurrence(tf.cast(forget, tf.float32), tf.cast(update, tf.float32))
        return self._output(tf.cast(states, x.dtype))

    def step(self, x: tf.Tensor, state: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Computes the next token of each sequence: input and state, float [N, D] -> output and state, float [N, D]."""
        forget, update = self._gates(x)
        state = forget * state + update
        return self._output(state), state

    def _gates(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the factor of the earlier state, f, and what is added, (1 - f) (x W + b): float [..., D] each."""
        candidate, forget = tf.split(linear(x, self.in_kernel, self.in_bias), 2, axis=-1)
        forget = tf.sigmoid(forget)
        return forget, (1 - forget) * candidate

    def _output(self, state: tf.Tensor) -> tf.Tensor:
        y = tf.nn.relu(state)
        return y - tf.reduce_mean(y, -1, keepdims=True) if self.centre else y

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments for `from_config`."""
        return {**super().get_config(), "d_model": self.d_model, "use_bias": self.use_bias, "centre": self.centre}
