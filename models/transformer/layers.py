"""The basic layers, named as in "Attention Is All You Need" (Vaswani et al. 2017).

Axes in all of models/: B batch, S source or key positions, T target or query positions, D d_model, H heads, d = D / H,
V vocabulary. `keras.utils.set_random_seed` seeds all random draws.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf


@contextlib.contextmanager
def dtype_policy(policy: Any) -> Iterator[None]:
    """Sets Keras's dtype policy for the layers that are built inside the `with` block.

    It is global because a layer does not pass its own policy to the layers inside it.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def linear(x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor | None = None) -> tf.Tensor:
    """Multiplies the last axis by a matrix, as one flat matrix product.

    A product of a rank-3 tensor and a matrix would broadcast the matrix, and its gradient would be a sum over copies.
    Weights are cast to the dtype of x, so that mixed precision also works outside of a layer's `call`.

    Args:
        x: float [..., D_in].
        kernel: float [D_in, D_out].
        bias: float [D_out] or None.
    Returns:
        float [..., D_out].
    """
    kernel = tf.cast(tf.convert_to_tensor(kernel), x.dtype)
    y = tf.matmul(x if x.shape.rank == 2 else tf.reshape(x, [-1, kernel.shape[0]]), kernel)  # [N, D_out]
    if bias is not None:
        y = tf.nn.bias_add(y, tf.cast(tf.convert_to_tensor(bias), x.dtype))
    return y if x.shape.rank == 2 else tf.reshape(y, tf.concat([tf.shape(x)[:-1], [kernel.shape[1]]], 0))


def sinusoids(positions: tf.Tensor, d_model: int, layout: str = "interleaved") -> tf.Tensor:
    """Computes the positional encoding of section 3.5.

    Args:
        positions: int [...].
        d_model: D, even.
        layout: interleaved, sine on even channels and cosine on odd ones; halves, sines and then cosines; or
            tensor2tensor, the same with a slowest wavelength of 2 pi times 10,000 (`get_timing_signal_1d` of that
            library, also Marian's).
    Returns:
        float32 [..., D].
    """
    half = d_model // 2
    steps = max(1, half - 1) if layout == "tensor2tensor" else half  # until the wavelength is 2 pi times 10,000
    frequency = tf.constant(10000.0 ** (-np.arange(half) / steps), tf.float32)  # [D/2]
    angle = tf.cast(positions, tf.float32)[..., tf.newaxis] * frequency  # [..., D/2]
    if layout != "interleaved":
        return tf.concat([tf.sin(angle), tf.cos(angle)], -1)
    pairs = tf.stack([tf.sin(angle), tf.cos(angle)], axis=-1)  # [..., D/2, 2]
    return tf.reshape(pairs, tf.concat([tf.shape(positions), [d_model]], 0))


@keras.saving.register_keras_serializable("seq2serve")
class Dropout(keras.layers.Layer):
    """Dropout (section 5.4) that draws 16 random bits per value instead of a float: five times faster on a CPU.

    Args:
        rate: share of values set to zero, in steps of 1/65536. The other values are scaled by 1 / (1 - rate).
    """

    def __init__(self, rate: float, **kwargs: Any):
        super().__init__(**kwargs)
        self.rate = rate
        self.seed_generator = keras.random.SeedGenerator() if rate else None
        self.built = True

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Float of any shape -> the same shape."""
        if not training or self.seed_generator is None:
            return x
        size = tf.size(x)
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group  # replicas drop different values
        seed = tf.cast(self.seed_generator.next(), tf.int32) + tf.stack([replica, 0])
        bits = tf.random.stateless_uniform([(size + 1) // 2], seed, None, None, tf.int32)  # two draws per int32
        draw = tf.reshape(tf.reshape(tf.bitcast(bits, tf.uint16), [-1])[:size], tf.shape(x))
        threshold = round(self.rate * 65536)
        return x * (tf.cast(draw >= threshold, x.dtype) * (65536 / (65536 - threshold)))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments for `from_config`."""
        return {**super().get_config(), "rate": self.rate}


def normalise(x: tf.Tensor, epsilon: float, centre: bool) -> tf.Tensor:
    """Divides by the root mean square of the last axis, after subtracting its mean if `centre`: float [..., D]."""
    centred = x - tf.reduce_mean(x, -1, keepdims=True) if centre else x
    return centred * tf.math.rsqrt(tf.reduce_mean(tf.square(centred), -1, keepdims=True) + epsilon)


