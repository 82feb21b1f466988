"""Attention maps of one sentence: the weights of every layer and head, with the tokens on both axes."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from seq2serve.models.decoding.scoring import attention_weights_of_every_layer
from seq2serve.models.tokenizers.base import Tokenizer
from seq2serve.models.transformer.attention import padding_mask
from seq2serve.models.transformer.models import DecoderLanguageModel, EncoderClassifier, Transformer


class AttentionMap(NamedTuple):
    """Attention weights of one layer.

    Args:
        title: stack and number of the layer.
        rows: T query tokens.
        columns: S key tokens.
        weights: float [H, T, S]; each row sums to one.
    """

    title: str
    rows: list[str]
    columns: list[str]
    weights: np.ndarray


def of_translation(
    model: Transformer, source_tokenizer: Tokenizer, tokenizer: Tokenizer, source: tf.Tensor, target: tf.Tensor
) -> list[AttentionMap]:
    """Returns the maps of the encoder's, the decoder's and the cross-attention. An SSRU has none.

    Args:
        model: a Transformer.
        source_tokenizer, tokenizer: the tokenizers of the source and of the target. Do not swap them: TF Text does not
            check ids, and reads arbitrary memory for an id outside the vocabulary.
        source: int32 [1, S].
        target: int32 [1, T].
    """
    weights = attention_weights_of_every_layer(model, source, target, tokenizer.bos_id)
    source_pieces, target_pieces = _pieces(source_tokenizer, source), _pieces(tokenizer, target)
    decoder_inputs = [*_pieces(tokenizer, tf.constant([[tokenizer.bos_id]])), *target_pieces[:-1]]
    return [
        *_maps("encoder", source_pieces, source_pieces, weights.encoder),
        *_maps("decoder", target_pieces, decoder_inputs, () if weights.decoder is None else weights.decoder),
        *_maps("cross", target_pieces, source_pieces, weights.cross),
    ]


def of_text(
    model: EncoderClassifier | DecoderLanguageModel, tokenizer: Tokenizer, text: str, max_tokens: int | None = None
) -> list[AttentionMap]:
    """Returns the maps of self-attention for a text, which is cut after `max_tokens` tokens.

    An encoder alone reads the text and its end marker; a decoder alone reads the begin marker and the text.
    """
    ids = tokenizer.tokenize([text])[:, :max_tokens].to_tensor()
    if isinstance(model, EncoderClassifier):
        ids = model.marked(tf.pad(ids, [[0, 0], [0, 1]], constant_values=tokenizer.eos_id))
        pieces = _pieces(tokenizer, ids)
        _, weights = model.encoder(model.embedding(ids), padding_mask(ids), return_weights=True)
        return list(_maps("encoder", pieces, pieces, weights))
    ids = tf.pad(ids, [[0, 0], [1, 0]], constant_values=tokenizer.bos_id)
    pieces = _pieces(tokenizer, ids)
    _, weights = model.decoder(model.target_embedding(ids), return_weights=True)
    return list(_maps("decoder", pieces, pieces, [self_weights for (self_weights,) in weights]))


def _pieces(tokenizer: Tokenizer, ids: tf.Tensor) -> list[str]:
    return [piece.decode() for piece in tokenizer.id_to_piece(ids)[0].numpy()]


def _maps(stack: str, rows: list[str], columns: list[str], weights: Iterable[tf.Tensor]) -> Iterator[AttentionMap]:
    """Yields one map for the weights of each layer, float [1, H, T, S]."""
    for number, layer_weights in enumerate(weights, 1):
        yield AttentionMap(f"{stack} layer {number}", rows, columns, tf.cast(layer_weights[0], tf.float32).numpy())
