"""Attention: masks, scaled dot products, multiple heads and rotary positions.

Masks are boolean, True where a query may attend to a key, and broadcast to [B, H, T, S].
"""

from typing import Any

import keras
import tensorflow as tf

from seq2serve.models.transformer.layers import Dropout, linear


def padding_mask(ids: tf.Tensor, pad_id: int = 0) -> tf.Tensor:
    """Hides padding from all queries: int [B, S] -> bool [B, 1, 1, S]."""
    return tf.not_equal(ids, pad_id)[:, tf.newaxis, tf.newaxis, :]


def causal_mask(length: tf.Tensor | int) -> tf.Tensor:
    """Hides future positions (section 3.2.3): query t attends to keys 0 to t. Returns bool [1, 1, T, T]."""
    position = tf.range(length)
    return (position[:, tf.newaxis] >= position[tf.newaxis, :])[tf.newaxis, tf.newaxis]


def document_mask(ids: tf.Tensor, bos_id: int = 2) -> tf.Tensor:
    """Hides the other documents in a row of packed text: int [B, T] -> bool [B, 1, T, T].

    A document starts at each begin marker.
    """
    document = tf.cumsum(tf.cast(ids == bos_id, tf.int32), axis=1)  # [B, T], number of the document
    return tf.equal(document[:, tf.newaxis, :, tf.newaxis], document[:, tf.newaxis, tf.newaxis, :])


