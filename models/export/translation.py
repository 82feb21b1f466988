"""The serving module of a translator: Transformer, tokenizers and decode loop in one graph."""

import dataclasses
import functools
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from seq2serve.models.config import DecodingConfig
from seq2serve.models.decoding import scoring
from seq2serve.models.decoding.beam_search import BeamOptions, BeamSearch, LengthLimits
from seq2serve.models.decoding.loop import generate
from seq2serve.models.decoding.step import NEG_INF, as_variables, prepare, refresh
from seq2serve.models.export.export import signature
from seq2serve.models.export.inputs import check_range, check_rows, check_values, read_texts
from seq2serve.models.export.warmup import WarmupRequest, alone_and_together
from seq2serve.models.runtime.answers import LENGTH, STOP
from seq2serve.models.tokenizers.base import Tokenizer
from seq2serve.models.transformer.models import Transformer

MAX_LENGTH_PENALTY = 10

_TEXT = [tf.TensorSpec([None], tf.string, name="text")]
_PAIR = [tf.TensorSpec([None], tf.string, name="source"), tf.TensorSpec([None], tf.string, name="target")]
_OPTIONS = {
    "beam_size": tf.int32,
    "n_best": tf.int32,
    "length_penalty": tf.float32,
    "min_length": tf.int32,
    "max_length": tf.int32,
}
_TEXT_AND_OPTIONS = [*_TEXT, *(tf.TensorSpec([None], dtype, name) for name, dtype in _OPTIONS.items())]


class _Hypotheses(NamedTuple):
    """The N = `decoding.beam_size` best hypotheses of each text.

    Args:
        ids: int32 [B, N, T], best first, padded with 0.
        scores: float32 [B, N]; NEG_INF where there is no hypothesis.
        is_cut: bool [B, N], whether a hypothesis reached the maximum length.
        has_tokens: bool [B], whether the text has tokens.
        truncated: bool [B], whether the text was cut.
    """

    ids: tf.Tensor
    scores: tf.Tensor
    is_cut: tf.Tensor
    has_tokens: tf.Tensor
    truncated: tf.Tensor


