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


class SubLayer(NamedTuple):
    """The projections into a sub-layer and out of it, and the norm that follows; `norm` is empty for pre-norm."""

    into: Linear
    out: Linear
    norm: Norm | tuple[()]


class LayerWeights(NamedTuple):
    """A decoder layer; `cross_attention` is empty in a language model."""

    self_attention: SubLayer
    cross_attention: SubLayer | tuple[()]
    feed_forward: SubLayer


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
        model: a built models.transformer.Transformer or DecoderLanguageModel.
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
    ready = (_prepare_memory(layers), tuple(_prepare_layer(layer) for layer in layers), output)
    cast = tf.nest.map_structure(lambda weight: tf.cast(weight, model.compute_dtype), ready)
    return Weights(model.target_embedding.matrix.value, *cast)


def as_variables(weights: Weights) -> Weights:
    """Makes variables of what are tensors, for a SavedModel to hold."""

    def variable(weight):
        return weight if isinstance(weight, tf.Variable) else tf.Variable(weight, trainable=False)

    return tf.nest.map_structure(variable, weights)


def refresh(variables: Weights, weights: Weights) -> None:
    """Gives what `as_variables` made the values of newer weights."""
    for variable, weight in zip(tf.nest.flatten(variables), tf.nest.flatten(weights), strict=True):
        if variable is not weight:  # of the model itself, and so up to date
            variable.assign(weight)


def _tensor(variable) -> tf.Tensor:
    return tf.convert_to_tensor(variable)


def _prepare_memory(layers) -> Linear | tuple[()]:
    """Puts the projections of the encoder's output side by side; a language model has none."""
    crosses = [layer.cross_attention for layer in layers if layer.cross_attention is not None]
    if not crosses:
        return ()
    kernels = [_tensor(cross.in_kernel)[:, cross.d_model :] for cross in crosses]
    return Linear(tf.concat(kernels, 1), tf.concat([_tensor(cross.in_bias)[cross.d_model :] for cross in crosses], 0))


