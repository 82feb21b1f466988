"""The decoder for one token at a time: weights made ready once, then as few operations a token as there can be.

Comes in: a trained model; one token a hypothesis and cached keys and values. Goes out: logits of the next token.
Read next: decoding.py, whose loop calls `StepDecoder`; blocks.py for the same layers as they are trained.

For one sentence a step is some twenty small matrix products; around them it is the number of operations that costs, not
their size. So `prepare` does beforehand what does not depend on the token. B rows of K hypotheses, N = B K, room for C
tokens.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from models.attention import rotate
from models.config import ModelConfig
from models.layers import LAYER_NORM_EPSILON

GROUP = 32  # the vocabulary is padded to a multiple of it: search.py looks for the best logits group by group
NEVER = -1e9  # the logit of a token that does not exist


class Linear(NamedTuple):
    """A projection: kernel [D_in, D_out], bias [D_out]."""

    kernel: tf.Tensor
    bias: tf.Tensor

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """[N, D_in] -> [N, D_out]"""
        return tf.nn.bias_add(tf.matmul(x, self.kernel), self.bias)


class Norm(NamedTuple):
    """A layer norm's weights, [D] each."""

    gamma: tf.Tensor
    beta: tf.Tensor


class LayerWeights(NamedTuple):
    """The projections of a decoder layer, in the order of their use; `norms` is empty for pre-norm."""

    self_in: Linear
    self_out: Linear
    cross_in: Linear
    cross_out: Linear
    feed_in: Linear
    feed_out: Linear
    norms: tuple


class Weights(NamedTuple):
    """What decoding multiplies by.

    Args:
        embedding: [V, D].
        memory: from the encoder's output to keys and values of every layer, L * 2 * D channels.
        layers: LayerWeights.
        output: to V logits and up to GROUP - 1 that are never chosen.
    """

    embedding: tf.Tensor
    memory: Linear
    layers: tuple
    output: Linear


def prepare(model) -> Weights:
    """Makes the weights ready; the logits stay the same.

    - The attention's scale 1 / sqrt(d) goes into the query's projection.
    - Pre-norm: gamma and beta go into the projection after the norm. Whatever is added to the residual stream has its
      mean taken off, so the norms find a mean of zero and need not compute it.
    - The output matrix is stored [D, V]: a product with its transpose takes up to twice as long.

    Args:
        model: a built models.transformer.Transformer.
    Returns:
        Weights in the dtype in which the model computes; the embedding is the model's own variable.
    """
    output = Linear(tf.transpose(_tensor(model.output_embedding.matrix)), tf.zeros([model.vocab_size]))
    if model.config.norm_first:
        output = _after_norm(model.decoder.norm, output)
    missing = -model.vocab_size % GROUP
    bias = tf.pad(output.bias, [[0, missing]], constant_values=NEVER)
    output = Linear(tf.pad(output.kernel, [[0, 0], [0, missing]]), bias)
    layers = model.decoder.layers
    width = model.config.d_model
    crosses = [layer.cross_attention for layer in layers]
    kernels = [_tensor(cross.in_kernel)[:, width:] for cross in crosses]
    memory = Linear(tf.concat(kernels, 1), tf.concat([_tensor(cross.in_bias)[width:] for cross in crosses], 0))
    ready = (memory, tuple(_prepare_layer(layer) for layer in layers), output)
    cast = tf.nest.map_structure(lambda weight: tf.cast(weight, model.compute_dtype), ready)
    return Weights(model.target_embedding.matrix.value, *cast)


def as_variables(weights: Weights) -> Weights:
    """Makes variables of what are tensors, for a SavedModel to hold."""

    def variable(weight):
        return weight if isinstance(weight, tf.Variable) else tf.Variable(weight, trainable=False)

    return tf.nest.map_structure(variable, weights)


def _tensor(variable) -> tf.Tensor:
    return tf.convert_to_tensor(variable)


