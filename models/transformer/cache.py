"""What the attention of all layers shares when a decoder runs with cached keys and values, a few tokens at a time.

Axes: B rows, K tokens per row (one for each hypothesis, or those of a prompt), N = B K, C cached positions, H heads, of
which H / G have keys and values.
"""

from typing import Any, NamedTuple

import tensorflow as tf


class HeadPermutation(NamedTuple):
    """Indices that move heads to the layout of attention and back; the same for every layer and step.

    Heads are moved by a gather of vectors of d channels. With several threads this is four times as fast as
    TensorFlow's transpose.

    Args:
        qkv: int32 [B * K * (H + 2 H / G)], from [B, K, H + 2 H / G] to [B, H, K] and [2, B, H / G, K].
        query: int32 [B * H * K], from [B, K, H] to [B, H, K].
        output: int32 [B * K * H], from [B, H, K] to [B, K, H].
        query_rows: int32 [2], the number of rows of queries and of keys and values: B * H and 2 * B * H / G.
        turned_rows: int32 [2], that of queries and keys, which rotary positions turn, and of values.
    """

    qkv: tf.Tensor
    query: tf.Tensor
    output: tf.Tensor
    query_rows: tf.Tensor
    turned_rows: tf.Tensor


def head_permutation(batch: tf.Tensor, tokens: int | tf.Tensor, heads: int, kv_heads: int) -> HeadPermutation:
    """Computes the HeadPermutation.

    Args:
        batch: B.
        tokens: K.
        heads: H.
        kv_heads: H / G.
    """

    def indices(shape: list[Any]) -> tf.Tensor:
        return tf.reshape(tf.range(tf.reduce_prod(shape)), shape)

    def moved(x: tf.Tensor, axes: list[int]) -> tf.Tensor:
        return tf.reshape(tf.transpose(x, axes), [-1])

    qkv = indices([batch, tokens, heads + 2 * kv_heads])
    keys_and_values = tf.reshape(qkv[:, :, heads:], [batch, tokens, 2, kv_heads])
    return HeadPermutation(
        tf.concat([moved(qkv[:, :, :heads], [0, 2, 1]), moved(keys_and_values, [2, 0, 3, 1])], 0),
        moved(indices([batch, tokens, heads]), [0, 2, 1]),
        moved(indices([batch, heads, tokens]), [0, 2, 1]),
        tf.stack([batch * heads, 2 * batch * kv_heads]),
        tf.stack([batch * (heads + kv_heads), batch * kv_heads]),
    )


class StepContext(NamedTuple):
    """The inputs of a step that are the same in all layers.

    Args:
        tokens_per_row: K; a tensor for a prompt.
        positions: int32 [1] or [K], positions of the tokens in the cache; also their rotary positions.
        self_attention_bias: float [B, 1, G * K, C * K], added to the scores of self-attention; hides the tokens of
            other hypotheses.
        memory_bias: float [B, 1, 1, S], hides the source's padding; empty in a language model.
        permutation: see HeadPermutation.
    """

    tokens_per_row: int | tf.Tensor
    positions: tf.Tensor
    self_attention_bias: tf.Tensor
    memory_bias: tf.Tensor | tuple[()]
    permutation: HeadPermutation

    @property
    def one_token(self) -> bool:
        """Whether K is known to be 1, so that heads need not be permuted."""
        return isinstance(self.tokens_per_row, int) and self.tokens_per_row == 1


def attend(query: tf.Tensor, keys: tf.Tensor, values: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """Computes attention for queries that are already scaled.

    Args:
        query: float [B, H, K, d].
        keys, values: float [B, H, C, d].
        bias: float, broadcasts to [B, H, K, C].
    Returns:
        float [B, H, K, d].
    """
    return tf.matmul(tf.nn.softmax(tf.matmul(query, keys, transpose_b=True) + bias), values)


def write_slice(x: tf.Tensor, start: tf.Tensor | int, value: tf.Tensor) -> tf.Tensor:
    """Writes `value` into the last axis of x, beginning at index `start`; in place if nothing else uses x."""
    leading = [0] * (x.shape.rank - 1)
    leading_mask = 2 ** len(leading) - 1  # one bit per axis that is written completely
    updated = tf.raw_ops.TensorStridedSliceUpdate(
        input=x,
        begin=tf.stack([*leading, start]),
        end=tf.stack([*leading, start + tf.shape(value)[-1]]),
        strides=[1] * x.shape.rank,
        value=value,
        begin_mask=leading_mask,
        end_mask=leading_mask,
    )
    return tf.ensure_shape(updated, x.shape)
