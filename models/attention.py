"""Attention: masks, scaled dot products, several heads, rotary positions.

Comes in: vectors [B, T, D] and boolean masks. Goes out: vectors [B, T, D], or the attention weights themselves.
Read next: blocks.py, where attention meets its residual connection; decoding.py for one query at a time.

A `*_mask` is True where a position may be seen and broadcasts to [B, H, T, S].
"""

import keras
import tensorflow as tf

from models.layers import Dropout, linear


def padding_mask(ids: tf.Tensor, pad_id: int = 0) -> tf.Tensor:
    """Hides padding from every query: int [B, S] -> bool [B, 1, 1, S]."""
    return tf.not_equal(ids, pad_id)[:, tf.newaxis, tf.newaxis, :]


def causal_mask(length: tf.Tensor | int) -> tf.Tensor:
    """Hides the future (section 3.2.3): position t sees positions 0 to t. Returns bool [1, 1, T, T]."""
    position = tf.range(length)
    return (position[:, tf.newaxis] >= position[tf.newaxis, :])[tf.newaxis, tf.newaxis]


def document_mask(ids: tf.Tensor, bos_id: int = 2) -> tf.Tensor:
    """Hides other documents of a packed row, each of which begins with a begin marker: int [B, T] -> [B, 1, T, T]."""
    document = tf.cumsum(tf.cast(ids == bos_id, tf.int32), axis=1)
    return tf.equal(document[:, tf.newaxis, :, tf.newaxis], document[:, tf.newaxis, tf.newaxis, :])


def mask_bias(mask: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Turns a boolean mask into what is added to attention scores: 0 where seen, very negative where hidden.

    The number is finite, so a row with everything hidden gets an even softmax and no NaN; it is half the dtype's
    smallest, so adding a score cannot overflow to infinity in float16.
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
    scores = tf.matmul(query * query.shape[-1] ** -0.5, key, transpose_b=True)
    if mask is not None:
        scores += mask_bias(mask, scores.dtype)
    return tf.nn.softmax(scores)


def rotate(x: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
    """Rotates pairs of channels by an angle that grows with the position (RoFormer, Su et al. 2021, equation 34).

    The product of a rotated query and a rotated key depends on the distance between their positions alone.

    Args:
        x: float [B, H, T, d], d even. Channel i is paired with channel i + d/2.
        positions: int [T], or [B, 1, T] where rows differ.
    Returns:
        float [B, H, T, d].
    """
    half = x.shape[-1] // 2
    frequency = tf.pow(10000.0, -tf.range(half, dtype=tf.float32) / half)
    angle = tf.cast(positions, tf.float32)[..., tf.newaxis] * frequency  # [T, d/2]
    sin, cos = tf.cast(tf.sin(angle), x.dtype), tf.cast(tf.cos(angle), x.dtype)
    first, second = tf.split(x, 2, axis=-1)
    return tf.concat([first * cos - second * sin, second * cos + first * sin], axis=-1)


@keras.saving.register_keras_serializable("seq2serve")
class MultiHeadAttention(keras.layers.Layer):
    """Multi-head attention (section 3.2.2): H heads of d = D / H channels, each with its own projections.

    `in_kernel` [D, 3 D] holds the query, key and value projections side by side: self-attention multiplies by all of it
    at once, cross-attention by its first third and its last two.

    Args:
        d_model: D, a multiple of num_heads.
        num_heads: H.
        dropout: rate on the attention weights.
        rotary: rotate queries and keys by their positions; self-attention only.
    """

    def __init__(self, d_model: int, num_heads: int, dropout: float = 0.0, rotary: bool = False, **kwargs):
        super().__init__(**kwargs)
        if d_model % num_heads:
            raise ValueError(f"d_model ({d_model}) must be a multiple of num_heads ({num_heads})")
        self.d_model, self.num_heads, self.rotary = d_model, num_heads, rotary
        self.dropout = Dropout(dropout)

    def build(self, *_shapes) -> None:
        """Makes the projections; the scale is Glorot's for each D x D block, so fusing does not change it."""
        d_model = self.d_model
        uniform = keras.initializers.RandomUniform(-((3 / d_model) ** 0.5), (3 / d_model) ** 0.5)
        glorot = keras.initializers.GlorotUniform()
        self.in_kernel = self.add_weight(shape=(d_model, 3 * d_model), initializer=uniform, name="in_kernel")
        self.in_bias = self.add_weight(shape=(3 * d_model,), initializer="zeros", name="in_bias")
        self.out_kernel = self.add_weight(shape=(d_model, d_model), initializer=glorot, name="out_kernel")
        self.out_bias = self.add_weight(shape=(d_model,), initializer="zeros", name="out_bias")

    def call(self, query, memory=None, attention_mask=None, training=False) -> tf.Tensor:
        """Attends from `query` to `memory`, or to itself where that is None.

        Args:
            query: float [B, T, D].
            memory: float [B, S, D] or None.
            attention_mask: bool, broadcasts to [B, H, T, S]; None hides nothing.
            training: whether to drop attention weights.
        Returns:
            float [B, T, D].
        """
        q, k, v = self.project(query, memory)
        weights = self.dropout(attention_weights(q, k, attention_mask), training=training)
        return self.merge(tf.matmul(weights, v))

    def weights_of(self, query, memory=None, attention_mask=None) -> tf.Tensor:
        """Returns the attention weights that `call` uses, float [B, H, T, S]."""
        q, k, _ = self.project(query, memory)
        return attention_weights(q, k, attention_mask)

    def project(self, query, memory=None) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Projects to queries [B, H, T, d], keys and values [B, H, S, d]."""
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
        """Projects keys and values for cross-attention, once a sentence: [B, S, D] -> two of [B, H, S, d]."""
        kernel, bias = self.in_kernel[:, self.d_model :], self.in_bias[self.d_model :]
        return tuple(tf.unstack(self._heads(linear(memory, kernel, bias), 2)))

    def merge(self, heads: tf.Tensor) -> tf.Tensor:
        """Concatenates heads and projects: [B, H, T, d] -> [B, T, D]."""
        batch, length = tf.shape(heads)[0], tf.shape(heads)[2]
        joined = tf.reshape(tf.transpose(heads, [0, 2, 1, 3]), [batch, length, self.d_model])
        return linear(joined, self.out_kernel, self.out_bias)

    def _heads(self, x: tf.Tensor, parts: int) -> tf.Tensor:
        """[B, T, parts * D] -> [parts, B, H, T, d]."""
        shape = tf.shape(x)
        split = tf.reshape(x, [shape[0], shape[1], parts, self.num_heads, self.d_model // self.num_heads])
        return tf.transpose(split, [2, 0, 3, 1, 4])

    def get_config(self) -> dict:
        """Returns what `from_config` needs."""
        own = {"d_model": self.d_model, "num_heads": self.num_heads, "dropout": self.dropout.rate}
        return {**super().get_config(), **own, "rotary": self.rotary}