def _prepare_layer(layer) -> LayerWeights:
    own, cross, feed = layer.self_attention, layer.cross_attention, layer.feed_forward
    d_model = own.d_model
    scale = (d_model // own.num_heads) ** -0.5
    scales = tf.repeat([scale, 1.0], [d_model, 2 * d_model])
    into = [
        Linear(_tensor(own.in_kernel) * scales, _tensor(own.in_bias) * scales),
        Linear(_tensor(cross.in_kernel)[:, :d_model] * scale, _tensor(cross.in_bias)[:d_model] * scale),
        Linear(_tensor(feed.kernel_1), _tensor(feed.bias_1)),
    ]
    out = [
        Linear(_tensor(own.out_kernel), _tensor(own.out_bias)),
        Linear(_tensor(cross.out_kernel), _tensor(cross.out_bias)),
        Linear(_tensor(feed.kernel_2), _tensor(feed.bias_2)),
    ]
    norms = [residual.norm for residual in (layer.self_residual, layer.cross_residual, layer.feed_residual)]
    if layer.config.norm_first:
        into = [_after_norm(norm, linear) for norm, linear in zip(norms, into, strict=True)]
        out = [Linear(_centre(linear.kernel), _centre(linear.bias)) for linear in out]
        norms = []
    pairs = [linear for pair in zip(into, out, strict=True) for linear in pair]
    return LayerWeights(*pairs, tuple(Norm(_tensor(norm.gamma), _tensor(norm.beta)) for norm in norms))


def _after_norm(norm, linear: Linear) -> Linear:
    """(gamma n + beta) W + b = n (gamma W) + (beta W + b)"""
    bias = tf.linalg.matvec(linear.kernel, _tensor(norm.beta), transpose_a=True) + linear.bias
    return Linear(_tensor(norm.gamma)[:, tf.newaxis] * linear.kernel, bias)


def _centre(x: tf.Tensor) -> tf.Tensor:
    return x - tf.reduce_mean(x, -1, keepdims=True)


class Places(NamedTuple):
    """Where heads are found; the same for every layer and step.

    Heads are brought together for attention, and apart again, by copying rows of d channels from places listed once:
    with several threads that is four times as fast as TensorFlow's transpose.

    Args:
        into: int32 [3 * B * H * K], from [B, K, 3, H] to [3, B, H, K].
        query: int32 [B * H * K], from [B, K, H] to [B, H, K].
        back: int32 [B * K * H], from [B, H, K] to [B, K, H].
    """

    into: tf.Tensor
    query: tf.Tensor
    back: tf.Tensor


@dataclasses.dataclass(frozen=True)
class StepDecoder:
    """Runs the decoder for one token of each hypothesis.

    Args:
        config: the model's.
        weights: from `prepare`.
        beams: K.
        attend: the function for attention.
    """

    config: ModelConfig
    weights: Weights
    beams: int
    attend: Callable

    def places(self, batch: tf.Tensor) -> Places:
        """Lists where the heads of `batch` rows are found."""
        heads, beams = self.config.num_heads, self.beams

        def order(shape, axes):
            return tf.reshape(tf.transpose(tf.reshape(tf.range(tf.reduce_prod(shape)), shape), axes), [-1])

        return Places(
            order([batch, beams, 3, heads], [2, 0, 3, 1]),
            order([batch, beams, heads], [0, 2, 1]),
            order([batch, heads, beams], [0, 2, 1]),
        )

    def memories(self, memory: tf.Tensor) -> tuple:
        """Projects the encoder's output [B, S, D] to keys and values: for each layer [2, B, H, S, d]."""
        batch, length, heads = tf.shape(memory)[0], tf.shape(memory)[1], self.config.num_heads
        flat = self.weights.memory(tf.reshape(memory, [-1, self.config.d_model]))
        split = tf.reshape(flat, [batch, length, len(self.weights.layers), 2, heads, self._size])
        return tuple(tf.unstack(tf.transpose(split, [2, 3, 0, 4, 1, 5])))

    @property
    def _size(self) -> int:
        return self.config.d_model // self.config.num_heads

    def __call__(self, tokens, step, position, caches, memories, seen, memory_bias, places: Places):
        """Decodes one token.

        Args:
            tokens: int32 [B, K].
            step: int32 scalar, their position.
            position: float [D], what is added to an embedding there.
            caches: for each layer the keys and values so far, [2 * B * H, C * K * d].
            memories: from `memories`.
            seen: float [B, 1, K, C * K], added to attention scores: hides what other hypotheses wrote.
            memory_bias: float [B, 1, 1, S], hides the source's padding.
            places: from `places`.
        Returns:
            Logits float32 [N, V and those never chosen]; the caches with this token's keys and values.
        """
        config, weights = self.config, self.weights
        x = tf.gather(weights.embedding, tf.reshape(tokens, [-1]))
        x = tf.cast(x, position.dtype) * config.d_model**0.5 + position
        x, written = _centre(x) if config.norm_first else x, []
        for layer, cache, memory in zip(weights.layers, caches, memories, strict=True):
            norms = layer.norms or (None, None, None)
            with tf.name_scope("self_attention"):
                y, cache = self._self_attention(layer, self._before(x), step, cache, seen, places)
                x = self._after(x + y, norms[0])
            with tf.name_scope("cross_attention"):
                y = self._cross_attention(layer, self._before(x), memory, memory_bias, places)
                x = self._after(x + y, norms[1])
            with tf.name_scope("feed_forward"):
                x = self._after(x + self._feed_forward(layer, self._before(x)), norms[2])
            written.append(cache)
        with tf.name_scope("logits"):
            return tf.cast(weights.output(self._before(x)), tf.float32), tuple(written)

    def _before(self, x: tf.Tensor) -> tf.Tensor:
        return _normalise(x) if self.config.norm_first else x

    def _after(self, x: tf.Tensor, norm: Norm | None) -> tf.Tensor:
        return _normalise(_centre(x)) * norm.gamma + norm.beta if norm else x

    def _self_attention(self, layer: LayerWeights, x, step, cache, seen, places) -> tuple[tf.Tensor, tf.Tensor]:
        """Writes this token's keys and values into the cache, then attends to all that is there."""
        rows = tf.gather(tf.reshape(layer.self_in(x), [-1, self._size]), places.into)
        heads = tf.reshape(rows, [3, -1, self.config.num_heads, self.beams, self._size])
        if self.config.positions == "rotary":
            heads = tf.concat([rotate(heads[:2], step[tf.newaxis]), heads[2:]], 0)
        width = self.beams * self._size
        cache = put(cache, step * width, tf.reshape(heads[1:], [-1, width]))
        batch, places_in_cache = tf.shape(seen)[0], tf.shape(seen)[3]
        shape = [2, batch, self.config.num_heads, places_in_cache, self._size]
        keys, values = tf.unstack(tf.reshape(cache, shape))
        return layer.self_out(self._join(self.attend(heads[0], keys, values, seen), places)), cache

    def _cross_attention(self, layer: LayerWeights, x, memory, memory_bias, places) -> tf.Tensor:
        query = layer.cross_in(x)
        if self.beams > 1:
            query = tf.gather(tf.reshape(query, [-1, self._size]), places.query)
        query = tf.reshape(query, [-1, self.config.num_heads, self.beams, self._size])
        keys, values = tf.unstack(memory)
        return layer.cross_out(self._join(self.attend(query, keys, values, memory_bias), places))

    def _join(self, heads: tf.Tensor, places: Places) -> tf.Tensor:
        """[B, H, K, d] -> [N, D]"""
        if self.beams > 1:
            heads = tf.gather(tf.reshape(heads, [-1, self._size]), places.back)
        return tf.reshape(heads, [-1, self.config.d_model])

    def _feed_forward(self, layer: LayerWeights, x) -> tf.Tensor:
        inner = layer.feed_in(x)
        if self.config.activation == "swiglu":
            gate, value = tf.split(inner, 2, axis=-1)
            return layer.feed_out(tf.nn.silu(gate) * value)
        return layer.feed_out(tf.nn.relu(inner) if self.config.activation == "relu" else tf.nn.gelu(inner))


def _normalise(x: tf.Tensor) -> tf.Tensor:
    """Layer norm, without gamma and beta, of rows whose mean is zero; in float32 as in training."""
    wide = tf.cast(x, tf.float32)
    variance = tf.reduce_mean(tf.square(wide), -1, keepdims=True)
    return tf.cast(wide * tf.math.rsqrt(variance + LAYER_NORM_EPSILON), x.dtype)


def attend(query: tf.Tensor, keys: tf.Tensor, values: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """Attention whose query is scaled already: [B, H, K, d] and two of [B, H, C, d] -> [B, H, K, d]."""
    return tf.matmul(tf.nn.softmax(tf.matmul(query, keys, transpose_b=True) + bias), values)


def attend_of_few(query: tf.Tensor, keys: tf.Tensor, values: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """The same for K = 1 without matrix products, which take long to start: faster for a few rows, slower for many."""
    scores = tf.reduce_sum(query * keys, -1, keepdims=True) + tf.reshape(bias, [tf.shape(bias)[0], 1, -1, 1])
    weights = tf.exp(scores - tf.reduce_max(scores, 2, keepdims=True))  # [B, H, C, 1]
    return tf.reduce_sum(weights * values, 2, keepdims=True) / tf.reduce_sum(weights, 2, keepdims=True)


def put(x: tf.Tensor, start: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
    """Writes `value` into the last axis of x, from `start` on: in place, if nothing else still needs x."""
    leading = [0] * (x.shape.rank - 1)
    all_of_them = 2 ** len(leading) - 1
    updated = tf.raw_ops.TensorStridedSliceUpdate(
        input=x,
        begin=tf.stack([*leading, start]),
        end=tf.stack([*leading, start + tf.shape(value)[-1]]),
        strides=[1] * x.shape.rank,
        value=value,
        begin_mask=all_of_them,
        end_mask=all_of_them,
    )
    return tf.ensure_shape(updated, x.shape)