def mask_bias(mask: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Converts a mask to a bias for attention scores: 0 where visible, a large negative number where hidden.

    The number is finite, so that a fully masked row has a uniform softmax instead of NaN. It is half of the dtype's
    minimum, so that adding a score does not overflow in float16.
    """
    return tf.where(mask, tf.zeros([], dtype), tf.constant(dtype.min / 2, dtype))


def attention_weights(query: tf.Tensor, key: tf.Tensor, mask: tf.Tensor | None) -> tf.Tensor:
    """Computes softmax(Q K^T / sqrt(d)) (section 3.2.1, equation 1).

    Args:
        query: float [B, H, T, d].
        key: float [B, H, S, d].
        mask: bool, broadcasts to [B, H, T, S]; None hides nothing.
    Returns:
        float [B, H, T, S]; sums to one over S.
    """
    scores = tf.matmul(query * query.shape[-1] ** -0.5, key, transpose_b=True)  # [B, H, T, S]
    if mask is not None:
        scores += mask_bias(mask, scores.dtype)
    return tf.nn.softmax(scores)


def rotate(x: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
    """Rotates pairs of channels by an angle that grows with the position (RoFormer, Su et al. 2021, equation 34).

    The dot product of a rotated query and a rotated key depends only on the distance between their positions.

    Args:
        x: float [B, H, T, d], d even. Channel i is paired with channel i + d/2.
        positions: int [T], or [B, 1, T] if they differ between rows.
    Returns:
        float [B, H, T, d].
    """
    half = x.shape[-1] // 2
    frequency = tf.pow(10000.0, -tf.range(half, dtype=tf.float32) / half)  # [d/2]
    angle = tf.cast(positions, tf.float32)[..., tf.newaxis] * frequency  # [T, d/2] or [B, 1, T, d/2]
    sin, cos = tf.cast(tf.sin(angle), x.dtype), tf.cast(tf.cos(angle), x.dtype)
    first, second = tf.split(x, 2, axis=-1)  # [B, H, T, d/2]
    return tf.concat([first * cos - second * sin, second * cos + first * sin], axis=-1)


@keras.saving.register_keras_serializable("seq2serve")
class MultiHeadAttention(keras.layers.Layer):
    """Multi-head attention (section 3.2.2): H heads of d = D / H channels, each with its own projections.

    `in_kernel` [D, 3 D] contains the query, key and value projections side by side. Self-attention multiplies by the
    whole matrix at once; cross-attention by its first third (queries) and by the other two thirds (keys and values).

    Args:
        d_model: D, a multiple of num_heads.
        num_heads: H.
        dropout: dropout rate on the attention weights.
        rotary: whether to rotate queries and keys by their positions; self-attention only.
    """

    def __init__(self, d_model: int, num_heads: int, dropout: float = 0.0, rotary: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        if d_model % num_heads:
            raise ValueError(f"d_model ({d_model}) must be a multiple of num_heads ({num_heads})")
        self.d_model, self.num_heads, self.rotary = d_model, num_heads, rotary
        self.dropout = Dropout(dropout)

    def build(self, *_shapes: Any) -> None:
        """Creates the projections. Each D x D block has Glorot's scale, as three separate matrices would."""
        d_model = self.d_model
        uniform = keras.initializers.RandomUniform(-((3 / d_model) ** 0.5), (3 / d_model) ** 0.5)
        glorot = keras.initializers.GlorotUniform()
        self.in_kernel = self.add_weight(shape=(d_model, 3 * d_model), initializer=uniform, name="in_kernel")
        self.in_bias = self.add_weight(shape=(3 * d_model,), initializer="zeros", name="in_bias")
        self.out_kernel = self.add_weight(shape=(d_model, d_model), initializer=glorot, name="out_kernel")
        self.out_bias = self.add_weight(shape=(d_model,), initializer="zeros", name="out_bias")

    def call(
        self,
        query: tf.Tensor,
        memory: tf.Tensor | None = None,
        attention_mask: tf.Tensor | None = None,
        training: bool = False,
    ) -> tf.Tensor:
        """Attends from `query` to `memory`, or to `query` itself if there is no memory.

        Args:
            query: float [B, T, D].
            memory: float [B, S, D] or None.
            attention_mask: bool, broadcasts to [B, H, T, S]; None hides nothing.
            training: whether to apply dropout to the attention weights.
        Returns:
            float [B, T, D].
        """
        q, k, v = self.project(query, memory)
        weights = self.dropout(attention_weights(q, k, attention_mask), training=training)  # [B, H, T, S]
        return self.merge(tf.matmul(weights, v))

    def weights_of(
        self, query: tf.Tensor, memory: tf.Tensor | None = None, attention_mask: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Returns the attention weights that `call` uses, float [B, H, T, S]."""
        q, k, _ = self.project(query, memory)
        return attention_weights(q, k, attention_mask)

    def project(self, query: tf.Tensor, memory: tf.Tensor | None = None) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Projects to queries [B, H, T, d], keys [B, H, S, d] and values [B, H, S, d]."""
        if memory is not None:
            return self.project_query(query), *self.project_memory(memory)
        q, k, v = tf.unstack(self._heads(linear(query, self.in_kernel, self.in_bias), 3))
        if self.rotary:
            position = tf.range(tf.shape(query)[1])
            q, k = rotate(q, position), rotate(k, position)
        return q, k, v

    def project_query(self, query: tf.Tensor) -> tf.Tensor:
        """Projects queries for cross-attention: [B, T, D] -> [B, H, T, d]."""
        kernel, bias = self.in_kernel[:, : self.d_model], self.in_bias[: self.d_model]
        return self._heads(linear(query, kernel, bias), 1)[0]

    def project_memory(self, memory: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Projects to keys and values for cross-attention, once per sentence: [B, S, D] -> two of [B, H, S, d]."""
        kernel, bias = self.in_kernel[:, self.d_model :], self.in_bias[self.d_model :]
        keys, values = tf.unstack(self._heads(linear(memory, kernel, bias), 2))
        return keys, values

    def merge(self, heads: tf.Tensor) -> tf.Tensor:
        """Concatenates heads and applies the output projection: [B, H, T, d] -> [B, T, D]."""
        batch, length = tf.shape(heads)[0], tf.shape(heads)[2]
        joined = tf.reshape(tf.transpose(heads, [0, 2, 1, 3]), [batch, length, self.d_model])
        return linear(joined, self.out_kernel, self.out_bias)

    def _heads(self, x: tf.Tensor, parts: int) -> tf.Tensor:
        """Splits projections into heads: [B, T, parts * D] -> [parts, B, H, T, d]."""
        shape = tf.shape(x)
        split = tf.reshape(x, [shape[0], shape[1], parts, self.num_heads, self.d_model // self.num_heads])
        return tf.transpose(split, [2, 0, 3, 1, 4])

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments for `from_config`."""
        own = {"d_model": self.d_model, "num_heads": self.num_heads, "dropout": self.dropout.rate}
        return {**super().get_config(), **own, "rotary": self.rotary}
