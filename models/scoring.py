"""What a model thinks of given text: log probabilities of every token, attention weights of every layer and head.

Comes in: a built model and padded ids. Goes out: tensors; nothing is kept on the model.
Read next: attention.py for the weights, decoding.py for how a model writes text of its own.

Targets are given as they were written: 0 where padded, with an end marker if that is to be scored, no begin marker.
"""

from typing import NamedTuple

import tensorflow as tf

from models.attention import causal_mask
from models.transformer import DecoderLanguageModel, Transformer


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
    memory, memory_mask = model.encode(source)
    x, encoder = model.encoder.start(model.source_embedding(source)), []
    for layer in model.encoder.layers:
        encoder.append(layer.self_attention.weights_of(layer.self_residual.before(x), attention_mask=memory_mask))
        x = layer(x, memory_mask)
    x = model.decoder.start(model.target_embedding(_shift_right(target, bos_id)))
    mask, decoder, cross = causal_mask(tf.shape(target)[1]), [], []
    for layer in model.decoder.layers:
        before = layer.self_residual.before(x)
        decoder.append(layer.self_attention.weights_of(before, attention_mask=mask))
        between = layer.self_residual(x, layer.self_attention(before, attention_mask=mask))
        query = layer.cross_residual.before(between)
        cross.append(layer.cross_attention.weights_of(query, memory, attention_mask=memory_mask))
        x = layer(x, mask, memory, memory_mask)
    return AttentionWeights(tf.stack(encoder), tf.stack(decoder), tf.stack(cross))


def _shift_right(target: tf.Tensor, bos_id: int) -> tf.Tensor:
    """Puts the begin marker before each row and leaves its last token out."""
    return tf.pad(target, [[0, 0], [1, 0]], constant_values=bos_id)[:, :-1]


def _of_tokens(logits: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(target, logits)
    return tf.where(target == 0, 0.0, -losses)
