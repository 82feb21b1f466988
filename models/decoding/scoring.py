"""Scores existing text: log probabilities of every token, attention weights of every layer and head.

A target contains an end marker if that is to be scored, no begin marker, and 0 as padding.
"""

from typing import NamedTuple

import tensorflow as tf

from seq2serve.models.transformer.attention import causal_mask, padding_mask
from seq2serve.models.transformer.models import Decoder, DecoderLanguageModel, Encoder, Transformer


class AttentionWeights(NamedTuple):
    """Attention weights of every layer (axis L) and head; each row sums to one.

    Args:
        encoder: float [L, B, H, S, S].
        decoder: float [L, B, H, T, T]; row t predicts target token t, and column 0 is the begin marker.
        cross: float [L, B, H, T, S]; row t predicts target token t, and the columns are the source tokens.
    """

    encoder: tf.Tensor
    decoder: tf.Tensor
    cross: tf.Tensor


def log_probabilities(model: Transformer, source: tf.Tensor, target: tf.Tensor, bos_id: int = 2) -> tf.Tensor:
    """Scores pairs: log P(target token | source, previous target tokens).

    Args:
        model: a built Transformer.
        source: int32 [B, S], in the form in which the model was trained to read it.
        target: int32 [B, T].
        bos_id: the begin marker.
    Returns:
        float32 [B, T] in nats, 0 where the target is padded. The sum of a row is the log probability of its sequence.
    """
    return _token_log_probabilities(model({"source": source, "target": _shift_right(target, bos_id)}), target)


def language_model_log_probabilities(model: DecoderLanguageModel, target: tf.Tensor, bos_id: int = 2) -> tf.Tensor:
    """Scores text: log P(token | previous tokens).

    Args:
        model: a built DecoderLanguageModel.
        target: int32 [B, T].
        bos_id: the begin marker.
    Returns:
        float32 [B, T] in nats, 0 where the target is padded.
    """
    return _token_log_probabilities(model(_shift_right(target, bos_id)), target)


def attention_weights_of_every_layer(
    model: Transformer, source: tf.Tensor, target: tf.Tensor, bos_id: int = 2
) -> AttentionWeights:
    """Computes the attention weights of a Transformer (section 3.2.3, "Applications of Attention").

    Args:
        model: a built Transformer.
        source: int32 [B, S], in the form in which the model was trained to read it.
        target: int32 [B, T].
        bos_id: the begin marker.
    Returns:
        The AttentionWeights.
    """
    mask = padding_mask(source)
    encoder, memory = encoder_attention(model.encoder, model.source_embedding(source), mask)
    embedded = model.target_embedding(_shift_right(target, bos_id))
    return AttentionWeights(encoder, *decoder_attention(model.decoder, embedded, memory, mask))


def encoder_attention(encoder: Encoder, x: tf.Tensor, mask: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Computes the attention weights of an encoder.

    Args:
        encoder: built.
        x: embeddings, float [B, S, D].
        mask: bool, broadcasts to [B, H, S, S].
    Returns:
        The weights, float [L, B, H, S, S], and the encoder's output, float [B, S, D].
    """
    x, weights = encoder.start(x), []
    for layer in encoder.layers:
        weights.append(layer.self_attention.weights_of(layer.self_residual.before(x), attention_mask=mask))
        x = layer(x, mask)
    return tf.stack(weights), encoder.finish(x)


def decoder_attention(
    decoder: Decoder, x: tf.Tensor, memory: tf.Tensor | None = None, memory_mask: tf.Tensor | None = None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Computes the attention weights of a decoder.

    Args:
        decoder: built, with or without cross-attention.
        x: embeddings, float [B, T, D], one document per row.
        memory: the encoder's output, float [B, S, D].
        memory_mask: bool, broadcasts to [B, H, T, S].
    Returns:
        The weights of self-attention, float [L, B, H, T, T], and of cross-attention, float [L, B, H, T, S]; the latter
        is empty for a decoder without cross-attention.
    """
    x, mask = decoder.start(x), causal_mask(tf.shape(x)[1])
    self_weights, cross_weights = [], []
    for layer in decoder.layers:
        query = layer.self_residual.before(x)
        self_weights.append(layer.self_attention.weights_of(query, attention_mask=mask))
        if layer.cross_attention is not None:
            y = layer.self_residual(x, layer.self_attention(query, attention_mask=mask))
            query = layer.cross_residual.before(y)
            cross_weights.append(layer.cross_attention.weights_of(query, memory, attention_mask=memory_mask))
        x = layer(x, mask, memory, memory_mask)
    return tf.stack(self_weights), tf.stack(cross_weights) if cross_weights else tf.zeros([0])


def _shift_right(target: tf.Tensor, bos_id: int) -> tf.Tensor:
    """Prepends the begin marker to each row and drops the last token."""
    return tf.pad(target, [[0, 0], [1, 0]], constant_values=bos_id)[:, :-1]


def _token_log_probabilities(logits: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(target, logits)  # [B, T]
    return tf.where(target == 0, 0.0, -losses)
