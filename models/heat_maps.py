"""What every head of every layer looks at in a sentence, with the tokens that look and are looked at.

Comes in: a model and the ids of one sentence. Goes out: HeatMaps, to be drawn.
Read next: scoring.py for the weights; components/trainer_tensorboard.py, which shows them.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from models.attention import padding_mask
from models.scoring import attention_weights_of_every_layer, decoder_attention, encoder_attention
from models.tokenizer_base import Tokenizer
from models.transformer import DecoderLanguageModel, EncoderClassifier, Transformer


class HeatMap(NamedTuple):
    """Attention weights of one layer.

    Args:
        title: whose they are.
        rows: T tokens that look.
        columns: S tokens that are looked at.
        weights: float [H, T, S]; each row sums to one.
    """

    title: str
    rows: list[str]
    columns: list[str]
    weights: np.ndarray


def of_translation(
    model: Transformer, source_tokenizer: Tokenizer, tokenizer: Tokenizer, source: tf.Tensor, target: tf.Tensor
) -> list[HeatMap]:
    """Shows the encoder's, the decoder's and the cross-attention.

    Args:
        model: whose they are.
        source_tokenizer, tokenizer: of the source and of the target. An id of the one may be beyond the other's, and
            there TF Text reads whatever is in memory.
        source: int32 [1, S].
        target: int32 [1, T].
    """
    weights = attention_weights_of_every_layer(model, source, target, tokenizer.bos_id)
    read, written = _pieces(source_tokenizer, source), _pieces(tokenizer, target)
    before = [*_pieces(tokenizer, tf.constant([[tokenizer.bos_id]])), *written[:-1]]
    return [
        *_layers("encoder", read, read, weights.encoder),
        *_layers("decoder", written, before, weights.decoder),
        *_layers("cross", written, read, weights.cross),
    ]


def of_text(model: EncoderClassifier | DecoderLanguageModel, tokenizer: Tokenizer, ids: tf.Tensor) -> list[HeatMap]:
    """Shows self-attention: int32 [1, T], with the markers that the model reads."""
    pieces = _pieces(tokenizer, ids)
    if isinstance(model, EncoderClassifier):
        weights, _ = encoder_attention(model.encoder, model.embedding(ids), padding_mask(ids))
        return list(_layers("encoder", pieces, pieces, weights))
    weights, _ = decoder_attention(model.decoder, model.target_embedding(ids))
    return list(_layers("decoder", pieces, pieces, weights))


def _pieces(tokenizer: Tokenizer, ids: tf.Tensor) -> list[str]:
    return [piece.decode() for piece in tokenizer.id_to_piece(ids)[0].numpy()]


def _layers(stack: str, rows: list[str], columns: list[str], weights: tf.Tensor) -> Iterator[HeatMap]:
    """Yields a map a layer: float [L, 1, H, T, S]."""
    for number, layer in enumerate(tf.cast(weights, tf.float32).numpy(), 1):
        yield HeatMap(f"{stack} layer {number}", rows, columns, layer[0])
