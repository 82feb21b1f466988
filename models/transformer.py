"""Three models made of the same blocks: Transformer, EncoderClassifier, DecoderLanguageModel.

Comes in: token ids, int32 [B, length], 0 where padded. Goes out: logits, float32.
Read next: learner.py for how they learn, decoding.py for how they write, export.py for how they are served.
"""

import dataclasses
import functools
from collections.abc import Callable

import keras
import tensorflow as tf

from models.attention import causal_mask, document_mask, padding_mask
from models.blocks import DecoderLayer, EncoderLayer
from models.config import ModelConfig
from models.layers import Dropout, LayerNormalization, PositionalEncoding, TokenEmbedding
from models.learner import Learner


class _Stack(keras.layers.Layer):
    """Embeddings with positions, then layers one after the other (section 3.1).

    Args:
        config: sizes.
        num_layers: how many there are.
        make_layer: (name) -> an encoder or decoder layer.
    """

    def __init__(self, config: ModelConfig, num_layers: int, make_layer: Callable, **kwargs):
        super().__init__(**kwargs)
        self.config = config
        self.positions = PositionalEncoding(config.positions, config.d_model, config.max_positions)
        self.dropout = Dropout(config.dropout)
        self.layers = [make_layer(name=f"layer_{i}") for i in range(num_layers)]
        self.norm = LayerNormalization() if config.norm_first else None

    def build(self, *_shapes) -> None:
        """Makes the weights of every layer."""
        for layer in [self.positions, *self.layers, *([self.norm] if self.norm else [])]:
            layer.build((None, None, self.config.d_model))

    def start(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Adds positions to embeddings, float [B, T, D]."""
        return self.dropout(self.positions(x, tf.range(tf.shape(x)[1])), training=training)

    def finish(self, x: tf.Tensor) -> tf.Tensor:
        """Applies the norm that a pre-norm stack needs after its last layer."""
        return self.norm(x) if self.norm else x


@keras.saving.register_keras_serializable("seq2serve")
class Encoder(_Stack):
    """The stack on the left of the paper's figure 1.

    Args:
        config: sizes.
    """

    def __init__(self, config: ModelConfig, **kwargs):
        super().__init__(config, config.num_encoder_layers, functools.partial(EncoderLayer, config), **kwargs)

    def call(self, x: tf.Tensor, attention_mask: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Float embeddings [B, S, D] and a mask for [B, H, S, S] -> float [B, S, D]."""
        x = self.start(x, training)
        for layer in self.layers:
            x = layer(x, attention_mask, training=training)
        return self.finish(x)


@keras.saving.register_keras_serializable("seq2serve")
class Decoder(_Stack):
    """The stack on the right of the paper's figure 1.

    Args:
        config: sizes.
        cross_attention: whether there is an encoder to attend to.
    """

    def __init__(self, config: ModelConfig, cross_attention: bool, **kwargs):
        make_layer = functools.partial(DecoderLayer, config, cross_attention)
        super().__init__(config, config.num_decoder_layers, make_layer, **kwargs)

    def call(self, x, memory=None, memory_mask=None, self_mask=None, training=False) -> tf.Tensor:
        """Float embeddings [B, T, D] (and the encoder's output [B, S, D] with its mask) -> float [B, T, D].

        `self_mask`, for [B, H, T, T], hides more of the text itself than its future.
        """
        x, mask = self.start(x, training), causal_mask(tf.shape(x)[1])
        mask = mask if self_mask is None else mask & self_mask
        for layer in self.layers:
            x = layer(x, mask, memory, memory_mask, training=training)
        return self.finish(x)


class _Model(Learner, keras.Model):
    """What the three models share: weights that are made at once, a config that saves and reloads."""

    def __init__(self, config: ModelConfig, vocab_size: int, **kwargs):
        super().__init__(**kwargs)
        self.config, self.vocab_size = config, vocab_size

    def build(self, *_shapes) -> None:
        """Makes the weights; embeddings that are one are made once."""
        for layer in self._flatten_layers(include_self=False, recursive=False):
            if not layer.built:
                layer.build((None, None, self.config.d_model))
                layer.built = True
        self.built = True

    def get_config(self) -> dict:
        """Returns what `from_config` needs."""
        return {"config": dataclasses.asdict(self.config), "vocab_size": self.vocab_size, "name": self.name}

    @classmethod
    def from_config(cls, config: dict, custom_objects=None) -> "_Model":
        """Makes the model that `get_config` described."""
        return cls(**{**config, "config": ModelConfig(**config["config"])})


@keras.saving.register_keras_serializable("seq2serve")
class Transformer(_Model):
    """The encoder-decoder of section 3.

    Args:
        config: sizes. With `tie_embeddings` one matrix serves source, target and output.
        vocab_size: V, of the target, and of the source where the matrix is shared.
        source_vocab_size: of the source where it has a vocabulary of its own; needs `tie_embeddings=False`.
    Raises:
        ValueError: vocabularies differ and embeddings are tied.
    """

    def __init__(self, config: ModelConfig, vocab_size: int, source_vocab_size: int | None = None, **kwargs):
        super().__init__(config, vocab_size, **kwargs)
        self.source_vocab_size = source_vocab_size or vocab_size
        if config.tie_embeddings and self.source_vocab_size != vocab_size:
            raise ValueError(f"tied embeddings need one vocabulary, not {self.source_vocab_size} and {vocab_size}")
        self.target_embedding = TokenEmbedding(vocab_size, config.d_model)
        tied, apart = config.tie_embeddings, TokenEmbedding
        self.source_embedding = self.target_embedding if tied else apart(self.source_vocab_size, config.d_model)
        self.output_embedding = self.target_embedding if tied else apart(vocab_size, config.d_model)
        self.encoder, self.decoder = Encoder(config), Decoder(config, cross_attention=True)

    def call(self, inputs: dict[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """Predicts each next target token from the source and the target so far.

        Args:
            inputs: `source` int [B, S] and `target` int [B, T], the target shifted right by its begin token.
            training: whether to drop.
        Returns:
            Logits, float32 [B, T, V].
        """
        memory, memory_mask = self.encode(inputs["source"], training=training)
        x = self.decoder(self.target_embedding(inputs["target"]), memory, memory_mask, training=training)
        return tf.cast(self.output_embedding.logits(x), tf.float32)

    def encode(self, source: tf.Tensor, training: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
        """Int [B, S] -> float [B, S, D] and the mask bool [B, 1, 1, S] that hides its padding."""
        mask = padding_mask(source)
        return self.encoder(self.source_embedding(source), mask, training=training), mask

    def get_config(self) -> dict:
        """Returns what `from_config` needs."""
        return {**super().get_config(), "source_vocab_size": self.source_vocab_size}


@keras.saving.register_keras_serializable("seq2serve")
class EncoderClassifier(_Model):
    """An encoder whose outputs are averaged and projected to classes.

    Args:
        config: sizes; the decoder's are not used.
        vocab_size: V.
        num_classes: number of labels.
    """

    def __init__(self, config: ModelConfig, vocab_size: int, num_classes: int, **kwargs):
        super().__init__(config, vocab_size, **kwargs)
        self.num_classes = num_classes
        self.embedding, self.encoder = TokenEmbedding(vocab_size, config.d_model), Encoder(config)
        self.dropout, self.head = Dropout(config.dropout), keras.layers.Dense(num_classes, name="head")

    def call(self, source: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Int [B, S] -> logits, float32 [B, num_classes]. A row of padding alone gets the logits of a zero vector."""
        mask = padding_mask(source)
        x = self.encoder(self.embedding(source), mask, training=training)
        seen = tf.cast(mask[:, 0, 0, :, tf.newaxis], x.dtype)
        mean = tf.reduce_sum(x * seen, 1) / tf.maximum(tf.reduce_sum(seen, 1), 1)
        return tf.cast(self.head(self.dropout(mean, training=training)), tf.float32)

    def get_config(self) -> dict:
        """Returns what `from_config` needs."""
        return {**super().get_config(), "num_classes": self.num_classes}


@keras.saving.register_keras_serializable("seq2serve")
class DecoderLanguageModel(_Model):
    """A decoder without an encoder: predicts each token from those before it (Radford et al. 2018).

    Args:
        config: sizes; the encoder's are not used.
        vocab_size: V.
    """

    def __init__(self, config: ModelConfig, vocab_size: int, **kwargs):
        super().__init__(config, vocab_size, **kwargs)
        self.target_embedding = TokenEmbedding(vocab_size, config.d_model)
        tied, apart = config.tie_embeddings, TokenEmbedding
        self.output_embedding = self.target_embedding if tied else apart(vocab_size, config.d_model)
        self.decoder = Decoder(config, cross_attention=False)

    def call(self, target: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Int [B, T] -> logits, float32 [B, T, V].

        A row may hold several documents, each with a begin marker before it; none sees what is before its own.
        """
        x = self.decoder(self.target_embedding(target), self_mask=document_mask(target), training=training)
        return tf.cast(self.output_embedding.logits(x), tf.float32)
