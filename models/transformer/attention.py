"""Attention: masks, scaled dot products, multiple heads and rotary positions.

Masks are boolean, True where a query may attend to a key, and broadcast to [B, H, T, S].
"""

from typing import Any, NamedTuple

import keras
import tensorflow as tf

from seq2serve.models.transformer.cache import StepContext, attend, write_slice
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


def attention_weights(
    query: tf.Tensor, key: tf.Tensor, mask: tf.Tensor | None, scale: float | None = None
) -> tf.Tensor:
    """Computes softmax(Q K^T / sqrt(d)) (section 3.2.1, equation 1).

    Args:
        query: float [B, H, T, d].
        key: float [B, H, S, d].
        mask: bool, broadcasts to [B, H, T, S]; None hides nothing.
        scale: factor of the scores; None for 1 / sqrt(d).
    Returns:
        float [B, H, T, S]; sums to one over S.
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    scores = tf.matmul(query * scale, key, transpose_b=True)  # [B, H, T, S]
    if mask is not None:
        scores += mask_bias(mask, scores.dtype)
    return tf.nn.softmax(scores)


class Rotary(NamedTuple):
    """Options of rotary positions (RoFormer, Su et al. 2021).

    Args:
        base: the wavelengths grow up to 2 pi times this number.
        layout: which channels form a pair: halves pairs i with i + d/2, as GPT-NeoX and Llama do; interleaved pairs
            2 i with 2 i + 1, as in the paper and GPT-J.
    """

    base: float = 10_000.0
    layout: str = "halves"


def rotate(x: tf.Tensor, positions: tf.Tensor, rotary: Rotary) -> tf.Tensor:
    """Rotates pairs of channels by an angle that grows with the position (equation 34 of RoFormer).

    The dot product of a rotated query and a rotated key depends only on the distance between their positions.

    Args:
        x: float [..., T, d], d even.
        positions: int [T], or [B, 1, T] if they differ between rows.
        rotary: base and layout.
    Returns:
        float [..., T, d].
    """
    half = x.shape[-1] // 2
    frequency = tf.pow(float(rotary.base), -tf.range(half, dtype=tf.float32) / half)  # [d/2]
    angle = tf.cast(positions, tf.float32)[..., tf.newaxis] * frequency  # [T, d/2] or [B, 1, T, d/2]
    sin, cos = tf.cast(tf.sin(angle), x.dtype), tf.cast(tf.cos(angle), x.dtype)
    if rotary.layout == "halves":
        first, second = tf.split(x, 2, axis=-1)  # [..., T, d/2]
        return tf.concat([first * cos - second * sin, second * cos + first * sin], axis=-1)
    first, second = x[..., 0::2], x[..., 1::2]
    return tf.reshape(tf.stack([first * cos - second * sin, second * cos + first * sin], -1), tf.shape(x))


class _Attention(keras.layers.Layer):
    """What self-attention and cross-attention share: H heads of d = D / H channels and the output projection.

    With grouped heads (Ainslie et al. 2023), H / G heads of keys and values serve G query heads each.

    Args:
        d_model: D, a multiple of num_heads.
        num_heads: H.
        dropout: dropout rate on the attention weights.
        num_kv_heads: number of heads of keys and values, which divides H; 0 for H.
        use_bias: whether the projections have biases.
        scale: factor of the scores; None for 1 / sqrt(d).
    """

    def __init__(
        self,
        d_model: int,
        num_heads: int,
        dropout: float = 0.0,
        num_kv_heads: int = 0,
        use_bias: bool = True,
        scale: float | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        kv_heads = num_kv_heads or num_heads
        if d_model % num_heads or num_heads % kv_heads:
            raise ValueError(
                f"d_model ({d_model}) must be a multiple of num_heads ({num_heads}), and num_heads of num_kv_heads "
                f"({kv_heads})"
            )
        self.d_model, self.num_heads, self.num_kv_heads, self.use_bias = d_model, num_heads, kv_heads, use_bias
        self.head_size, self.scale = d_model // num_heads, scale
        self.kv_width, self.dropout = 2 * kv_heads * self.head_size, Dropout(dropout)

    def build(self, *_shapes: Any) -> None:
        """Creates the output projection, after those of a subclass."""
        self.out_kernel, self.out_bias = self._add_projection("out", self.d_model, keras.initializers.GlorotUniform())

    def _add_projection(self, name: str, width: int, initializer: Any = None) -> tuple[Any, Any]:
        """Creates a kernel [D, width] and, unless `use_bias` is off, a bias.

        By default, each D x D block has Glorot's scale, as separate matrices would.
        """
        limit = (3 / self.d_model) ** 0.5
        initializer = initializer or keras.initializers.RandomUniform(-limit, limit)
        kernel = self.add_weight(shape=(self.d_model, width), initializer=initializer, name=f"{name}_kernel")
        bias = self.add_weight(shape=(width,), initializer="zeros", name=f"{name}_bias") if self.use_bias else None
        return kernel, bias

    def _attend(
        self, q: tf.Tensor, k: tf.Tensor, v: tf.Tensor, mask: tf.Tensor | None, training: bool
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the output [B, T, D] and the attention weights [B, H, T, S]."""
        groups = self.num_heads // self.num_kv_heads
        k, v = (k, v) if groups == 1 else (tf.repeat(k, groups, axis=1), tf.repeat(v, groups, axis=1))
        weights = attention_weights(q, k, mask, self.scale)
        return self.merge(tf.matmul(self.dropout(weights, training=training), v)), weights

    def merge(self, heads: tf.Tensor) -> tf.Tensor:
        """Concatenates heads and applies the output projection: [B, H, T, d] -> [B, T, D]."""
        batch, length = tf.shape(heads)[0], tf.shape(heads)[2]
        joined = tf.reshape(tf.transpose(heads, [0, 2, 1, 3]), [batch, length, self.d_model])
        return linear(joined, self.out_kernel, self.out_bias)

    def _heads(self, x: tf.Tensor, parts: int) -> tf.Tensor:
        """Splits projections into heads: [B, T, parts * heads * d] -> [parts, B, heads, T, d]."""
        shape, heads = tf.shape(x), x.shape[-1] // parts // self.head_size
        split = tf.reshape(x, [shape[0], shape[1], parts, heads, self.head_size])
        return tf.transpose(split, [2, 0, 3, 1, 4])

    def _join_cached(self, heads: tf.Tensor, context: StepContext) -> tf.Tensor:
        """Applies the output projection to heads in the layout of a step: [B, H, K, d] -> [N, D]."""
        if not context.one_token:
            heads = tf.gather(tf.reshape(heads, [-1, self.head_size]), context.permutation.output)
        return linear(tf.reshape(heads, [-1, self.d_model]), self.out_kernel, self.out_bias)

    def _query_shape(self, context: StepContext) -> list[Any]:
        """Returns the shape of queries in a step: the heads of a group are further rows of its keys and values."""
        groups = self.num_heads // self.num_kv_heads
        return [-1, self.num_kv_heads, groups * context.tokens_per_row, self.head_size]

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments for `from_config`."""
        own = {"d_model": self.d_model, "num_heads": self.num_heads, "dropout": self.dropout.rate}
        options = {"num_kv_heads": self.num_kv_heads, "use_bias": self.use_bias, "scale": self.scale}
        return {**super().get_config(), **own, **options}


@keras.saving.register_keras_serializable("seq2serve")
class SelfAttention(_Attention):
    """Multi-head attention of a sequence to itself (section 3.2.2).

    `in_kernel` contains the projections to queries, keys and values side by side, for one matrix product.

    Args:
        *args: see _Attention.
        rotary: rotates queries and keys by their positions; None does not.
    """

    def __init__(self, *args: Any, rotary: Rotary | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.rotary = rotary and Rotary(*rotary)

    def build(self, *_shapes: Any) -> None:
        """Creates in_kernel [D, D + 2 D / G] and out_kernel [D, D]."""
        self.in_kernel, self.in_bias = self._add_projection("in", self.d_model + self.kv_width)
        super().build()

    def call(
        self,
        x: tf.Tensor,
        attention_mask: tf.Tensor | None = None,
        training: bool = False,
        return_weights: bool = False,
    ) -> tf.Tensor | tuple[tf.Tensor, tf.Tensor]:
        """Attends from every position to all positions.

        Args:
            x: float [B, T, D].
            attention_mask: bool, broadcasts to [B, H, T, T]; None hides nothing.
            training: whether to apply dropout to the attention weights.
            return_weights: whether to return the attention weights, float [B, H, T, T], as well.
        Returns:
            float [B, T, D].
        """
        y, weights = self._attend(*self.project(x), attention_mask, training)
        return (y, weights) if return_weights else y

    def project(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Projects to queries [B, H, T, d], and to keys and values [B, H / G, T, d]."""
        projected = linear(x, self.in_kernel, self.in_bias)
        if self.num_kv_heads == self.num_heads:
            q, k, v = tf.unstack(self._heads(projected, 3))
        else:
            queries, memory = tf.split(projected, [self.d_model, self.kv_width], -1)
            q, (k, v) = self._heads(queries, 1)[0], tf.unstack(self._heads(memory, 2))
        if self.rotary:
            position = tf.range(tf.shape(x)[1])
            q, k = rotate(q, position, self.rotary), rotate(k, position, self.rotary)
        return q, k, v

    def step(self, x: tf.Tensor, cache: tf.Tensor, context: StepContext) -> tuple[tf.Tensor, tf.Tensor]:
        """Writes keys and values of K tokens per row into the cache, then attends to the whole cache.

        Args:
            x: float [N, D].
            cache: float [2 * B * H / G, C * K * d].
            context: see StepContext.
        Returns:
            float [N, D] and the cache.
        """
        permutation, tokens = context.permutation, context.tokens_per_row
        vectors = tf.reshape(linear(x, self.in_kernel, self.in_bias), [-1, self.head_size])
        rows = tf.reshape(tf.gather(vectors, permutation.qkv), [-1, tokens, self.head_size])  # queries, keys, values
        if self.rotary:
            turned, values = tf.split(rows, permutation.turned_rows)
            rows = tf.concat([rotate(turned, context.positions, self.rotary), values], 0)
        query, new = tf.split(rows, permutation.query_rows)
        width = tokens * self.head_size
        cache = write_slice(cache, context.positions[0] * width, tf.reshape(new, [-1, width]))
        slots = tf.shape(context.self_attention_bias)[3]
        shape = [2, tf.shape(context.self_attention_bias)[0], self.num_kv_heads, slots, self.head_size]
        keys, values = tf.unstack(tf.reshape(cache, shape))  # [B, H / G, C * K, d]
        query = tf.reshape(query, self._query_shape(context))
        heads = attend(query, keys, values, context.self_attention_bias)
        return self._join_cached(heads, context), cache

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments for `from_config`."""
        return {**super().get_config(), "rotary": self.rotary and list(self.rotary)}


@keras.saving.register_keras_serializable("seq2serve")
class CrossAttention(_Attention):
    """Multi-head attention of one sequence to another (section 3.2.3).

    Keys and values depend only on the other sequence, so decoding projects them once per sentence.
    """

    def build(self, *_shapes: Any) -> None:
        """Creates query_kernel [D, D], memory_kernel [D, 2 D / G] for keys and values, and out_kernel [D, D]."""
        self.query_kernel, self.query_bias = self._add_projection("query", self.d_model)
        self.memory_kernel, self.memory_bias = self._add_projection("memory", self.kv_width)
        super().build()

    def call(
        self,
        query: tf.Tensor,
        memory: tf.Tensor,
        attention_mask: tf.Tensor | None = None,
        training: bool = False,
        return_weights: bool = False,
    ) -> tf.Tensor | tuple[tf.Tensor, tf.Tensor]:
        """Attends from `query` to `memory`.

        Args:
            query: float [B, T, D].
            memory: float [B, S, D].
            attention_mask: bool, broadcasts to [B, H, T, S]; None hides nothing.
            training: whether to apply dropout to the attention weights.
            return_weights: whether to return the attention weights, float [B, H, T, S], as well.
        Returns:
            float [B, T, D].
        """
        q = self._heads(linear(query, self.query_kernel, self.query_bias), 1)[0]
        k, v = tf.unstack(self.project_memory(memory))
        y, weights = self._attend(q, k, v, attention_mask, training)
        return (y, weights) if return_weights else y

    def project_memory(self, memory: tf.Tensor) -> tf.Tensor:
        """Projects to keys and values: [B, S, D] -> [2, B, H / G, S, d]."""
        return self._heads(linear(memory, self.memory_kernel, self.memory_bias), 2)

    def step(self, x: tf.Tensor, memory: tf.Tensor, context: StepContext) -> tuple[tf.Tensor, tf.Tensor]:
        """Attends from K tokens per row to keys and values that are already projected.

        Args:
            x: float [N, D].
            memory: from `project_memory`, float [2, B, H / G, S, d].
            context: see StepContext.
        Returns:
            float [N, D] and the memory.
        """
        query = linear(x, self.query_kernel, self.query_bias)  # [N, D]
        if not context.one_token:
            query = tf.gather(tf.reshape(query, [-1, self.head_size]), context.permutation.query)
        keys, values = tf.unstack(memory)
        heads = attend(tf.reshape(query, self._query_shape(context)), keys, values, context.memory_bias)
        return self._join_cached(heads, context), memory