class TranslationServingModule(tf.Module):
    """A ServingModule of a Transformer.

    Args:
        model: a built model.
        tokenizer: the tokenizer of the target.
        decoding: beam size, length penalty and length limits.
        max_source_length: number of tokens after which a source is cut, that of training.
        source_tokenizer: the tokenizer of the source, if the vocabularies are separate.
    """

    def __init__(
        self,
        model: Transformer,
        tokenizer: Tokenizer,
        decoding: DecodingConfig,
        max_source_length: int,
        source_tokenizer: Tokenizer | None = None,
    ):
        super().__init__(name="translation")
        self.tokenizer, self.decoding, self.max_source_length = tokenizer, decoding, max_source_length
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
            "translate": self.translate,
            "score": self.score,
            "attention": self.attention,
        }

    def warmup_requests(self, samples: list[str]) -> list[WarmupRequest]:
        """Returns requests to every signature; a sample is also its own target where a pair is required."""
        texts, pairs = {"text": samples}, {"source": samples, "target": samples}
        options = {name: [value] * len(samples) for name, value in self._options().items()}
        inputs = {
            "serving_default": texts,
            "n_best": texts,
            "translate": {**texts, **options},
            "score": pairs,
            "attention": pairs,
        }
        return [request for name, rows in inputs.items() for request in alone_and_together(name, rows)]

    def config(self) -> dict[str, Any]:
        """Returns the task, the model config, the decoding config, and the options of `serving_default`."""
        return {
            "task": "translation",
            "model": self._model_config(),
            "decoding": {**dataclasses.asdict(self.decoding), "max_source_length": self.max_source_length},
            "options": {"translate": self._options()},
        }

    def source_ids(self, text: tf.Tensor) -> tf.Tensor:
        """Tokenizes, truncates to `max_source_length` and appends the end marker.

        Args:
            text: tf.string [B].
        Returns:
            int32 [B, S], padded with 0.
        """
        return self._read_source(text)[0]

    def target_ids(self, text: tf.Tensor) -> tf.Tensor:
        """Does the same for targets, truncated to the maximum length of translations: tf.string [B] -> int32 [B, T]."""
        return self._read_target(text)[0]

    @signature(input_signature=_TEXT)
    def serving_default(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """Translates texts.

        Args:
            text: tf.string [B]; the translation of a text without tokens is empty.
        Returns:
            translation: tf.string [B], valid UTF-8; score: float32 [B], log probability divided by the length penalty;
            finish_reason: tf.string [B], "stop", or "length" if the translation was cut at the maximum length;
            truncated: bool [B], whether the text was cut after `max_source_length` tokens.
        """
        found = self._search(text, **self._filled_options(text, n_best=1))
        translations, scores, reasons = self._read_hypotheses(found, 1)
        return {
            "translation": translations[:, 0],
            "score": scores[:, 0],
            "finish_reason": reasons[:, 0],
            "truncated": found.truncated,
        }

    @signature(input_signature=_TEXT)
    def n_best(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the N = `beam_size` best translations.

        Args:
            text: tf.string [B].
        Returns:
            As for `translate`.
        """
        return self.translate(text, **self._filled_options(text, n_best=self.decoding.beam_size))

    @signature(input_signature=_TEXT_AND_OPTIONS)
    def translate(
        self,
        text: tf.Tensor,
        beam_size: tf.Tensor,
        n_best: tf.Tensor,
        length_penalty: tf.Tensor,
        min_length: tf.Tensor,
        max_length: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        """Translates each text with options of its own.

        Args:
            text: tf.string [B].
            beam_size: int32 [B], 1 to the N = `beam_size` of the DecodingConfig, which is a shape in the graph.
            n_best: int32 [B], number of translations, 1 to the row's beam size.
            length_penalty: float32 [B], alpha of the length penalty, 0 to MAX_LENGTH_PENALTY.
            min_length, max_length: int32 [B], limits of the number of tokens of a translation. 0 leaves the maximum to
                the DecodingConfig, or to the minimum if that is larger.
        Returns:
            translations: tf.string [B, N], best first; scores: float32 [B, N]; finish_reasons: tf.string [B, N];
            truncated: bool [B]. No two translations of a text are the same, white space aside. Where there are fewer
            than N, the rest are "" with the score -1e9, because JSON has no infinity, and the finish reason "".
        """
        options = (beam_size, n_best, length_penalty, min_length, max_length)
        rows = {"text": text, **dict(zip(_OPTIONS, options, strict=True))}
        with tf.control_dependencies([check_rows("translate", rows)]):
            options = tuple(map(tf.identity, options))
        with tf.control_dependencies(self._checks(*options)):
            found = self._search(tf.identity(text), *options)
        translations, scores, reasons = self._read_hypotheses(found, self.decoding.beam_size)
        scores = tf.where(_repeats(translations), NEG_INF, scores)
        scores, order = tf.math.top_k(scores, self.decoding.beam_size)  # equal scores stay in their order
        is_returned = (scores > NEG_INF / 2) & (tf.range(self.decoding.beam_size) < options[1][:, tf.newaxis])
        return {
            "translations": tf.where(is_returned, tf.gather(translations, order, batch_dims=1), ""),
            "scores": tf.where(is_returned, scores, NEG_INF),
            "finish_reasons": tf.where(is_returned, tf.gather(reasons, order, batch_dims=1), ""),
            "truncated": found.truncated,
        }

    @signature(input_signature=_PAIR)
    def score(self, source: tf.Tensor, target: tf.Tensor) -> dict[str, tf.Tensor]:
        """Computes the log probability of each target, given its source.

        Args:
            source, target: tf.string [B].
        Returns:
            log_probability: float32 [B], in nats; tokens: int32 [B], number of target tokens, including the end marker;
            truncated: bool [B], whether the source or the target was cut.
        """
        source_ids, target_ids, truncated = self._read_pairs("score", source, target)
        log_probabilities = self._log_probabilities(source_ids, target_ids)  # [B, T]
        return {
            "log_probability": tf.reduce_sum(log_probabilities, 1),
            "tokens": _lengths(target_ids),
            "truncated": truncated,
        }

    @signature(input_signature=_PAIR)
    def attention(self, source: tf.Tensor, target: tf.Tensor) -> dict[str, tf.Tensor]:
        """Computes the cross-attention weights with which each target token is predicted.

        Args:
            source, target: tf.string [B].
        Returns:
            source_tokens: tf.string [B, S], target_tokens: tf.string [B, T], pieces including end markers, padded with
            ""; source_length, target_length: int32 [B]; attention: float32 [B, L, H, T, S]; truncated: bool [B],
            whether the source or the target was cut.
        """
        source_ids, target_ids, truncated = self._read_pairs("attention", source, target)
        cross = self._attention(source_ids, target_ids).cross  # [L, B, H, T, S]
        return {
            "source_tokens": self._pieces(self.source_tokenizer, source_ids),
            "target_tokens": self._pieces(self.tokenizer, target_ids),
            "source_length": _lengths(source_ids),
            "target_length": _lengths(target_ids),
            "attention": tf.cast(tf.transpose(cross, [1, 0, 2, 3, 4]), tf.float32),
            "truncated": truncated,
        }

    def _options(self) -> dict[str, Any]:
        """Returns the options of `translate` with which it translates as `serving_default`."""
        beam_size, length_penalty = self.decoding.beam_size, float(self.decoding.length_penalty)
        defaults = {"beam_size": beam_size, "n_best": 1, "length_penalty": length_penalty}
        return {**defaults, "min_length": 0, "max_length": 0}

    def _filled_options(self, text: tf.Tensor, n_best: int) -> dict[str, tf.Tensor]:
        """Returns the options of `serving_default` for each text: option -> [B]."""
        values = {**self._options(), "n_best": n_best}
        return {name: tf.fill(tf.shape(text), tf.constant(value, _OPTIONS[name])) for name, value in values.items()}

    def _checks(
        self,
        beam_size: tf.Tensor,
        n_best: tf.Tensor,
        length_penalty: tf.Tensor,
        min_length: tf.Tensor,
        max_length: tf.Tensor,
    ) -> list[tf.Operation]:
        """Returns the assertions that every value of the options of `translate` is valid."""
        highest = min(int(self._max_length(self.max_source_length)), tf.int32.max)
        in_order = (max_length == 0) | (min_length <= max_length)
        return [
            check_range("beam_size", beam_size, 1, self.decoding.beam_size),
            check_values("n_best", n_best, (n_best >= 1) & (n_best <= beam_size), "between 1 and beam_size"),
            check_range("length_penalty", length_penalty, 0, MAX_LENGTH_PENALTY),
            check_range("min_length", min_length, 0, highest),
            check_range("max_length", max_length, 0, highest),
            check_values("min_length", min_length, in_order, "at most max_length"),
        ]

    def _read_source(self, text: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return read_texts(self.source_tokenizer, text, self.max_source_length)

    def _read_target(self, text: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return read_texts(self.tokenizer, text, int(self._max_length(self.max_source_length)))

    def _read_pairs(self, name: str, source: tf.Tensor, target: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns the ids of sources and targets, int32 [B, S] and [B, T], and whether one of a pair was cut."""
        with tf.control_dependencies([check_rows(name, {"source": source, "target": target})]):
            source, target = tf.identity(source), tf.identity(target)
        (source_ids, source_cut), (target_ids, target_cut) = self._read_source(source), self._read_target(target)
        return source_ids, target_ids, source_cut | target_cut

    def _pieces(self, tokenizer: Tokenizer, ids: tf.Tensor) -> tf.Tensor:
        return tf.where(ids == 0, "", tokenizer.id_to_piece(ids))

    def _max_length(self, source_length: Any) -> Any:
        """Returns the maximum number of tokens of a translation, for a number or a tensor."""
        return self.decoding.max_length_ratio * source_length + self.decoding.max_length_extra

    @signature(input_signature=_TEXT_AND_OPTIONS)
    def _search(
        self,
        text: tf.Tensor,
        beam_size: tf.Tensor,
        n_best: tf.Tensor,
        length_penalty: tf.Tensor,
        min_length: tf.Tensor,
        max_length: tf.Tensor,
    ) -> _Hypotheses:
        """Searches the translations of texts, with valid options as for `translate`.

        It is a separate tf.function, so that the graph contains it once. The model server processes the whole graph
        for each signature that it prepares.
        """
        source, truncated = self._read_source(text)  # [B, S]
        length = _lengths(source) - 1
        default = tf.cast(self._max_length(tf.cast(length, tf.float32)), tf.int32)
        maximum = tf.where(max_length > 0, max_length, tf.maximum(default, min_length))
        limits = BeamOptions(LengthLimits(min_length, maximum), beam_size, n_best, length_penalty)
        beams, penalty = self.decoding.beam_size, self.decoding.length_penalty
        result = self._generate(source, BeamSearch(beams, beams, penalty, self.tokenizer.eos_id), limits)
        is_cut = result.lengths >= maximum[:, tf.newaxis]
        return _Hypotheses(result.ids, result.scores, is_cut, length > 0, truncated)

    def _read_hypotheses(self, found: _Hypotheses, number: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns translations, scores and finish reasons of the best hypotheses, [B, number] each.

        For a text without tokens they are "", 0 and "stop".
        """
        ids, has_tokens = found.ids[:, :number], found.has_tokens[:, tf.newaxis]
        texts = self.tokenizer.detokenize(tf.reshape(ids, [-1, tf.shape(ids)[2]]))
        return (
            tf.where(has_tokens, tf.reshape(texts, [-1, number]), ""),
            tf.where(has_tokens, found.scores[:, :number], 0.0),
            tf.where(has_tokens & found.is_cut[:, :number], LENGTH, STOP),
        )


def _repeats(texts: tf.Tensor) -> tf.Tensor:
    """Returns whether a text equals an earlier one of its row, white space aside: tf.string [B, N] -> bool [B, N]."""
    words = tf.strings.strip(tf.strings.regex_replace(texts, r"[\s\pZ]+", " "))
    is_equal = words[:, :, tf.newaxis] == words[:, tf.newaxis]  # [B, N, N]
    is_earlier = np.tri(texts.shape[1], k=-1, dtype=bool)
    return tf.reduce_any(is_equal & is_earlier, 2)


def _lengths(ids: tf.Tensor) -> tf.Tensor:
    """Counts the tokens of padded ids: int32 [B, T] -> int32 [B]."""
    return tf.math.count_nonzero(ids, 1, dtype=tf.int32)
