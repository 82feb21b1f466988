"""Three models from the same blocks: Transformer, EncoderClassifier and DecoderLanguageModel.

They map token ids, int32 [B, length], 0 for padding, to logits, float32. See also: train_step.py for training,
decoding/loop.py for generation.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from seq2serve.models.config import ModelConfig
from seq2serve.models.tokenizers.base import BOS_ID
from seq2serve.models.transformer.attention import causal_mask, document_mask, mask_bias, padding_mask
from seq2serve.models.transformer.blocks import DecoderLayer, EncoderLayer, make_norm
from seq2serve.models.transformer.layers import Dropout, PositionalEncoding, TokenEmbedding
from seq2serve.models.transformer.ngrams import NGramClassifier
from seq2serve.models.transformer.train_step import TrainStepMixin


class _Stack(keras.layers.Layer):
    """Positional encoding followed by a stack of layers (section 3.1).

    Args:
        config: sizes.
        num_layers: number of layers.
        make_layer: called with `name`, returns an encoder or decoder layer.
        folded: see blocks.py.
    """

    def __init__(
        self,
        config: ModelConfig,
        num_layers: int,
        make_layer: Callable[..., keras.layers.Layer],
        folded: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.config, self.folded = config, folded
        self.positions = PositionalEncoding(config.positions, config.d_model, config.max_positions, config.sinusoids)
        self.dropout = Dropout(config.dropout)
        self.layers = [make_layer(name=f"layer_{i}") for i in range(num_layers)]
        self.embedding_norm = make_norm(config) if config.embedding_norm else None
        self.norm = make_norm(config, folded) if config.norm_first else None

    def build(self, *_shapes: Any) -> None:
        """Creates the weights of every layer."""
        for layer in (self.positions, self.embedding_norm, *self.layers, self.norm):
            if layer:
                layer.build((None, None, self.config.d_model))

    def start(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Adds positions to embeddings, normalises, and applies dropout: float [B, T, D] -> [B, T, D]."""
        x = self.positions(x, tf.range(tf.shape(x)[1]))
        x = self.embedding_norm(x, training=training) if self.embedding_norm else x
        return self.dropout(x, training=training)

    def _apply(self, x: tf.Tensor, *inputs: Any, training: bool, return_weights: bool) -> Any:
        """Applies every layer to embeddings, float [B, T, D], and to what all layers take; see `call`."""
        x, weights = self.start(x, training), []
        for layer in self.layers:
            x, layer_weights = layer(x, *inputs, training=training, return_weights=True)
            weights.append(layer_weights)
        x = self.finish(x, training)
        return (x, weights) if return_weights else x

    def finish(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Applies the final norm of a pre-norm stack: float [B, T, D] -> [B, T, D]."""
        return self.norm(x, training=training) if self.norm else x


@keras.saving.register_keras_serializable("seq2serve")
class Encoder(_Stack):
    """The left stack of figure 1 in the paper.

    Args:
        config: sizes.
    """

    def __init__(self, config: ModelConfig, **kwargs: Any):
        super().__init__(config, config.num_encoder_layers, functools.partial(EncoderLayer, config), **kwargs)

    def call(
        self, x: tf.Tensor, attention_mask: tf.Tensor, training: bool = False, return_weights: bool = False
    ) -> tf.Tensor | tuple[tf.Tensor, list[tf.Tensor]]:
        """Encodes embeddings.

        Args:
            x: float [B, S, D].
            attention_mask: bool, broadcasts to [B, H, S, S].
            training: whether to apply dropout.
            return_weights: whether to return the attention weights of each layer, float [B, H, S, S], as well.
        Returns:
            float [B, S, D].
        """
        return self._apply(x, attention_mask, training=training, return_weights=return_weights)


@keras.saving.register_keras_serializable("seq2serve")
class Decoder(_Stack):
    """The right stack of figure 1 in the paper.

    Args:
        config: sizes.
        cross_attention: whether layers attend to an encoder's output.
        folded: see blocks.py.
    """

    def __init__(self, config: ModelConfig, cross_attention: bool, folded: bool = False, **kwargs: Any):
        make_layer = functools.partial(DecoderLayer, config, cross_attention, folded)
        super().__init__(config, config.num_decoder_layers, make_layer, folded, **kwargs)

    def call(
        self,
        x: tf.Tensor,
        memory: tf.Tensor | None = None,
        memory_mask: tf.Tensor | None = None,
        self_mask: tf.Tensor | None = None,
        training: bool = False,
        return_weights: bool = False,
    ) -> tf.Tensor | tuple[tf.Tensor, list[list[tf.Tensor]]]:
        """Decodes embeddings, all positions at once.

        Args:
            x: float [B, T, D].
            memory: the encoder's output, float [B, S, D].
            memory_mask: bool, broadcasts to [B, H, T, S].
            self_mask: bool, broadcasts to [B, H, T, T]; is combined with the causal mask.
            training: whether to apply dropout.
            return_weights: whether to return the attention weights of each layer as well; see DecoderLayer.
        Returns:
            float [B, T, D].
        """
        mask = causal_mask(tf.shape(x)[1])
        mask = mask if self_mask is None else mask & self_mask
        return self._apply(x, mask, memory, memory_mask, training=training, return_weights=return_weights)


class _Model(TrainStepMixin, keras.Model):
    """Base class of the three models: weights are created by `build`, without example inputs; config and saving."""

    def __init__(self, config: ModelConfig, vocab_size: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.config, self.vocab_size = config, vocab_size

    def build(self, *_shapes: Any) -> None:
        """Creates all weights. A shared embedding is built once."""
        for layer in self._flatten_layers(include_self=False, recursive=False):
            if not layer.built:
                layer.build((None, None, self.config.d_model))
                layer.built = True
        self.built = True

    def _embedding(self, vocab_size: int, is_output: bool = False) -> TokenEmbedding:
        config = self.config
        return TokenEmbedding(
            vocab_size, config.d_model, config.embedding_scale, output_bias=is_output and config.output_bias
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments for `from_config`."""
        return {"config": dataclasses.asdict(self.config), "vocab_size": self.vocab_size, "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> "_Model":
        """Makes a model from the result of `get_config`."""
        return cls(**{**config, "config": ModelConfig(**config["config"])})


@keras.saving.register_keras_serializable("seq2serve")
class Transformer(_Model):
    """The encoder-decoder model of section 3.

    Args:
        config: sizes. With `tie_embeddings`, source, target and output share one matrix.
        vocab_size: V, the size of the target vocabulary, and of the source vocabulary if they are shared.
        source_vocab_size: size of a separate source vocabulary; requires `tie_embeddings=False`.
    Raises:
        ValueError: embeddings are tied, but the vocabularies differ in size.
    """

    def __init__(self, config: ModelConfig, vocab_size: int, source_vocab_size: int | None = None, **kwargs: Any):
        super().__init__(config, vocab_size, **kwargs)
        self.source_vocab_size = source_vocab_size or vocab_size
        if config.tie_embeddings and self.source_vocab_size != vocab_size:
            raise ValueError(f"tied embeddings need one vocabulary, not {self.source_vocab_size} and {vocab_size}")
        self.target_embedding = self._embedding(vocab_size, is_output=config.tie_embeddings)
        if config.tie_embeddings:
            self.source_embedding = self.output_embedding = self.target_embedding
        else:
            self.source_embedding = self._embedding(self.source_vocab_size)
            self.output_embedding = self._embedding(vocab_size, is_output=True)
        self.encoder, self.decoder = Encoder(config), Decoder(config, cross_attention=True)

    def call(self, inputs: dict[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """Predicts each next target token from the source and the target tokens before it.

        Args:
            inputs: `source` int [B, S] and `target` int [B, T], shifted right by a begin marker.
            training: whether to apply dropout.
        Returns:
            Logits, float32 [B, T, V].
        """
        memory, memory_mask = self.encode(inputs["source"], training=training)  # [B, S, D], [B, 1, 1, S]
        x = self.decoder(self.target_embedding(inputs["target"]), memory, memory_mask, training=training)  # [B, T, D]
        return tf.cast(self.output_embedding.logits(x), tf.float32)

    def encode(self, source: tf.Tensor, training: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
        """Encodes source ids: int [B, S] -> float [B, S, D] and their padding mask, bool [B, 1, 1, S]."""
        mask = padding_mask(source)
        return self.encoder(self.source_embedding(source), mask, training=training), mask

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments for `from_config`."""
        return {**super().get_config(), "source_vocab_size": self.source_vocab_size}


@keras.saving.register_keras_serializable("seq2serve")
class EncoderClassifier(_Model):
    """An encoder whose outputs are pooled and projected to classes, and beside it a linear classifier of n-grams.

    Both learn the labels on their own (wide and deep; Cheng et al. 2016 train them together instead, where the encoder
    memorises a small corpus before the n-grams have learnt from it). They answer together as a product of experts: the
    log-probabilities are summed with the weights `mixture`, which training does not change but its evaluations fit on
    the eval split (see training/experts.py).

    Args:
        config: sizes; those of the decoder are ignored. Without `ngram_buckets`, there is only the encoder.
        vocab_size: V.
        num_classes: number of labels; 0 for an encoder without a head, which a classifier can start from.
    """

    def __init__(self, config: ModelConfig, vocab_size: int, num_classes: int, **kwargs: Any):
        super().__init__(config, vocab_size, **kwargs)
        self.num_classes = num_classes
        self.embedding, self.encoder = self._embedding(vocab_size), Encoder(config)
        pooling, has_pooler = config.pooling, config.pooling == "pooler"
        self.pooler = keras.layers.Dense(config.d_model, activation="tanh", name="pooler") if has_pooler else None
        self.attention_pooling = keras.layers.Dense(1, name="attention_pooling") if pooling == "attention" else None
        self.dropout = Dropout(config.dropout)
        self.head = keras.layers.Dense(num_classes, name="head") if num_classes else None
        buckets = config.ngram_buckets
        self.ngrams = NGramClassifier(vocab_size, buckets, num_classes) if buckets else None
        if buckets:
            even = keras.initializers.Constant(0.5)
            self.mixture = self.add_weight((2,), even, "float32", trainable=False, name="mixture")

    def call(self, source: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Classifies texts.

        Args:
            source: int [B, S].
            training: whether to apply dropout, and to return the logits of each classifier.
        Returns:
            Logits, float32 [B, num_classes]; in training with n-grams [B, 2, num_classes].
        """
        if not self.ngrams:
            return self._classify_encoded(source, training)
        logits = self.experts(source, training)
        if training:
            return logits
        return tf.einsum("p,bpc->bc", tf.convert_to_tensor(self.mixture), tf.nn.log_softmax(logits))

    def experts(self, source: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns the logits of the encoder and of the n-grams: int [B, S] -> float32 [B, 2, num_classes]."""
        assert self.ngrams
        return tf.stack([self._classify_encoded(source, training), self.ngrams(source)], 1)

    def marked(self, source: tf.Tensor) -> tf.Tensor:
        """Returns what the encoder reads: int [B, S] -> [B, S], or [B, 1 + S] with a begin marker."""
        return tf.pad(source, [[0, 0], [1, 0]], constant_values=BOS_ID) if self.config.begin_marker else source

    def pool(self, source: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns the pooled output (`pooling`): int [B, S] -> float [B, D]; the mean of no tokens is a zero vector."""
        marked = self.marked(source)
        mask = padding_mask(marked)
        x = self.encoder(self.embedding(marked), mask, training=training)  # [B, S, D]
        if self.attention_pooling:
            scores = self.attention_pooling(x)[..., 0] + mask_bias(mask[:, 0, 0], x.dtype)  # [B, S]
            return tf.einsum("bs,bsd->bd", tf.nn.softmax(scores), x)
        if self.config.pooling == "mean":
            is_token = tf.cast(mask[:, 0, 0, :, tf.newaxis], x.dtype)  # [B, S, 1]
            return tf.reduce_sum(x * is_token, 1) / tf.maximum(tf.reduce_sum(is_token, 1), 1)
        return self.pooler(x[:, 0]) if self.pooler else x[:, 0]

    def _classify_encoded(self, source: tf.Tensor, training: bool) -> tf.Tensor:
        """int [B, S] -> logits, float32 [B, num_classes]."""
        assert self.head
        pooled = self.dropout(self.pool(source, training), training=training)
        return tf.cast(self.head(pooled), tf.float32)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments for `from_config`."""
        return {**super().get_config(), "num_classes": self.num_classes}


@keras.saving.register_keras_serializable("seq2serve")
class DecoderLanguageModel(_Model):
    """A decoder without an encoder, which predicts each token from the tokens before it (Radford et al. 2018).

    Args:
        config: sizes; those of the encoder are ignored.
        vocab_size: V.
    Raises:
        ValueError: the decoder is not one of self-attention. Without a source to attend to, a recurrent layer would
            have to carry the whole text in one vector.
    """

    def __init__(self, config: ModelConfig, vocab_size: int, **kwargs: Any):
        super().__init__(config, vocab_size, **kwargs)
        if config.decoder != "attention":
            raise ValueError(f"a language model needs model.decoder=attention, not {config.decoder}")
        self.target_embedding = self._embedding(vocab_size, is_output=config.tie_embeddings)
        self.output_embedding = self.target_embedding
        if not config.tie_embeddings:
            self.output_embedding = self._embedding(vocab_size, is_output=True)
        self.decoder = Decoder(config, cross_attention=False)

    def call(self, target: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Predicts each next token.

        A row may contain several documents, each after a begin marker. Documents do not attend to each other.

        Args:
            target: int [B, T].
            training: whether to apply dropout.
        Returns:
            Logits, float32 [B, T, V].
        """
        x = self.decoder(self.target_embedding(target), self_mask=document_mask(target), training=training)
        return tf.cast(self.output_embedding.logits(x), tf.float32)
