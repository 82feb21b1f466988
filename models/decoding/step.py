"""One step of the decoder with cached keys and values: equal to the layers of transformer/blocks.py, but faster.

For one sentence, a step consists of some twenty small matrix products. The time of the rest depends on the number of
operations, not on their size. `prepare` therefore precomputes everything that does not depend on the token.

Axes: B rows, K tokens per row (one for each hypothesis, or those of a prompt), N = B K, C cached positions.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from seq2serve.models.config import ModelConfig
from seq2serve.models.transformer.attention import rotate
from seq2serve.models.transformer.blocks import DecoderLayer, Residual
from seq2serve.models.transformer.models import DecoderLanguageModel, Transformer

GROUP = 32  # the vocabulary is padded to a multiple of this, for `beam_search.top_k`
NEG_INF = -1e9  # logit of a token that must not be generated


class Linear(NamedTuple):
    """A projection: kernel [D_in, D_out], bias [D_out]."""

    kernel: tf.Tensor
    bias: tf.Tensor

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """[N, D_in] -> [N, D_out]"""
        return tf.nn.bias_add(tf.matmul(x, self.kernel), self.bias)


class Norm(NamedTuple):
    """Weights of a layer norm, [D] each."""

    gamma: tf.Tensor
    beta: tf.Tensor


class SubLayer(NamedTuple):
    """Input and output projection of a sub-layer, and the norm after it; `norm` is empty for pre-norm."""

    in_projection: Linear
    out_projection: Linear
    norm: Norm | tuple[()]


class LayerWeights(NamedTuple):
    """Weights of a decoder layer; `cross_attention` is empty in a language model."""

    self_attention: SubLayer
    cross_attention: SubLayer | tuple[()]
    feed_forward: SubLayer


class Weights(NamedTuple):
    """Weights of a decoder in the form that a step needs.

    Args:
        embedding: [V, D].
        embedding_norm: the norm of the embeddings; empty without one.
        memory: projects the encoder's output to keys and values of all layers, L * 2 * D channels; empty in a language
            model.
        layers: weights of each layer.
        output: projects to V logits and up to GROUP - 1 more, which are NEG_INF.
    """

    embedding: tf.Tensor
    embedding_norm: Norm | tuple[()]
    memory: Linear | tuple[()]
    layers: tuple[LayerWeights, ...]
    output: Linear


def prepare(model: Transformer | DecoderLanguageModel) -> Weights:
    """Prepares the weights for decoding; the logits stay the same.

    - The attention scale 1 / sqrt(d) is folded into the query projection.
    - Pre-norm: gamma and beta are folded into the projection after the norm. The mean is subtracted from everything
      that is added to the residual stream. The input of every norm then has mean zero, so norms do not compute it.
    - The output matrix is stored as [D, V]; a product with its transpose takes up to twice as long.

    Args:
        model: a built model.
    Returns:
        Weights in the model's compute dtype. The embedding is the model's own variable.
    """
    output = Linear(tf.transpose(_tensor(model.output_embedding.matrix)), tf.zeros([model.vocab_size]))
    if model.config.norm_first:
        output = _fold_norm(model.decoder.norm, output)
    padding = -model.vocab_size % GROUP
    bias = tf.pad(output.bias, [[0, padding]], constant_values=NEG_INF)
    output = Linear(tf.pad(output.kernel, [[0, 0], [0, padding]]), bias)
    layers = model.decoder.layers
    embedding_norm = model.decoder.embedding_norm
    norm = Norm(_tensor(embedding_norm.gamma), _tensor(embedding_norm.beta)) if embedding_norm else ()
    prepared = (norm, _prepare_memory(layers), tuple(_prepare_layer(layer) for layer in layers), output)
    cast = tf.nest.map_structure(lambda weight: tf.cast(weight, model.compute_dtype), prepared)
    return Weights(model.target_embedding.matrix.value, *cast)


def as_variables(weights: Weights) -> Weights:
    """Converts tensors to variables, which a SavedModel can store."""

    def variable(weight: tf.Tensor | tf.Variable) -> tf.Variable:
        return weight if isinstance(weight, tf.Variable) else tf.Variable(weight, trainable=False)

    return tf.nest.map_structure(variable, weights)


def refresh(variables: Weights, weights: Weights) -> None:
    """Assigns new weights to the result of `as_variables`."""
    for variable, weight in zip(tf.nest.flatten(variables), tf.nest.flatten(weights), strict=True):
        if variable is not weight:  # a variable of the model itself is up to date
            variable.assign(weight)


def _tensor(variable: keras.Variable) -> tf.Tensor:
    return tf.convert_to_tensor(variable)


def _prepare_memory(layers: Sequence[DecoderLayer]) -> Linear | tuple[()]:
    """Concatenates the projections of the encoder's output; a language model has none."""
    attentions = [layer.cross_attention for layer in layers if layer.cross_attention is not None]
    if not attentions:
        return ()
    kernels = [_tensor(attention.in_kernel)[:, attention.d_model :] for attention in attentions]
    biases = [_tensor(attention.in_bias)[attention.d_model :] for attention in attentions]
    return Linear(tf.concat(kernels, 1), tf.concat(biases, 0))


