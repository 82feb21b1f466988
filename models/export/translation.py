"""The serving module of a translator: Transformer, tokenizers and decode loop in one graph."""

import dataclasses
import functools
from typing import Any

import tensorflow as tf

from seq2serve.models.config import DecodingConfig
from seq2serve.models.decoding import scoring
from seq2serve.models.decoding.beam_search import BeamSearch, LengthLimits
from seq2serve.models.decoding.loop import generate
from seq2serve.models.decoding.step import as_variables, prepare, refresh
from seq2serve.models.export.export import signature
from seq2serve.models.export.warmup import WarmupRequest, alone_and_together
from seq2serve.models.tokenizers.base import Tokenizer
from seq2serve.models.transformer.models import Transformer

_TEXT = [tf.TensorSpec([None], tf.string, name="text")]
_TEXT_AND_NUMBER = [*_TEXT, tf.TensorSpec([], tf.int32, name="number")]
_PAIR = [tf.TensorSpec([None], tf.string, name="source"), tf.TensorSpec([None], tf.string, name="target")]


class TranslationServingModule(tf.Module):
    """A ServingModule of a Transformer.

    Args:
        model: a built model.
        tokenizer: the tokenizer of the target.
        decoding: beam size, length penalty and length limits.
        source_tokenizer: the tokenizer of the source, if the vocabularies are separate.
    """

    def __init__(
        self,
        model: Transformer,
        tokenizer: Tokenizer,
        decoding: DecodingConfig,
        source_tokenizer: Tokenizer | None = None,
    ):
        super().__init__(name="translation")
        self.tokenizer, self.decoding = tokenizer, decoding
        self.source_tokenizer = source_tokenizer or tokenizer
        self.weights = [variable.value for variable in model.weights]
        # Prepared once and stored, instead of in every request.
        self.decoding_weights = weights = as_variables(prepare(model))
        self._prepare = functools.partial(prepare, model)
        self._generate = functools.partial(generate, model, weights=weights, bos_id=tokenizer.bos_id)
        self._log_probabilities = functools.partial(scoring.log_probabilities, model, bos_id=tokenizer.bos_id)
        self._attention = functools.partial(scoring.attention_weights_of_every_layer, model, bos_id=tokenizer.bos_id)
        self._model_config = functools.partial(dataclasses.asdict, model.config)

    def refresh(self) -> None:
        """Updates the prepared weights after the model's weights have changed."""
        refresh(self.decoding_weights, self._prepare())

    def signatures(self) -> dict[str, Any]:
        """Returns signature name -> tf.function."""
        return {
            "serving_default": self.serving_default,
            "n_best": self.n_best,
            "score": self.score,
            "attention": self.attention,
        }

    def warmup_requests(self, samples: list[str]) -> list[WarmupRequest]:
        """Returns requests to every signature; a sample is also its own target where a pair is required."""
        texts, pairs = {"text": samples}, {"source": samples, "target": samples}
        inputs = {"serving_default": texts, "n_best": texts, "score": pairs, "attention": pairs}
        return [request for name, rows in inputs.items() for request in alone_and_together(name, rows)]

    def config(self) -> dict[str, Any]:
        """Returns the task, the model config and the decoding config."""
        return {"task": "translation", "model": self._model_config(), "decoding": dataclasses.asdict(self.decoding)}

    def source_ids(self, text: tf.Tensor) -> tf.Tensor:
        """Tokenizes, truncates to `max_source_length` and appends the end marker.

        Args:
            text: tf.string [B].
        Returns:
            int32 [B, S], padded with 0.
        """
        return self._ids(self.source_tokenizer, text, self.decoding.max_source_length)

    def target_ids(self, text: tf.Tensor) -> tf.Tensor:
        """Does the same for targets, truncated to the maximum length of translations: tf.string [B] -> int32 [B, T]."""
        return self._ids(self.tokenizer, text, int(self._max_length(self.decoding.max_source_length)))

    @signature(input_signature=_TEXT)
    def serving_default(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """Translates texts.

        Args:
            text: tf.string [B]; the translation of a text without tokens is empty.
        Returns:
            translation: tf.string [B], valid UTF-8; score: float32 [B], log probability divided by the length penalty.
        """
        translations, scores = self._best(text, 1)
        return {"translation": translations[:, 0], "score": scores[:, 0]}

    @signature(input_signature=_TEXT)
    def n_best(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the N = `beam_size` best translations.

        Args:
            text: tf.string [B].
        Returns:
            translations: tf.string [B, N], best first; scores: float32 [B, N].
        """
        translations, scores = self._best(text, self.decoding.beam_size)
        return {"translations": translations, "scores": scores}

    @signature(input_signature=_PAIR)
    def score(self, source: tf.Tensor, target: tf.Tensor) -> dict[str, tf.Tensor]:
        """Computes the log probability of each target, given its source.

        Args:
            source, target: tf.string [B].
        Returns:
            log_probability: float32 [B], in nats; tokens: int32 [B], number of target tokens, including the end marker.
        """
        ids = self.target_ids(target)
        log_probabilities = self._log_probabilities(self.source_ids(source), ids)  # [B, T]
        return {"log_probability": tf.reduce_sum(log_probabilities, 1), "tokens": _lengths(ids)}

    @signature(input_signature=_PAIR)
    def attention(self, source: tf.Tensor, target: tf.Tensor) -> dict[str, tf.Tensor]:
        """Computes the cross-attention weights with which each target token is predicted.

        Args:
            source, target: tf.string [B].
        Returns:
            source_tokens: tf.string [B, S], target_tokens: tf.string [B, T], pieces including end markers, padded with
            ""; source_length, target_length: int32 [B]; attention: float32 [B, L, H, T, S].
        """
        source_ids, target_ids = self.source_ids(source), self.target_ids(target)
        cross = self._attention(source_ids, target_ids).cross  # [L, B, H, T, S]
        return {
            "source_tokens": self._pieces(self.source_tokenizer, source_ids),
            "target_tokens": self._pieces(self.tokenizer, target_ids),
            "source_length": _lengths(source_ids),
            "target_length": _lengths(target_ids),
            "attention": tf.cast(tf.transpose(cross, [1, 0, 2, 3, 4]), tf.float32),
        }

    def _ids(self, tokenizer: Tokenizer, text: tf.Tensor, max_length: int) -> tf.Tensor:
        ids = tokenizer.tokenize(text)[:, :max_length]
        end = tf.fill([ids.nrows(), 1], tokenizer.eos_id)
        return tf.concat([ids, end], axis=1).to_tensor()

    def _pieces(self, tokenizer: Tokenizer, ids: tf.Tensor) -> tf.Tensor:
        return tf.where(ids == 0, "", tokenizer.id_to_piece(ids))

    def _max_length(self, source_length: Any) -> Any:
        """Returns the maximum number of tokens of a translation, for a number or a tensor."""
        return self.decoding.max_length_ratio * source_length + self.decoding.max_length_extra

    @signature(input_signature=_TEXT_AND_NUMBER)
    def _best(self, text: tf.Tensor, number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns translations and scores, [B, number] each; "" and 0 for a text without tokens.

        It is a separate tf.function, so that the graph contains it once. The model server processes the whole graph
        for each signature that it prepares.
        """
        source = self.source_ids(text)  # [B, S]
        length = _lengths(source) - 1
        limits = LengthLimits(tf.zeros_like(length), tf.cast(self._max_length(tf.cast(length, tf.float32)), tf.int32))
        beams, penalty = self.decoding.beam_size, self.decoding.length_penalty
        search = BeamSearch(beams, beams, penalty, self.tokenizer.eos_id, min_finished=number)
        result = self._generate(source, search, limits)
        ids, scores = result.ids[:, :number], result.scores[:, :number]  # [B, number, T], [B, number]
        texts = self.tokenizer.detokenize(tf.reshape(ids, [-1, tf.shape(ids)[2]]))
        empty = (length == 0)[:, tf.newaxis]
        return tf.where(empty, "", tf.reshape(texts, [-1, number])), tf.where(empty, 0.0, scores)


def _lengths(ids: tf.Tensor) -> tf.Tensor:
    """Counts the tokens of padded ids: int32 [B, T] -> int32 [B]."""
    return tf.math.count_nonzero(ids, 1, dtype=tf.int32)
