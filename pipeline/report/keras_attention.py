"""The self-attention of a trained Keras model. Importing this module imports TensorFlow."""

from collections.abc import Sequence

import numpy as np

from seq2serve.models.decoding.attention_maps import of_text
from seq2serve.models.tokenizers.tokenizer import load_tokenizer
from seq2serve.models.training.saving import load_model
from seq2serve.models.transformer.models import DecoderLanguageModel, EncoderClassifier

_ENCODER_CAPTION = "At [row], the model gave [share] of its attention to [column]."
_DECODER_CAPTION = "Having read up to [row], the model gave [share] of its attention to [column]."


def self_attention(folder: str, texts: Sequence[str]) -> list[tuple[list[str], np.ndarray, str]]:
    """Computes the self-attention in texts.

    Args:
        folder: the Format-Keras folder of a Model.
        texts: one text per map.
    Returns:
        For each text its pieces, the weights [L, H, T, T], and a caption for one weight, see attention.py. Empty if the
        model has neither an encoder nor a decoder alone, such as a model class of the user.
    """
    model, tokenizer = load_model(folder), load_tokenizer(f"{folder}/tokenizer")
    if not isinstance(model, EncoderClassifier | DecoderLanguageModel):
        return []
    caption = _ENCODER_CAPTION if isinstance(model, EncoderClassifier) else _DECODER_CAPTION
    maps = [of_text(model, tokenizer, text) for text in texts]
    return [(layers[0].rows, np.stack([layer.weights for layer in layers]), caption) for layers in maps]