def normalise_with_gradient(x: tf.Tensor, epsilon: float, centre: bool) -> tf.Tensor:
    """Computes `normalise` for training: automatic differentiation would pass over memory twice as often."""

    @tf.custom_gradient
    def with_gradient(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        centred = x - tf.reduce_mean(x, -1, keepdims=True) if centre else x
        inverse = tf.math.rsqrt(tf.reduce_mean(tf.square(centred), -1, keepdims=True) + epsilon)  # [..., 1]
        normal = centred * inverse

        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            centred = upstream - tf.reduce_mean(upstream, -1, keepdims=True) if centre else upstream
            return (centred - normal * tf.reduce_mean(upstream * normal, -1, keepdims=True)) * inverse

        return normal, gradient

    return with_gradient(x)


@keras.saving.register_keras_serializable("seq2serve")
class LayerNormalization(keras.layers.Layer):
    """Layer normalisation (Ba et al. 2016) or RMS normalisation (Zhang and Sennrich 2019), computed in float32.

    Args:
        epsilon: is added to the variance.
        kind: layer; or rms, which does not subtract the mean and has no shift.
        affine: whether to scale and shift the result; see decoding/fold.py.
    """

    def __init__(self, epsilon: float = 1e-6, kind: str = "layer", affine: bool = True, **kwargs: Any):
        super().__init__(**kwargs)
        self.epsilon, self.kind, self.affine = epsilon, kind, affine
        self.gamma = self.beta = None

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates gamma and, unless the kind is rms, beta: float32 [D]."""
        shape, options = (input_shape[-1],), {"dtype": "float32", "autocast": False}
        if self.affine:
            self.gamma = self.add_weight(shape=shape, initializer="ones", name="gamma", **options)
        if self.affine and self.kind == "layer":
            self.beta = self.add_weight(shape=shape, initializer="zeros", name="beta", **options)

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Float [..., D] -> [..., D]."""
        compute = normalise_with_gradient if training else normalise
        y = compute(tf.cast(x, tf.float32), self.epsilon, self.kind == "layer")
        y = y if self.gamma is None else y * tf.convert_to_tensor(self.gamma)
        return tf.cast(y if self.beta is None else y + tf.convert_to_tensor(self.beta), x.dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments for `from_config`."""
        return {**super().get_config(), "epsilon": self.epsilon, "kind": self.kind, "affine": self.affine}


# Activation of the hidden layer; swiglu multiplies the first half of its inputs, activated, by the second half.
ACTIVATIONS: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "relu": tf.nn.relu,
    "gelu": tf.nn.gelu,
    "gelu_tanh": functools.partial(tf.nn.gelu, approximate=True),
    "silu": tf.nn.silu,
    "swiglu": tf.nn.silu,
}


@keras.saving.register_keras_serializable("seq2serve")
class FeedForward(keras.layers.Layer):
    """Position-wise feed-forward network (section 3.3, equation 2): max(0, x W1 + b1) W2 + b2.

    Args:
        d_model: D, the width of input and output.
        dff: F, the hidden width.
        activation: relu as in the paper, gelu (Hendrycks and Gimpel 2016) or its approximation gelu_tanh, silu
            (Elfwing et al. 2018), or swiglu (Shazeer 2020), which has a third matrix as its gate.
        dropout: dropout rate on the hidden activations.
        use_bias: whether to add b1 and b2.
    """

    def __init__(
        self,
        d_model: int,
        dff: int,
        activation: str = "relu",
        dropout: float = 0.0,
        use_bias: bool = True,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, not {activation!r}")
        self.d_model, self.dff, self.activation, self.use_bias = d_model, dff, activation, use_bias
        self.bias_1 = self.bias_2 = None
        self.dropout = Dropout(dropout)

    def build(self, *_shapes: Any) -> None:
        """Creates W1, for swiglu with the gate next to it, and W2."""
        hidden = self.dff * (2 if self.activation == "swiglu" else 1)
        limit = (6 / (self.d_model + self.dff)) ** 0.5  # Glorot's for one D x F matrix

        def uniform() -> keras.initializers.Initializer:
            return keras.initializers.RandomUniform(-limit, limit)

        self.kernel_1 = self.add_weight(shape=(self.d_model, hidden), initializer=uniform(), name="kernel_1")
        if self.use_bias:
            self.bias_1 = self.add_weight(shape=(hidden,), initializer="zeros", name="bias_1")
        self.kernel_2 = self.add_weight(shape=(self.dff, self.d_model), initializer=uniform(), name="kernel_2")
        if self.use_bias:
            self.bias_2 = self.add_weight(shape=(self.d_model,), initializer="zeros", name="bias_2")

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Float [..., D] -> [..., D]."""
        hidden, activate = linear(x, self.kernel_1, self.bias_1), ACTIVATIONS[self.activation]  # [..., F or 2 F]
        if self.activation == "swiglu":
            gate, value = tf.split(hidden, 2, axis=-1)
            hidden = activate(gate) * value  # [..., F]
        else:
            hidden = activate(hidden)
        return linear(self.dropout(hidden, training=training), self.kernel_2, self.bias_2)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments for `from_config`."""
        own = {"d_model": self.d_model, "dff": self.dff, "activation": self.activation, "use_bias": self.use_bias}
        return {**super().get_config(), **own, "dropout": self.dropout.rate}


@tf.custom_gradient
def lookup(matrix: tf.Tensor, ids: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, None]]]:
    """Looks up rows of a matrix.

    The gradient is dense, summed over rows that are looked up more than once. TensorFlow's own gradient is a list of
    slices, and Keras computes the norm and the squares of each slice as if no row occurred twice.

    Args:
        matrix: float [V, D].
        ids: int [...].
    Returns:
        float [..., D] and its gradient function.
    """

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, None]:
        slices = tf.reshape(upstream, [-1, matrix.shape[1]])  # [N, D]
        return tf.math.unsorted_segment_sum(slices, tf.reshape(ids, [-1]), matrix.shape[0]), None

    return tf.gather(matrix, ids), gradient


@keras.saving.register_keras_serializable("seq2serve")
class TokenEmbedding(keras.layers.Layer):
    """Token embedding that is also the output projection (section 3.4; Press and Wolf 2017).

    Initialised with N(0, 1/D). The factor sqrt(D) scales embeddings to order one, while the logits of the tied output
    start small. With N(0, 1) the softmax would be so peaked that gradients become denormal.

    Args:
        vocab_size: V.
        d_model: D.
        scale: factor of the embeddings; None for sqrt(D).
        output_bias: whether to add a bias [V] to the logits.
    """

    def __init__(
        self, vocab_size: int, d_model: int, scale: float | None = None, output_bias: bool = False, **kwargs: Any
    ):
        super().__init__(**kwargs)
        self.vocab_size, self.d_model = vocab_size, d_model
        self.scale = d_model**0.5 if scale is None else scale
        self.output_bias, self.bias = output_bias, None

    def build(self, *_shapes: Any) -> None:
        """Creates the matrix [V, D]."""
        normal = keras.initializers.RandomNormal(stddev=self.d_model**-0.5)
        self.matrix = self.add_weight(shape=(self.vocab_size, self.d_model), initializer=normal, name="matrix")
        if self.output_bias:
            self.bias = self.add_weight(shape=(self.vocab_size,), initializer="zeros", name="bias")

    def call(self, ids: tf.Tensor) -> tf.Tensor:
        """Int [B, T] -> float [B, T, D]."""
        return lookup(tf.convert_to_tensor(self.matrix), ids) * self.scale

    def logits(self, x: tf.Tensor) -> tf.Tensor:
        """Float [..., D] -> [..., V]."""
        matrix = tf.cast(tf.convert_to_tensor(self.matrix), x.dtype)
        flat = tf.matmul(tf.reshape(x, [-1, self.d_model]), matrix, transpose_b=True)  # [N, V]
        if self.bias is not None:
            flat = tf.nn.bias_add(flat, tf.cast(tf.convert_to_tensor(self.bias), x.dtype))
        return tf.reshape(flat, tf.concat([tf.shape(x)[:-1], [self.vocab_size]], 0))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments for `from_config`."""
        own = {"vocab_size": self.vocab_size, "d_model": self.d_model, "scale": self.scale}
        return {**super().get_config(), **own, "output_bias": self.output_bias}


@keras.saving.register_keras_serializable("seq2serve")
class PositionalEncoding(keras.layers.Layer):
    """Adds positional encodings to embeddings (section 3.5).

    Args:
        kind: "sinusoidal"; "learned", one vector per position; or "rotary", which adds nothing here because attention
            rotates queries and keys instead.
        d_model: D.
        max_positions: number of learned positions; later positions share the last one.
        layout: of sinusoids, see `sinusoids`.
    """

    def __init__(self, kind: str, d_model: int, max_positions: int, layout: str = "interleaved", **kwargs: Any):
        super().__init__(**kwargs)
        if kind not in ("sinusoidal", "learned", "rotary"):
            raise ValueError(f"positions must be sinusoidal, learned or rotary, not {kind!r}")
        self.kind, self.d_model, self.max_positions, self.layout = kind, d_model, max_positions, layout

    def build(self, *_shapes: Any) -> None:
        """Creates the table [max_positions, D] of learned positions."""
        if self.kind == "learned":
            shape = (self.max_positions, self.d_model)
            normal = keras.initializers.RandomNormal(stddev=0.02)
            self.table = self.add_weight(shape=shape, initializer=normal, name="table")

    def call(self, x: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
        """Adds the encoding.

        Args:
            x: float [B, T, D].
            positions: int [T], or [B, T] if they differ between rows.
        Returns:
            float [B, T, D].
        """
        if self.kind == "rotary":
            return x
        if self.kind == "learned":
            positions = tf.minimum(positions, self.max_positions - 1)
            return x + lookup(tf.convert_to_tensor(self.table), positions)
        return x + tf.cast(sinusoids(positions, self.d_model, self.layout), x.dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments for `from_config`."""
        own = {"kind": self.kind, "d_model": self.d_model, "max_positions": self.max_positions, "layout": self.layout}
        return {**super().get_config(), **own}
