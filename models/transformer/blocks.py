"""Encoder and decoder layers: sub-layers, each with a residual connection and layer normalisation.

A decoder layer has one definition, `_sub_layers`, for all positions at once (`call`) and for a few tokens with cached
keys and values (`step`). Where it reads earlier tokens, it has self-attention or, with `config.decoder`, an SSRU.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from seq2serve.models.config import ModelConfig
from seq2serve.models.transformer.attention import CrossAttention, Rotary, SelfAttention
from seq2serve.models.transformer.cache import StepContext
from seq2serve.models.transformer.layers import Dropout, FeedForward, LayerNormalization
from seq2serve.models.transformer.ssru import SSRU

# Float [..., D] -> (the output of the sub-layer, float [..., D], and attention weights or a cache).
SubLayer = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


@keras.saving.register_keras_serializable("seq2serve")
class Residual(keras.layers.Layer):
    """Residual connection around a sub-layer f (section 3.1).

    Post-norm, as in the paper, is LayerNorm(x + f(x)); pre-norm is x + f(LayerNorm(x)). Pre-norm trains without a
    carefully tuned warm-up (Xiong et al. 2020).

    Args:
        dropout: dropout rate on the output of f (section 5.4).
        norm_first: True for pre-norm.
        norm: the norm.
    """

    def __init__(self, dropout: float, norm_first: bool, norm: LayerNormalization, **kwargs: Any):
        super().__init__(**kwargs)
        self.norm_first, self.norm, self.dropout = norm_first, norm, Dropout(dropout)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the norm's weights."""
        self.norm.build(input_shape)

    def around(self, x: tf.Tensor, sub_layer: SubLayer, training: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
        """Applies a sub-layer: float [..., D] -> float [..., D], and what else the sub-layer returns."""
        y, extra = sub_layer(self.norm(x, training=training) if self.norm_first else x)
        x = x + self.dropout(y, training=training)
        return (x if self.norm_first else self.norm(x, training=training)), extra


class _Block(keras.layers.Layer):
    """Base class of encoder and decoder layers: config, build and serialisation.

    Args:
        config: sizes; see models/config.py.
        folded: for the weights of decoding/fold.py: the factor of attention scores, and the scale and shift of norms
            before a sub-layer, are in the projections.
    """

    def __init__(self, config: ModelConfig, folded: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.config, self.folded = config, folded

    def _attention_options(self) -> dict[str, Any]:
        config = self.config
        names = ("d_model", "num_heads", "num_kv_heads", "use_bias")
        options = {name: getattr(config, name) for name in names}
        return {**options, "dropout": config.attention_dropout, "scale": 1.0 if self.folded else None}

    def _self_attention(self) -> SelfAttention:
        config = self.config
        rotary = Rotary(config.rotary_base, config.rotary_layout) if config.positions == "rotary" else None
        return SelfAttention(**self._attention_options(), rotary=rotary)

    def _ssru(self) -> SSRU:
        config = self.config
        is_centred = self.folded and config.norm_first and config.norm == "layer"
        return SSRU(config.d_model, config.use_bias, is_centred)

    def _feed_forward(self) -> FeedForward:
        config = self.config
        sizes = (config.d_model, config.dff, config.activation, config.activation_dropout, config.use_bias)
        return FeedForward(*sizes)

    def _residual(self) -> Residual:
        config = self.config
        norm = make_norm(config, folded=self.folded and config.norm_first)
        return Residual(config.dropout, config.norm_first, norm)

    def build(self, *_shapes: Any) -> None:
        """Creates the weights of every sub-layer."""
        for layer in self._flatten_layers(include_self=False, recursive=False):
            layer.build((None, None, self.config.d_model))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments for `from_config`."""
        return {**super().get_config(), "config": dataclasses.asdict(self.config), "folded": self.folded}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "_Block":
        """Makes a layer from the result of `get_config`."""
        return cls(**{**config, "config": ModelConfig(**config["config"])})


def make_norm(config: ModelConfig, folded: bool = False, **kwargs: Any) -> LayerNormalization:
    """Makes a norm of a model; a folded one has no weights, and its input has the mean 0."""
    kind = "rms" if folded else config.norm
    return LayerNormalization(config.layer_norm_epsilon, kind, affine=not folded, **kwargs)


@keras.saving.register_keras_serializable("seq2serve")
class EncoderLayer(_Block):
    """Self-attention, then feed-forward (section 3.1, "Encoder").

    Args:
        config, folded: see _Block.
    """

    def __init__(self, config: ModelConfig, folded: bool = False, **kwargs: Any):
        super().__init__(config, folded, **kwargs)
        self.self_attention, self.feed_forward = self._self_attention(), self._feed_forward()
        self.self_residual, self.feed_residual = self._residual(), self._residual()

    def call(
        self,
        x: tf.Tensor,
        attention_mask: tf.Tensor | None,
        training: bool = False,
        return_weights: bool = False,
    ) -> tf.Tensor | tuple[tf.Tensor, tf.Tensor]:
        """Float [B, S, D] and a mask that broadcasts to [B, H, S, S] -> float [B, S, D].

        With `return_weights`, the attention weights, float [B, H, S, S], are returned as well.
        """
        options = {"training": training, "return_weights": True}
        x, weights = self.self_residual.around(
            x, lambda query: self.self_attention(query, attention_mask, **options), training
        )
        x = _feed(self, x, training)
        return (x, weights) if return_weights else x


def _feed(layer: _Block, x: tf.Tensor, training: bool = False) -> tf.Tensor:
    """Applies the feed-forward sub-layer: float [..., D] -> [..., D]."""
    x, _ = layer.feed_residual.around(x, lambda y: (layer.feed_forward(y, training=training), y), training)
    return x


@keras.saving.register_keras_serializable("seq2serve")
class DecoderLayer(_Block):
    """Masked self-attention, attention to the encoder's output, then feed-forward (section 3.1, "Decoder").

    With `config.decoder` "ssru", there is an SSRU instead of self-attention.

    Args:
        config, folded: see _Block.
        cross_attention: False omits the second sub-layer, for a language model.
    """

    def __init__(self, config: ModelConfig, cross_attention: bool = True, folded: bool = False, **kwargs: Any):
        super().__init__(config, folded, **kwargs)
        is_recurrent = config.decoder == "ssru"
        self.self_attention = None if is_recurrent else self._self_attention()
        self.ssru = self._ssru() if is_recurrent else None
        self.self_residual = self._residual()
        options = self._attention_options()
        self.cross_attention = CrossAttention(**options) if cross_attention else None
        self.cross_residual = self._residual() if cross_attention else None
        self.feed_forward, self.feed_residual = self._feed_forward(), self._residual()

    def call(
        self,
        x: tf.Tensor,
        attention_mask: tf.Tensor,
        memory: tf.Tensor | None = None,
        memory_mask: tf.Tensor | None = None,
        training: bool = False,
        return_weights: bool = False,
    ) -> tf.Tensor | tuple[tf.Tensor, list[tf.Tensor]]:
        """Computes all positions at once.

        Args:
            x: float [B, T, D].
            attention_mask: causal mask, bool, broadcasts to [B, H, T, T]; unused by an SSRU.
            memory: the encoder's output, float [B, S, D]; unused without cross-attention.
            memory_mask: bool, broadcasts to [B, H, T, S].
            training: whether to apply dropout.
            return_weights: whether to return the attention weights as well: a list of those of self-attention, float
                [B, H, T, T], unless there is an SSRU, and of cross-attention, float [B, H, T, S].
        Returns:
            float [B, T, D].
        """
        options = {"training": training, "return_weights": True}

        def read(query: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            if self.self_attention is not None:
                return self.self_attention(query, attention_mask, **options)
            assert self.ssru is not None
            return self.ssru(query), query

        x, weights = self._sub_layers(
            x,
            read,
            lambda cross_attention, query: cross_attention(query, memory, memory_mask, **options),
            training,
        )
        return (x, weights[1:] if self.ssru else weights) if return_weights else x

    def step(
        self, x: tf.Tensor, cache: tf.Tensor, memory: tf.Tensor | tuple[()], context: StepContext
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Computes K tokens of each row, whose keys and values are written into the cache.

        For an SSRU, these are the next tokens of K hypotheses, not several tokens of one.

        Args:
            x: float [N, D].
            cache: keys and values of the tokens before, float [2 * B * H / G, C * K * d]; the state of an SSRU, float
                [N, D].
            memory: keys and values of the source, float [2, B, H / G, S, d]; empty without cross-attention.
            context: see StepContext.
        Returns:
            float [N, D] and the cache.
        """

        def read(query: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            if self.self_attention is not None:
                return self.self_attention.step(query, cache, context)
            assert self.ssru is not None
            return self.ssru.step(query, cache)

        x, (cache, *_) = self._sub_layers(
            x,
            read,
            lambda cross_attention, query: cross_attention.step(query, memory, context),
        )
        return x, cache

    def _sub_layers(
        self,
        x: tf.Tensor,
        read: SubLayer,
        attend_memory: Callable[[CrossAttention, tf.Tensor], tuple[tf.Tensor, tf.Tensor]],
        training: bool = False,
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Returns the output, float [..., D], and what else `read`, of earlier tokens, and `attend_memory` return."""
        with tf.name_scope("ssru" if self.ssru else "self_attention"):
            x, extra = self.self_residual.around(x, read, training)
        extras = [extra]
        if self.cross_attention is not None and self.cross_residual is not None:
            with tf.name_scope("cross_attention"):
                attend_memory = functools.partial(attend_memory, self.cross_attention)
                x, extra = self.cross_residual.around(x, attend_memory, training)
            extras.append(extra)
        with tf.name_scope("feed_forward"):
            return _feed(self, x, training), extras

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments for `from_config`."""
        return {**super().get_config(), "cross_attention": self.cross_attention is not None}
