"""A trained model as a SavedModel that needs no file of ours: strings in, strings out.

Comes in: a model and its tokenizer. Goes out: a folder that TF Serving loads as it is.
Read next: runtime.py, which loads it as the server does; warmup.py for the requests that ride along.

Dimension 0 of every input and output is the batch, so the server may join requests.
"""

import functools

import numpy as np
import tensorflow as tf

from models.config import DecodingConfig
from models.decoding import translate
from models.inference import as_variables, prepare
from models.search import BeamSearch, Limits
from models.tokenizer import SentencePieceTokenizer
from models.transformer import Transformer
from models.warmup import WarmupRequest, write_warmup_requests


class TranslationServer(tf.Module):
    """A Transformer with its tokenizer and its decoding loop in one graph.

    Args:
        model: built and trained.
        tokenizer: of source and target.
        decoding: how it writes.
    """

    def __init__(self, model: Transformer, tokenizer: SentencePieceTokenizer, decoding: DecodingConfig):
        super().__init__(name="translation")
        self.tokenizer, self.decoding = tokenizer, decoding
        # Keras's own variable objects restore a copy of each weight, which Python's loader swaps in and a C++ session
        # does not: what is saved has to be TensorFlow's variables, and the model itself stay out of sight.
        encoding = (*model.source_embedding.weights, *model.encoder.weights, *model.decoder.positions.weights)
        self.encoding_weights = [variable.value for variable in encoding]
        # Made ready here, once, and not in every request.
        self.decoding_weights = weights = as_variables(prepare(model))
        self._translate = functools.partial(translate, model, weights=weights)

    def source_ids(self, text: tf.Tensor) -> tf.Tensor:
        """Tokenizes, cuts at `max_source_length` and marks the end: tf.string [B] -> int32 [B, S], padded with 0."""
        ids = self.tokenizer.tokenize(text)[:, : self.decoding.max_source_length]
        end = tf.fill([ids.nrows(), 1], self.tokenizer.eos_id)
        return tf.concat([ids, end], axis=1).to_tensor()

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def serving_default(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """Translates.

        Args:
            text: tf.string [B]; a text without tokens has an empty translation.
        Returns:
            translation: tf.string [B], valid UTF-8; score: float32 [B], log probability over length penalty.
        """
        source = self.source_ids(text)
        length = tf.math.count_nonzero(source, 1, dtype=tf.int32) - 1
        longest = tf.cast(self.decoding.max_length_ratio * tf.cast(length, tf.float32), tf.int32)
        limits = Limits(tf.zeros_like(length), longest + self.decoding.max_length_extra)
        search = BeamSearch(self.decoding.beam_size, 1, self.decoding.length_penalty, self.tokenizer.eos_id)
        result = self._translate(source, search, limits, bos_id=self.tokenizer.bos_id)
        empty = length == 0
        translation = self.tokenizer.detokenize(result.ids[:, 0])
        return {
            "translation": tf.where(empty, "", translation),
            "score": tf.where(empty, 0.0, result.scores[:, 0]),
        }


def export_translation(server: TranslationServer, directory: str, samples: list[str]) -> None:
    """Writes the SavedModel.

    Args:
        server: what to serve.
        directory: made where it is missing.
        samples: short, middle and long texts for the warm-up requests.
    """
    signatures = {"serving_default": server.serving_default}
    tf.saved_model.save(server, directory, signatures=signatures)
    requests = [{"text": np.array([text.encode()], object)} for text in samples]
    requests.append({"text": np.array([text.encode() for text in samples], object)})
    write_warmup_requests(directory, [WarmupRequest("serving_default", inputs) for inputs in requests])