def _prepare_layer(layer) -> LayerWeights:
    own, cross, feed = layer.self_attention, layer.cross_attention, layer.feed_forward
    d_model, scale = own.d_model, (own.d_model // own.num_heads) ** -0.5
    scales = tf.repeat([scale, 1.0], [d_model, 2 * d_model])
    self_in = Linear(_tensor(own.in_kernel) * scales, _tensor(own.in_bias) * scales)
    cross_weights = ()
    if cross is not None:
        cross_in = Linear(_tensor(cross.in_kernel)[:, :d_model] * scale, _tensor(cross.in_bias)[:d_model] * scale)
        cross_out = Linear(_tensor(cross.out_kernel), _tensor(cross.out_bias))
        cross_weights = _prepare_sub_layer(layer.cross_residual, cross_in, cross_out)
    return LayerWeights(
        _prepare_sub_layer(layer.self_residual, self_in, Linear(_tensor(own.out_kernel), _tensor(own.out_bias))),
        cross_weights,
        _prepare_sub_layer(
            layer.feed_residual,
            Linear(_tensor(feed.kernel_1), _tensor(feed.bias_1)),
            Linear(_tensor(feed.kernel_2), _tensor(feed.bias_2)),
        ),
    )


def _prepare_sub_layer(residual, into: Linear, out: Linear) -> SubLayer:
    if residual.norm_first:
        return SubLayer(_after_norm(residual.norm, into), Linear(_centre(out.kernel), _centre(out.bias)), ())
    return SubLayer(into, out, Norm(_tensor(residual.norm.gamma), _tensor(residual.norm.beta)))


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
    """Runs the decoder for K tokens of each row: one of each hypothesis, or those of a prompt all at once.

    Args:
        config: the model's.
        weights: from `prepare`.
        beams: K; a tensor for a prompt.
        attend: the function for attention.
    """

    config: ModelConfig
    weights: Weights
    beams: int | tf.Tensor
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
        split = tf.reshape(flat, [batch, length, len(self.weights.layers), 2, heads, self.size])
        return tuple(tf.unstack(tf.transpose(split, [2, 3, 0, 4, 1, 5])))

    @property
    def size(self) -> int:
        """Returns d, the channels of a head."""
        return self.config.d_model // self.config.num_heads

    def __call__(self, tokens, place: tf.Tensor, position, caches, past: "Past") -> tuple[tf.Tensor, tuple]:
        """Decodes K tokens.

        Args:
            tokens: int32 [B, K].
            place: int32 [1] or [K], where in the cache the tokens are; for rotary positions.
            position: float, broadcasts to [B, K, D]: what is added to an embedding there.
            caches: for each layer the keys and values so far, [2 * B * H, C * K * d].
            past: what else is attended to.
        Returns:
            Logits float32 [N, V and those never chosen]; the caches with these tokens' keys and values.
        """
        config, weights = self.config, self.weights
        x = tf.cast(tf.gather(weights.embedding, tokens), position.dtype) * config.d_model**0.5 + position
        x, written = tf.reshape(x, [-1, config.d_model]), []
        x = _centre(x) if config.norm_first else x
        for layer, cache, memory in zip(weights.layers, caches, past.memories, strict=True):
            with tf.name_scope("self_attention"):
                y, cache = self._self_attention(layer.self_attention, self._before(x), place, cache, past)
                x = self._after(x + y, layer.self_attention)
            if layer.cross_attention:
                with tf.name_scope("cross_attention"):
                    y = self._cross_attention(layer.cross_attention, self._before(x), memory, past)
                    x = self._after(x + y, layer.cross_attention)
            with tf.name_scope("feed_forward"):
                x = self._after(x + self._feed_forward(layer.feed_forward, self._before(x)), layer.feed_forward)
            written.append(cache)
        with tf.name_scope("logits"):
            return tf.cast(weights.output(self._before(x)), tf.float32), tuple(written)

    def _before(self, x: tf.Tensor) -> tf.Tensor:
        return _normalise(x) if self.config.norm_first else x

    def _after(self, x: tf.Tensor, sub_layer: SubLayer) -> tf.Tensor:
        return _normalise(_centre(x)) * sub_layer.norm.gamma + sub_layer.norm.beta if sub_layer.norm else x

    def _self_attention(self, weights: SubLayer, x, place, cache, past: "Past") -> tuple[tf.Tensor, tf.Tensor]:
        """Writes these tokens' keys and values into the cache, then attends to all that is there."""
        rows = tf.gather(tf.reshape(weights.into(x), [-1, self.size]), past.places.into)
        heads = tf.reshape(rows, [3, -1, self.config.num_heads, self.beams, self.size])
        if self.config.positions == "rotary":
            heads = tf.concat([rotate(heads[:2], place), heads[2:]], 0)
        width = self.beams * self.size
        cache = put(cache, place[0] * width, tf.reshape(heads[1:], [-1, width]))
        shape = [2, tf.shape(past.seen)[0], self.config.num_heads, tf.shape(past.seen)[3], self.size]
        keys, values = tf.unstack(tf.reshape(cache, shape))
        return weights.out(self._join(self.attend(heads[0], keys, values, past.seen), past.places)), cache

    def _cross_attention(self, weights: SubLayer, x, memory, past: "Past") -> tf.Tensor:
        query = weights.into(x)
        if not self._alone:
            query = tf.gather(tf.reshape(query, [-1, self.size]), past.places.query)
        query = tf.reshape(query, [-1, self.config.num_heads, self.beams, self.size])
        keys, values = tf.unstack(memory)
        return weights.out(self._join(self.attend(query, keys, values, past.memory_bias), past.places))

    @property
    def _alone(self) -> bool:
        return isinstance(self.beams, int) and self.beams == 1

    def _join(self, heads: tf.Tensor, places: Places) -> tf.Tensor:
        """[B, H, K, d] -> [N, D]"""
        if not self._alone:
            heads = tf.gather(tf.reshape(heads, [-1, self.size]), places.back)
        return tf.reshape(heads, [-1, self.config.d_model])

    def _feed_forward(self, weights: SubLayer, x) -> tf.Tensor:
        inner = weights.into(x)
        if self.config.activation == "swiglu":
            gate, value = tf.split(inner, 2, axis=-1)
            return weights.out(tf.nn.silu(gate) * value)
        return weights.out(tf.nn.relu(inner) if self.config.activation == "relu" else tf.nn.gelu(inner))


class Past(NamedTuple):
    """What a step attends to besides its own tokens.

    Args:
        seen: float [B, 1, K, C * K], added to attention scores: hides what other hypotheses wrote.
        memories: for each layer the source's keys and values [2, B, H, S, d]; empty ones in a language model.
        memory_bias: float [B, 1, 1, S], hides the source's padding; empty in a language model.
        places: from `StepDecoder.places`.
    """

    seen: tf.Tensor
    memories: tuple
    memory_bias: tf.Tensor | tuple[()]
    places: Places


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
