"""Translation as served: the Transformer, its tokenizer and its decoding loop in one graph.

Comes in: texts, tf.string [B]. Goes out: translations, scores of given pairs, and what the model looks at.
Read next: export.py, which writes it; decoding.py for the loop, scoring.py for scores and attention.
"""

import dataclasses
import functools
from typing import Any

import tensorflow as tf

from models import scoring
from models.config import DecodingConfig
from models.decoding import translate
from models.export import signature
from models.inference import as_variables, prepare, refresh
from models.search import BeamSearch, Limits
from models.tokenizer_base import Tokenizer
from models.transformer import Transformer
from models.warmup import WarmupRequest, alone_and_together

_TEXT = [tf.TensorSpec([None], tf.string, name="text")]
_TEXT_AND_NUMBER = [*_TEXT, tf.TensorSpec([], tf.int32, name="number")]
_PAIR = [tf.TensorSpec([None], tf.string, name="source"), tf.TensorSpec([None], tf.string, name="target")]


class TranslationServer(tf.Module):
    """A `Server` of a Transformer.

    Args:
        model: built and trained.
        tokenizer: of the target.
        decoding: how it writes.
        source_tokenizer: of the source where it has one of its own.
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
        # Made ready here, once, and not in every request.
        self.decoding_weights = weights = as_variables(prepare(model))
        self._prepare = functools.partial(prepare, model)
        self._translate = functools.partial(translate, model, weights=weights, bos_id=tokenizer.bos_id)
        self._log_probabilities = functools.partial(scoring.log_probabilities, model, bos_id=tokenizer.bos_id)
        self._attention = functools.partial(scoring.attention_weights_of_every_layer, model, bos_id=tokenizer.bos_id)
        self._model_config = functools.partial(dataclasses.asdict, model.config)

    def refresh(self) -> None:
        """Answers from now on with what has become of the model's weights."""
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
        """Returns requests to every signature; a sample stands for its own translation where one is asked for."""
        texts, pairs = {"text": samples}, {"source": samples, "target": samples}
        inputs = {"serving_default": texts, "n_best": texts, "score": pairs, "attention": pairs}
        return [request for name, rows in inputs.items() for request in alone_and_together(name, rows)]

    def config(self) -> dict[str, Any]:
        """Returns what the model was made with."""
        return {"task": "translation", "model": self._model_config(), "decoding": dataclasses.asdict(self.decoding)}

    def source_ids(self, text: tf.Tensor) -> tf.Tensor:
        """Tokenizes, cuts at `max_source_length` and marks the end: tf.string [B] -> int32 [B, S], padded with 0."""
        return self._ids(self.source_tokenizer, text, self.decoding.max_source_length)

    def target_ids(self, text: tf.Tensor) -> tf.Tensor:
        """The same for a target, cut where the longest translation ends: tf.string [B] -> int32 [B, T]."""
        return self._ids(self.tokenizer, text, int(self._longest(self.decoding.max_source_length)))

    @signature(input_signature=_TEXT)
    def serving_default(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """Translates.

        Args:
            text: tf.string [B]; a text without tokens has an empty translation.
        Returns:
            translation: tf.string [B], valid UTF-8; score: float32 [B], log probability over length penalty.
        """
        translations, scores = self._best(text, 1)
        return {"translation": translations[:, 0], "score": scores[:, 0]}

    @signature(input_signature=_TEXT)
    def n_best(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """Translates in N = `beam_size` ways.

        Args:
            text: tf.string [B].
        Returns:
            translations: tf.string [B, N], best first; scores: float32 [B, N].
        """
        translations, scores = self._best(text, self.decoding.beam_size)
        return {"translations": translations, "scores": scores}

    @signature(input_signature=_PAIR)
    def score(self, source: tf.Tensor, target: tf.Tensor) -> dict[str, tf.Tensor]:
        """Says how probable a given translation is.

        Args:
            source, target: tf.string [B].
        Returns:
            log_probability: float32 [B], nats; tokens: int32 [B], how many it is the sum over, end marker included.
        """
        ids = self.target_ids(target)
        of_tokens = self._log_probabilities(self.source_ids(source), ids)
        return {"log_probability": tf.reduce_sum(of_tokens, 1), "tokens": _lengths(ids)}

    @signature(input_signature=_PAIR)
    def attention(self, source: tf.Tensor, target: tf.Tensor) -> dict[str, tf.Tensor]:
        """Shows which source tokens each head of each decoder layer looks at before it writes a target token.

        Args:
            source, target: tf.string [B].
        Returns:
            source_tokens: tf.string [B, S], target_tokens: tf.string [B, T], pieces with their end markers, padded
            with ""; source_length, target_length: int32 [B]; attention: float32 [B, L, H, T, S], cross-attention.
        """
        source_ids, target_ids = self.source_ids(source), self.target_ids(target)
        cross = self._attention(source_ids, target_ids).cross
        return {
            "source_tokens": self._pieces(self.source_tokenizer, source_ids),
            "target_tokens": self._pieces(self.tokenizer, target_ids),
            "source_length": _lengths(source_ids),
            "target_length": _lengths(target_ids),
            "attention": tf.cast(tf.transpose(cross, [1, 0, 2, 3, 4]), tf.float32),
        }

    def _ids(self, tokenizer: Tokenizer, text: tf.Tensor, longest: int) -> tf.Tensor:
        ids = tokenizer.tokenize(text)[:, :longest]
        end = tf.fill([ids.nrows(), 1], tokenizer.eos_id)
        return tf.concat([ids, end], axis=1).to_tensor()

    def _pieces(self, tokenizer: Tokenizer, ids: tf.Tensor) -> tf.Tensor:
        return tf.where(ids == 0, "", tokenizer.id_to_piece(ids))

    def _longest(self, source_length: Any) -> Any:
        """Returns the most tokens that a translation may have."""
        return self.decoding.max_length_ratio * source_length + self.decoding.max_length_extra

    @signature(input_signature=_TEXT_AND_NUMBER)
    def _best(self, text: tf.Tensor, number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns translations and scores, [B, number] each; "" and 0 for a text without tokens.

        A function of its own, so that the graph holds it once: the model server looks through all of a graph for each
        signature that it makes ready.
        """
        source = self.source_ids(text)
        length = _lengths(source) - 1
        limits = Limits(tf.zeros_like(length), tf.cast(self._longest(tf.cast(length, tf.float32)), tf.int32))
        decoding = self.decoding
        beams, alpha = decoding.beam_size, decoding.length_penalty
        search = BeamSearch(beams, beams, alpha, self.tokenizer.eos_id, enough=number)
        result = self._translate(source, search, limits)
        ids, scores = result.ids[:, :number], result.scores[:, :number]
        texts = self.tokenizer.detokenize(tf.reshape(ids, [-1, tf.shape(ids)[2]]))
        empty = (length == 0)[:, tf.newaxis]
        return tf.where(empty, "", tf.reshape(texts, [-1, number])), tf.where(empty, 0.0, scores)


def _lengths(ids: tf.Tensor) -> tf.Tensor:
    """Counts the tokens of padded ids, int32 [B, T] -> int32 [B]."""
    return tf.math.count_nonzero(ids, 1, dtype=tf.int32)