def _prepare_layer(layer: DecoderLayer) -> LayerWeights:
    attention, feed = layer.self_attention, layer.feed_forward
    d_model, scale = attention.d_model, (attention.d_model // attention.num_heads) ** -0.5
    scales = tf.repeat([scale, 1.0], [d_model, 2 * d_model])  # [3 * D], for queries, keys and values
    in_projection = Linear(_tensor(attention.in_kernel) * scales, _tensor(attention.in_bias) * scales)
    out_projection = Linear(_tensor(attention.out_kernel), _tensor(attention.out_bias))
    return LayerWeights(
        _prepare_sub_layer(layer.self_residual, in_projection, out_projection),
        _prepare_cross_attention(layer, scale),
        _prepare_sub_layer(
            layer.feed_residual,
            Linear(_tensor(feed.kernel_1), _tensor(feed.bias_1)),
            Linear(_tensor(feed.kernel_2), _tensor(feed.bias_2)),
        ),
    )


def _prepare_cross_attention(layer: DecoderLayer, scale: float) -> SubLayer | tuple[()]:
    attention, residual = layer.cross_attention, layer.cross_residual
    if attention is None or residual is None:
        return ()
    d_model = attention.d_model
    kernel, bias = _tensor(attention.in_kernel)[:, :d_model] * scale, _tensor(attention.in_bias)[:d_model] * scale
    out_projection = Linear(_tensor(attention.out_kernel), _tensor(attention.out_bias))
    return _prepare_sub_layer(residual, Linear(kernel, bias), out_projection)


def _prepare_sub_layer(residual: Residual, in_projection: Linear, out_projection: Linear) -> SubLayer:
    if residual.norm_first:
        centred = Linear(_centre(out_projection.kernel), _centre(out_projection.bias))
        return SubLayer(_fold_norm(residual.norm, in_projection), centred, ())
    return SubLayer(in_projection, out_projection, Norm(_tensor(residual.norm.gamma), _tensor(residual.norm.beta)))


def _fold_norm(norm: keras.layers.Layer, linear: Linear) -> Linear:
    """(gamma n + beta) W + b = n (gamma W) + (beta W + b)"""
    bias = tf.linalg.matvec(linear.kernel, _tensor(norm.beta), transpose_a=True) + linear.bias
    return Linear(_tensor(norm.gamma)[:, tf.newaxis] * linear.kernel, bias)


def _centre(x: tf.Tensor) -> tf.Tensor:
    return x - tf.reduce_mean(x, -1, keepdims=True)


class HeadPermutation(NamedTuple):
    """Indices that move heads to the layout of attention and back; the same for every layer and step.

    Heads are moved by a gather of vectors of d channels. With several threads this is four times as fast as
    TensorFlow's transpose.

    Args:
        qkv: int32 [3 * B * H * K], from [B, K, 3, H] to [3, B, H, K].
        query: int32 [B * H * K], from [B, K, H] to [B, H, K].
        output: int32 [B * K * H], from [B, H, K] to [B, K, H].
    """

    qkv: tf.Tensor
    query: tf.Tensor
    output: tf.Tensor


class AttentionContext(NamedTuple):
    """The inputs of attention that are the same in all layers, and the keys and values of the source.

    Args:
        self_attention_bias: float [B, 1, K, C * K], added to the scores of self-attention; hides the tokens of other
            hypotheses.
        memories: keys and values of the source for each layer, [2, B, H, S, d]; empty tuples in a language model.
        memory_bias: float [B, 1, 1, S], hides the source's padding; empty in a language model.
        permutation: from `StepDecoder.head_permutation`.
    """

    self_attention_bias: tf.Tensor
    memories: tuple
    memory_bias: tf.Tensor | tuple[()]
    permutation: HeadPermutation


@dataclasses.dataclass(frozen=True)
class StepDecoder:
    """Runs the decoder for K tokens of each row: one for each hypothesis, or all tokens of a prompt.

    Args:
        config: the model's config.
        weights: from `prepare`.
        tokens_per_row: K; a tensor for a prompt.
        attend: the attention function, `attend` or `attend_small_batch`.
    """

    config: ModelConfig
    weights: Weights
    tokens_per_row: int | tf.Tensor
    attend: Callable[[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]

    @property
    def head_size(self) -> int:
        """Returns d, the number of channels of a head."""
        return self.config.d_model // self.config.num_heads

    def head_permutation(self, batch: tf.Tensor) -> HeadPermutation:
        """Computes the HeadPermutation for a batch of `batch` rows."""
        heads, k = self.config.num_heads, self.tokens_per_row

        def indices(shape: list[Any], axes: list[int]) -> tf.Tensor:
            return tf.reshape(tf.transpose(tf.reshape(tf.range(tf.reduce_prod(shape)), shape), axes), [-1])

        return HeadPermutation(
            indices([batch, k, 3, heads], [2, 0, 3, 1]),
            indices([batch, k, heads], [0, 2, 1]),
            indices([batch, heads, k], [0, 2, 1]),
        )

    def project_memory(self, memory: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Projects the encoder's output [B, S, D] to keys and values: [2, B, H, S, d] for each layer."""
        batch, length, heads = tf.shape(memory)[0], tf.shape(memory)[1], self.config.num_heads
        if not self.weights.memory:
            raise ValueError("the decoder has no cross-attention")
        flat = self.weights.memory(tf.reshape(memory, [-1, self.config.d_model]))  # [B * S, L * 2 * D]
        split = tf.reshape(flat, [batch, length, len(self.weights.layers), 2, heads, self.head_size])
        return tuple(tf.unstack(tf.transpose(split, [2, 3, 0, 4, 1, 5])))

    def __call__(
        self,
        tokens: tf.Tensor,
        positions: tf.Tensor,
        encoding: tf.Tensor,
        caches: tuple[tf.Tensor, ...],
        context: AttentionContext,
    ) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
        """Decodes K tokens per row.

        Args:
            tokens: int32 [B, K].
            positions: int32 [1] or [K], positions of the tokens in the cache; also their rotary positions.
            encoding: float, broadcasts to [B, K, D]; the positional encoding to add to the embeddings.
            caches: keys and values of the previous tokens for each layer, [2 * B * H, C * K * d].
            context: biases, source keys and values, and the permutation of heads.
        Returns:
            Logits, float32 [N, V + padding], and the caches with keys and values of these tokens.
        """
        config, weights = self.config, self.weights
        x = tf.cast(tf.gather(weights.embedding, tokens), encoding.dtype)  # [B, K, D]
        x = tf.reshape(x * config.embedding_scale + encoding, [-1, config.d_model])  # [N, D]
        x = self._normed(x, weights.embedding_norm)
        x = _centre(x) if config.norm_first else x
        updated = []
        for layer, cache, memory in zip(weights.layers, caches, context.memories, strict=True):
            with tf.name_scope("self_attention"):
                y, cache = self._self_attention(layer.self_attention, self._pre_norm(x), positions, cache, context)
                x = self._normed(x + y, layer.self_attention.norm)
            if layer.cross_attention:
                with tf.name_scope("cross_attention"):
                    y = self._cross_attention(layer.cross_attention, self._pre_norm(x), memory, context)
                    x = self._normed(x + y, layer.cross_attention.norm)
            with tf.name_scope("feed_forward"):
                y = self._feed_forward(layer.feed_forward, self._pre_norm(x))
                x = self._normed(x + y, layer.feed_forward.norm)
            updated.append(cache)
        with tf.name_scope("logits"):
            return tf.cast(weights.output(self._pre_norm(x)), tf.float32), tuple(updated)

    def _pre_norm(self, x: tf.Tensor) -> tf.Tensor:
        return _normalise(x, self.config.layer_norm_epsilon) if self.config.norm_first else x

    def _normed(self, x: tf.Tensor, norm: Norm | tuple[()]) -> tf.Tensor:
        return _normalise(_centre(x), self.config.layer_norm_epsilon) * norm.gamma + norm.beta if norm else x

    def _self_attention(
        self, weights: SubLayer, x: tf.Tensor, positions: tf.Tensor, cache: tf.Tensor, context: AttentionContext
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Writes keys and values of the tokens into the cache, then attends to the whole cache."""
        vectors = tf.reshape(weights.in_projection(x), [-1, self.head_size])  # [N * 3 * H, d]
        vectors = tf.gather(vectors, context.permutation.qkv)  # [3 * B * H * K, d]
        heads = tf.reshape(vectors, [3, -1, self.config.num_heads, self.tokens_per_row, self.head_size])
        if self.config.positions == "rotary":
            heads = tf.concat([rotate(heads[:2], positions), heads[2:]], 0)
        width = self.tokens_per_row * self.head_size
        cache = write_slice(cache, positions[0] * width, tf.reshape(heads[1:], [-1, width]))
        bias = context.self_attention_bias  # [B, 1, K, C * K]
        shape = [2, tf.shape(bias)[0], self.config.num_heads, tf.shape(bias)[3], self.head_size]
        keys, values = tf.unstack(tf.reshape(cache, shape))  # [B, H, C * K, d]
        return weights.out_projection(self._join(self.attend(heads[0], keys, values, bias), context.permutation)), cache

    def _cross_attention(
        self, weights: SubLayer, x: tf.Tensor, memory: tf.Tensor, context: AttentionContext
    ) -> tf.Tensor:
        query = weights.in_projection(x)  # [N, D]
        if not self._one_token:
            query = tf.gather(tf.reshape(query, [-1, self.head_size]), context.permutation.query)
        query = tf.reshape(query, [-1, self.config.num_heads, self.tokens_per_row, self.head_size])
        keys, values = tf.unstack(memory)  # [B, H, S, d]
        heads = self.attend(query, keys, values, context.memory_bias)
        return weights.out_projection(self._join(heads, context.permutation))

    @property
    def _one_token(self) -> bool:
        """Whether K is known to be 1, so that heads need not be permuted."""
        return isinstance(self.tokens_per_row, int) and self.tokens_per_row == 1

    def _join(self, heads: tf.Tensor, permutation: HeadPermutation) -> tf.Tensor:
        """[B, H, K, d] -> [N, D]"""
        if not self._one_token:
            heads = tf.gather(tf.reshape(heads, [-1, self.head_size]), permutation.output)
        return tf.reshape(heads, [-1, self.config.d_model])

    def _feed_forward(self, weights: SubLayer, x: tf.Tensor) -> tf.Tensor:
        hidden = weights.in_projection(x)
        if self.config.activation == "swiglu":
            gate, value = tf.split(hidden, 2, axis=-1)
            return weights.out_projection(tf.nn.silu(gate) * value)
        return weights.out_projection(tf.nn.relu(hidden) if self.config.activation == "relu" else tf.nn.gelu(hidden))


def _normalise(x: tf.Tensor, epsilon: float) -> tf.Tensor:
    """Layer norm, without gamma and beta, of rows with mean zero; computed in float32, as in training."""
    float32 = tf.cast(x, tf.float32)
    variance = tf.reduce_mean(tf.square(float32), -1, keepdims=True)
    return tf.cast(float32 * tf.math.rsqrt(variance + epsilon), x.dtype)


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


def attend_small_batch(query: tf.Tensor, keys: tf.Tensor, values: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """Computes the same as `attend` for K = 1, without matrix products.

    Matrix products take long to start. This function is faster for a few rows and slower for many.
    """
    scores = tf.reduce_sum(query * keys, -1, keepdims=True) + tf.reshape(bias, [tf.shape(bias)[0], 1, -1, 1])
    weights = tf.exp(scores - tf.reduce_max(scores, 2, keepdims=True))  # [B, H, C, 1]
    return tf.reduce_sum(weights * values, 2, keepdims=True) / tf.reduce_sum(weights, 2, keepdims=True)


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
