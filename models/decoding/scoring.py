"""Scores existing text: log probabilities of every token, attention weights of every layer and head.

A target contains an end marker if that is to be scored, no begin marker, and 0 as padding.
"""

from typing import NamedTuple

import tensorflow as tf

from seq2serve.models.transformer.attention import padding_mask
from seq2serve.models.transformer.models import Transformer


class AttentionWeights(NamedTuple):
    """Attention weights of every layer (axis L) and head; each row sums to one.

    Args:
        encoder: float [L, B, H, S, S].
        decoder: float [L, B, H, T, T]; row t predicts target token t, and column 0 is the begin marker. None if the
            decoder has no self-attention.
        cross: float [L, B, H, T, S]; row t predicts target token t, and the columns are the source tokens.
    """

    encoder: tf.Tensor
    decoder: tf.Tensor | None
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
    logits = model({"source": source, "target": _shift_right(target, bos_id)})
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(target, logits)  # [B, T]
    return tf.where(target == 0, 0.0, -losses)


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
    memory, encoder = model.encoder(model.source_embedding(source), mask, return_weights=True)
    embedded = model.target_embedding(_shift_right(target, bos_id))
    _, decoder = model.decoder(embedded, memory, mask, return_weights=True)
    *own, cross = map(tf.stack, zip(*decoder, strict=True))
    return AttentionWeights(tf.stack(encoder), own[0] if own else None, cross)


def _shift_right(target: tf.Tensor, bos_id: int) -> tf.Tensor:
    """Prepends the begin marker to each row and drops the last token."""
    return tf.pad(target, [[0, 0], [1, 0]], constant_values=bos_id)[:, :-1]
