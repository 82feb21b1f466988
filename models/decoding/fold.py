"""The decoder of a model with weights prepared for decoding, one token at a time.

For one sentence, a step consists of some twenty small matrix products. The time of the rest depends on the number of
operations, not on their size. So `FoldedDecoder` has the layers of the model, and in their weights everything that does
not depend on the token.
"""

import dataclasses
from typing import Any

import keras
import tensorflow as tf

from seq2serve.models.decoding.tuning import GROUP, NEG_INF
from seq2serve.models.transformer.attention import CrossAttention, SelfAttention
from seq2serve.models.transformer.blocks import DecoderLayer
from seq2serve.models.transformer.cache import StepContext, head_permutation
from seq2serve.models.transformer.layers import LayerNormalization, dtype_policy, linear
from seq2serve.models.transformer.models import Decoder, DecoderLanguageModel, Transformer

_Projection = tuple[tf.Tensor, tf.Tensor]  # kernel [D_in, D_out] and bias [D_out]

# Sub-layer, its residual connection, and the weights of its first and last projection.
_OUT = ("out_kernel", "out_bias")
_PARTS = (
    ("self_attention", "self_residual", ("in_kernel", "in_bias"), _OUT),
    ("cross_attention", "cross_residual", ("query_kernel", "query_bias"), _OUT),
    ("feed_forward", "feed_residual", ("kernel_1", "bias_1"), ("kernel_2", "bias_2")),
)
_MEMORY = ("memory_kernel", "memory_bias")


