"""Encoder and decoder layers: sub-layers, each with a residual connection and layer normalisation.

Decoding, one token at a time, does not use these classes but an equivalent forward pass; see decoding/step.py.
"""

import dataclasses
from typing import Any

import keras
import tensorflow as tf

from seq2serve.models.config import ModelConfig
from seq2serve.models.transformer.attention import MultiHeadAttention
from seq2serve.models.transformer.layers import Dropout, FeedForward, LayerNormalization


@keras.saving.register_keras_serializable("seq2serve")
class Residual(keras.layers.Layer):
    """Residual connection around a sub-layer f (section 3.1).

    Post-norm, as in the paper, is LayerNorm(x + f(x)); pre-norm is x + f(LayerNorm(x)). Pre-norm trains without a
    carefully tuned warm-up (Xiong et al. 2020).

    Args:
        dropout: dropout rate on the output of f (section 5.4).
        norm_first: True for pre-norm.
        epsilon: of the norm.
    """

    def __init__(self, dropout: float, norm_first: bool, epsilon: float = 1e-6, **kwargs: Any):
        super().__init__(**kwargs)
        self.norm_first = norm_first
        self.norm, self.dropout = LayerNormalization(epsilon), Dropout(dropout)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the norm's weights."""
        self.norm.build(input_shape)

    def before(self, x: tf.Tensor) -> tf.Tensor:
        """Returns the sub-layer's input: LayerNorm(x) or x."""
        return self.norm(x) if self.norm_first else x

    def call(self, x: tf.Tensor, output: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Adds x and the sub-layer's output, both float [..., D]."""
        x = x + self.dropout(output, training=training)
        return x if self.norm_first else self.norm(x)


class _Block(keras.layers.Layer):
    """Base class of encoder and decoder layers: config, build and serialisation."""

    def __init__(self, config: ModelConfig, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config

    def _attention(self, rotary: bool) -> MultiHeadAttention:
        config = self.config
        return MultiHeadAttention(config.d_model, config.num_heads, config.attention_dropout, rotary)

    def _feed_forward(self) -> FeedForward:
        config = self.config
        return FeedForward(config.d_model, config.dff, config.activation, config.activation_dropout)

    def _residual(self) -> Residual:
        return Residual(self.config.dropout, self.config.norm_first, self.config.layer_norm_epsilon)

    def build(self, *_shapes: Any) -> None:
        """Creates the weights of every sub-layer."""
        for layer in self._flatten_layers(include_self=False, recursive=False):
            layer.build((None, None, self.config.d_model))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments for `from_config`."""
        return {**super().get_config(), "config": dataclasses.asdict(self.config)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "_Block":
        """Makes a layer from the result of `get_config`."""
        return cls(**{**config, "config": ModelConfig(**config["config"])})


@keras.saving.register_keras_serializable("seq2serve")
class EncoderLayer(_Block):
    """Self-attention, then feed-forward (section 3.1, "Encoder").

    Args:
        config: sizes; see models/config.py.
    """

    def __init__(self, config: ModelConfig, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.self_attention = self._attention(rotary=config.positions == "rotary")
        self.feed_forward = self._feed_forward()
        self.self_residual, self.feed_residual = self._residual(), self._residual()

    def call(self, x: tf.Tensor, attention_mask: tf.Tensor | None, training: bool = False) -> tf.Tensor:
        """Float [B, S, D] and a mask that broadcasts to [B, H, S, S] -> float [B, S, D]."""
        y = self.self_attention(self.self_residual.before(x), attention_mask=attention_mask, training=training)
        x = self.self_residual(x, y, training=training)
        y = self.feed_forward(self.feed_residual.before(x), training=training)
        return self.feed_residual(x, y, training=training)


@keras.saving.register_keras_serializable("seq2serve")
class DecoderLayer(_Block):
    """Masked self-attention, attention to the encoder's output, then feed-forward (section 3.1, "Decoder").

    Args:
        config: sizes; see models/config.py.
        cross_attention: False omits the second sub-layer, for a language model.
    """

    def __init__(self, config: ModelConfig, cross_attention: bool = True, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.self_attention = self._attention(rotary=config.positions == "rotary")
        self.self_residual = self._residual()
        self.cross_attention = self._attention(rotary=False) if cross_attention else None
        self.cross_residual = self._residual() if cross_attention else None
        self.feed_forward, self.feed_residual = self._feed_forward(), self._residual()

    def call(
        self,
        x: tf.Tensor,
        attention_mask: tf.Tensor,
        memory: tf.Tensor | None = None,
        memory_mask: tf.Tensor | None = None,
        training: bool = False,
    ) -> tf.Tensor:
        """Computes all positions at once.

        Args:
            x: float [B, T, D].
            attention_mask: causal mask, bool, broadcasts to [B, H, T, T].
            memory: the encoder's output, float [B, S, D]; unused without cross-attention.
            memory_mask: bool, broadcasts to [B, H, T, S].
            training: whether to apply dropout.
        Returns:
            float [B, T, D].
        """
        y = self.self_attention(self.self_residual.before(x), attention_mask=attention_mask, training=training)
        x = self.self_residual(x, y, training=training)
        if self.cross_attention is not None and self.cross_residual is not None:
            query = self.cross_residual.before(x)
            y = self.cross_attention(query, memory, attention_mask=memory_mask, training=training)
            x = self.cross_residual(x, y, training=training)
        y = self.feed_forward(self.feed_residual.before(x), training=training)
        return self.feed_residual(x, y, training=training)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments for `from_config`."""
        return {**super().get_config(), "cross_attention": self.cross_attention is not None}
