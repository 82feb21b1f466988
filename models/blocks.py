"""One layer of the encoder and one of the decoder: sub-layers, each with its residual connection and its norm.

Comes in: vectors [B, T, D] and masks. Goes out: vectors of the same shape.
Read next: transformer.py, which stacks them; decoding.py, which calls `DecoderLayer.step` once a token.
"""

import dataclasses

import keras
import tensorflow as tf

from models.attention import MultiHeadAttention
from models.config import ModelConfig
from models.layers import Dropout, FeedForward, LayerNormalization


@keras.saving.register_keras_serializable("seq2serve")
class Residual(keras.layers.Layer):
    """Joins a sub-layer f (section 3.1): post-norm LayerNorm(x + f(x)) (the paper) or pre-norm x + f(LayerNorm(x)).

    Pre-norm trains without a warm-up that must be tuned (Xiong et al. 2020).

    Args:
        dropout: rate on f's output (section 5.4).
        norm_first: True for pre-norm.
    """

    def __init__(self, dropout: float, norm_first: bool, **kwargs):
        super().__init__(**kwargs)
        self.norm_first = norm_first
        self.norm, self.dropout = LayerNormalization(), Dropout(dropout)

    def build(self, input_shape) -> None:
        """Makes the norm's weights."""
        self.norm.build(input_shape)

    def before(self, x: tf.Tensor) -> tf.Tensor:
        """Returns what the sub-layer sees of x."""
        return self.norm(x) if self.norm_first else x

    def call(self, x: tf.Tensor, output: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Joins x and the sub-layer's output, both float [..., D]."""
        x = x + self.dropout(output, training=training)
        return x if self.norm_first else self.norm(x)


class _Block(keras.layers.Layer):
    """What an encoder layer and a decoder layer share: their config and their build."""

    def __init__(self, config: ModelConfig, **kwargs):
        super().__init__(**kwargs)
        self.config = config

    def _attention(self, rotary: bool) -> MultiHeadAttention:
        config = self.config
        return MultiHeadAttention(config.d_model, config.num_heads, config.attention_dropout, rotary)

    def _feed_forward(self) -> FeedForward:
        config = self.config
        return FeedForward(config.d_model, config.dff, config.activation, config.activation_dropout)

    def _residual(self) -> Residual:
        return Residual(self.config.dropout, self.config.norm_first)

    def build(self, *_shapes) -> None:
        """Makes the weights of every sub-layer."""
        for layer in self._flatten_layers(include_self=False, recursive=False):
            layer.build((None, None, self.config.d_model))

    def get_config(self) -> dict:
        """Returns what `from_config` needs."""
        return {**super().get_config(), "config": dataclasses.asdict(self.config)}

    @classmethod
    def from_config(cls, config: dict) -> "_Block":
        """Makes the layer that `get_config` described."""
        return cls(**{**config, "config": ModelConfig(**config["config"])})


@keras.saving.register_keras_serializable("seq2serve")
class EncoderLayer(_Block):
    """Self-attention, then feed-forward (section 3.1, "Encoder").

    Args:
        config: sizes; see models/config.py.
    """

    def __init__(self, config: ModelConfig, **kwargs):
        super().__init__(config, **kwargs)
        self.self_attention = self._attention(rotary=config.positions == "rotary")
        self.feed_forward = self._feed_forward()
        self.self_residual, self.feed_residual = self._residual(), self._residual()

    def call(self, x: tf.Tensor, attention_mask: tf.Tensor | None, training: bool = False) -> tf.Tensor:
        """Float [B, S, D] and a mask for [B, H, S, S] -> float [B, S, D]."""
        y = self.self_attention(self.self_residual.before(x), attention_mask=attention_mask, training=training)
        x = self.self_residual(x, y, training=training)
        y = self.feed_forward(self.feed_residual.before(x), training=training)
        return self.feed_residual(x, y, training=training)


@keras.saving.register_keras_serializable("seq2serve")
class DecoderLayer(_Block):
    """Masked self-attention, attention to the encoder's output, then feed-forward (section 3.1, "Decoder").

    Args:
        config: sizes; see models/config.py.
        cross_attention: False leaves the second sub-layer out, for a language model.
    """

    def __init__(self, config: ModelConfig, cross_attention: bool = True, **kwargs):
        super().__init__(config, **kwargs)
        self.self_attention = self._attention(rotary=config.positions == "rotary")
        self.self_residual = self._residual()
        self.cross_attention = self._attention(rotary=False) if cross_attention else None
        self.cross_residual = self._residual() if cross_attention else None
        self.feed_forward, self.feed_residual = self._feed_forward(), self._residual()

    def call(self, x, attention_mask, memory=None, memory_mask=None, training=False) -> tf.Tensor:
        """Decodes all positions at once.

        Args:
            x: float [B, T, D].
            attention_mask: bool for [B, H, T, T], causal.
            memory: the encoder's output, float [B, S, D].
            memory_mask: bool for [B, H, T, S].
            training: whether to drop.
        Returns:
            float [B, T, D].
        """
        y = self.self_attention(self.self_residual.before(x), attention_mask=attention_mask, training=training)
        x = self.self_residual(x, y, training=training)
        if self.cross_attention is not None:
            y = self.cross_attention(
                self.cross_residual.before(x), memory, attention_mask=memory_mask, training=training
            )
            x = self.cross_residual(x, y, training=training)
        y = self.feed_forward(self.feed_residual.before(x), training=training)
        return self.feed_residual(x, y, training=training)

    def get_config(self) -> dict:
        """Returns what `from_config` needs."""
        return {**super().get_config(), "cross_attention": self.cross_attention is not None}