class FoldedDecoder:
    """The decoder of a model, folded; the logits stay the same.

    - The factor of the attention scores is folded into the query projection.
    - Pre-norm: scale and shift of a norm are folded into the projection after it. The mean is subtracted from
      everything that is added to the residual stream. The input of every norm then has mean zero, so norms do not
      compute it.
    - The output matrix is stored as [D, V]; a product with its transpose takes up to twice as long. V is padded to a
      multiple of GROUP, for `top_k`, with logits of NEG_INF.

    Args:
        model: a built Transformer or DecoderLanguageModel.
    """

    def __init__(self, model: Transformer | DecoderLanguageModel):
        self.model = model
        config = dataclasses.replace(
            model.config, use_bias=True, dropout=0.0, attention_dropout=0.0, activation_dropout=0.0
        )
        has_source = isinstance(model, Transformer)
        with dtype_policy(model.compute_dtype):
            self.decoder = Decoder(config, has_source, folded=True)
            self._output = keras.layers.Dense(-(-model.vocab_size // GROUP) * GROUP)
        self.decoder.build()
        self._output.build((None, config.d_model))
        self._is_centred = config.norm_first and config.norm == "layer"
        self.refresh()

    @property
    def weights(self) -> list[keras.Variable]:
        """Returns the folded weights, without those of the model."""
        return [*self.decoder.weights, *self._output.weights]

    def refresh(self) -> None:
        """Computes the weights again, after those of the model have changed."""
        source = self.model.decoder
        _copy(source.positions, self.decoder.positions)
        _copy(source.embedding_norm, self.decoder.embedding_norm)
        for layer, folded in zip(source.layers, self.decoder.layers, strict=True):
            _fold_layer(layer, folded)
        embedding = self.model.output_embedding
        kernel = tf.transpose(tf.convert_to_tensor(embedding.matrix))
        bias = tf.zeros(kernel.shape[1]) if embedding.bias is None else tf.convert_to_tensor(embedding.bias)
        kernel, bias = (kernel, bias) if source.norm is None else _fold_norm(source.norm, kernel, bias)
        padding = [0, self._output.units - self.model.vocab_size]
        self._output.kernel.assign(tf.pad(kernel, [[0, 0], padding]))
        self._output.bias.assign(tf.pad(bias, [padding], constant_values=NEG_INF))

    def read(self) -> keras.StatelessScope:
        """Reads the weights once: in this scope, which is for a graph with loops, they are tensors."""
        weights = [*self.weights, self.model.target_embedding.matrix]
        return keras.StatelessScope([(variable, tf.convert_to_tensor(variable.value)) for variable in weights])

    @property
    def groups(self) -> int:
        """Returns G, the number of query heads for each head of keys and values."""
        attention = self.decoder.layers[0].self_attention
        return attention.num_heads // attention.num_kv_heads

    @property
    def head_size(self) -> int:
        """Returns d, the number of channels of a head."""
        return self.decoder.layers[0].self_attention.head_size

    def encoding(self, positions: tf.Tensor) -> tf.Tensor:
        """Returns what is added to the embeddings at int [T] or [B, T] positions: float [T, D] or [B, T, D]."""
        shape = tf.concat([tf.shape(positions), [self.model.config.d_model]], 0)
        return self.decoder.positions(tf.zeros(shape, self.model.compute_dtype), positions)

    def grouped_bias(self, bias: tf.Tensor) -> tf.Tensor:
        """Repeats a bias for the query heads of a group: float [B, 1, K, C * K] -> [B, 1, G * K, C * K]."""
        return bias if self.groups == 1 else tf.tile(bias, [1, 1, self.groups, 1])

    def context(self, bias: tf.Tensor, tokens: int | tf.Tensor, positions: tf.Tensor) -> StepContext:
        """Makes the context of a step without a source.

        Args:
            bias: float [B, 1, K, C * K], added to the scores of self-attention.
            tokens: K.
            positions: see StepContext.
        """
        attention = self.decoder.layers[0].self_attention
        permutation = head_permutation(tf.shape(bias)[0], tokens, attention.num_heads, attention.num_kv_heads)
        return StepContext(tokens, positions, self.grouped_bias(bias), (), permutation)

    def step(
        self,
        tokens: tf.Tensor,
        encoding: tf.Tensor,
        caches: tuple[tf.Tensor, ...],
        memories: tuple[Any, ...],
        context: StepContext,
    ) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
        """Decodes K tokens per row.

        Args:
            tokens: int32 [B, K].
            encoding: float, broadcasts to [B, K, D]; the positional encoding to add to the embeddings.
            caches: keys and values of the previous tokens for each layer; see DecoderLayer.step.
            memories: keys and values of the source for each layer; empty tuples in a language model.
            context: see StepContext.
        Returns:
            Logits, float32 [N, V + padding], and the caches with keys and values of these tokens.
        """
        embedding, decoder = self.model.target_embedding, self.decoder
        x = tf.cast(tf.gather(tf.convert_to_tensor(embedding.matrix), tokens), encoding.dtype)  # [B, K, D]
        x = tf.reshape(x * embedding.scale + encoding, [-1, embedding.d_model])  # [N, D]
        x = decoder.embedding_norm(x) if decoder.embedding_norm else x
        x = _centre(x) if self._is_centred else x
        updated = []
        for layer, cache, memory in zip(decoder.layers, caches, memories, strict=True):
            x, cache = layer.step(x, cache, memory, context)
            updated.append(cache)
        with tf.name_scope("logits"):
            logits = linear(decoder.finish(x), self._output.kernel, self._output.bias)
            return tf.cast(logits, tf.float32), tuple(updated)


def _fold_layer(layer: DecoderLayer, folded: DecoderLayer) -> None:
    """Assigns the weights of a layer to a folded one."""
    for part, residual, first, last in _PARTS:
        source, target, norms = getattr(layer, part), getattr(folded, part), getattr(layer, residual)
        if source is None:
            continue
        kernel, bias = _read(source, first)
        scale = _scale(source)
        kernel, bias = kernel * scale, bias * scale
        out_kernel, out_bias = _read(source, last)
        if norms.norm_first:
            kernel, bias = _fold_norm(norms.norm, kernel, bias)
            if norms.norm.kind == "layer":
                out_kernel, out_bias = _centre(out_kernel), _centre(out_bias)
        _assign(target, first, (kernel, bias))
        _assign(target, last, (out_kernel, out_bias))
        if isinstance(source, CrossAttention):
            _assign(target, _MEMORY, _read(source, _MEMORY))
        if not norms.norm_first:
            _copy(norms.norm, getattr(folded, residual).norm)


def _scale(part: keras.layers.Layer) -> tf.Tensor | float:
    """Returns the factor of the channels of a sub-layer's first projection."""
    if isinstance(part, SelfAttention):
        return tf.repeat([part.head_size**-0.5, 1.0], [part.d_model, part.kv_width])  # queries; keys and values
    return part.head_size**-0.5 if isinstance(part, CrossAttention) else 1.0


def _read(layer: keras.layers.Layer, names: tuple[str, str]) -> _Projection:
    """Returns a projection of a layer in float32; without a bias, zeros."""
    kernel, bias = (getattr(layer, name) for name in names)
    kernel = tf.cast(tf.convert_to_tensor(kernel), tf.float32)
    return kernel, tf.zeros(kernel.shape[1]) if bias is None else tf.cast(tf.convert_to_tensor(bias), tf.float32)


def _assign(layer: keras.layers.Layer, names: tuple[str, str], values: _Projection) -> None:
    for name, value in zip(names, values, strict=True):
        getattr(layer, name).assign(value)


def _copy(layer: keras.layers.Layer | None, target: keras.layers.Layer | None) -> None:
    """Assigns the weights of a layer to an equal one."""
    if layer is not None and target is not None:
        for weight, copied in zip(layer.weights, target.weights, strict=True):
            copied.assign(weight)


def _fold_norm(norm: LayerNormalization, kernel: tf.Tensor, bias: tf.Tensor) -> _Projection:
    """(gamma n + beta) W + b = n (gamma W) + (beta W + b)"""
    if norm.beta is not None:
        bias += tf.linalg.matvec(kernel, tf.convert_to_tensor(norm.beta), transpose_a=True)
    return tf.convert_to_tensor(norm.gamma)[:, tf.newaxis] * kernel, bias


def _centre(x: tf.Tensor) -> tf.Tensor:
    return x - tf.reduce_mean(x, -1, keepdims=True)
