"""What a model thinks of given text: log probabilities of every token, attention weights of every layer and head.

Comes in: a built model and padded ids. Goes out: tensors; nothing is kept on the model.
Read next: attention.py for the weights, decoding.py for how a model writes text of its own.

Targets are given as they were written: 0 where padded, with an end marker if that is to be scored, no begin marker.
"""

from typing import NamedTuple

import tensorflow as tf

from models.attention import causal_mask, padding_mask
from models.transformer import Decoder, DecoderLanguageModel, Encoder, Transformer


class AttentionWeights(NamedTuple):
    """Attention weights of every layer (axis L) and head; each row sums to one.

    Args:
        encoder: float [L, B, H, S, S].
        decoder: float [L, B, H, T, T]; row t is for the step that predicts target token t, column 0 the begin marker.
        cross: float [L, B, H, T, S]; what of the source that step looks at.
    """

    encoder: tf.Tensor
    decoder: tf.Tensor
    cross: tf.Tensor


def log_probabilities(model: Transformer, source: tf.Tensor, target: tf.Tensor, bos_id: int = 2) -> tf.Tensor:
    """Scores given pairs: log P(target token | source, target tokens before it).

    Args:
        model: built.
        source: int32 [B, S], as the model was trained to read it.
        target: int32 [B, T].
        bos_id: the begin marker.
    Returns:
        float32 [B, T] in nats, 0 where the target is padded; a row's sum is its sequence's log probability.
    """
    return _of_tokens(model({"source": source, "target": _shift_right(target, bos_id)}), target)


def language_model_log_probabilities(model: DecoderLanguageModel, target: tf.Tensor, bos_id: int = 2) -> tf.Tensor:
    """Scores given text: log P(token | tokens before it).

    Args:
        model: built.
        target: int32 [B, T].
        bos_id: the begin marker.
    Returns:
        float32 [B, T] in nats, 0 where the target is padded.
    """
    return _of_tokens(model(_shift_right(target, bos_id)), target)


def attention_weights_of_every_layer(
    model: Transformer, source: tf.Tensor, target: tf.Tensor, bos_id: int = 2
) -> AttentionWeights:
    """Computes what every head of every layer looks at (section 3.2.3, "Applications of Attention").

    Args:
        model: built.
        source: int32 [B, S], as the model was trained to read it.
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
    """Computes what an encoder looks at: embeddings [B, S, D] and a mask -> [L, B, H, S, S], and its output."""
    x, weights = encoder.start(x), []
    for layer in encoder.layers:
        weights.append(layer.self_attention.weights_of(layer.self_residual.before(x), attention_mask=mask))
        x = layer(x, mask)
    return tf.stack(weights), encoder.finish(x)


def decoder_attention(
    decoder: Decoder, x: tf.Tensor, memory: tf.Tensor | None = None, memory_mask: tf.Tensor | None = None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Computes what a decoder looks at: in its own text [L, B, H, T, T], and in the encoder's output [L, B, H, T, S].

    Args:
        decoder: with or without cross-attention, whose weights are empty then.
        x: embeddings, float [B, T, D], of one text a row.
        memory: the encoder's output, float [B, S, D].
        memory_mask: bool for [B, H, T, S].
    """
    x, mask, own, cross = decoder.start(x), causal_mask(tf.shape(x)[1]), [], []
    for layer in decoder.layers:
        before = layer.self_residual.before(x)
        own.append(layer.self_attention.weights_of(before, attention_mask=mask))
        if layer.cross_attention is not None:
            between = layer.self_residual(x, layer.self_attention(before, attention_mask=mask))
            query = layer.cross_residual.before(between)
            cross.append(layer.cross_attention.weights_of(query, memory, attention_mask=memory_mask))
        x = layer(x, mask, memory, memory_mask)
    return tf.stack(own), tf.stack(cross) if cross else tf.zeros([0])


def _shift_right(target: tf.Tensor, bos_id: int) -> tf.Tensor:
    """Puts the begin marker before each row and leaves its last token out."""
    return tf.pad(target, [[0, 0], [1, 0]], constant_values=bos_id)[:, :-1]


def _of_tokens(logits: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(target, logits)
    return tf.where(target == 0, 0.0, -losses)
