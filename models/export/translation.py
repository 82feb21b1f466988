"""The serving module of a translator: Transformer, tokenizers and decode loop in one graph."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from seq2serve.models.config import DecodingConfig
from seq2serve.models.decoding import scoring
from seq2serve.models.decoding.beam_search import BeamOptions, BeamSearch, LengthLimits
from seq2serve.models.decoding.fold import FoldedDecoder
from seq2serve.models.decoding.loop import generate
from seq2serve.models.decoding.repetition import limit_repetition
from seq2serve.models.decoding.tuning import NEG_INF
from seq2serve.models.export.export import signature
from seq2serve.models.export.inputs import check_range, check_rows, check_values, read_texts
from seq2serve.models.export.segments import split_sentences
from seq2serve.models.export.warmup import WarmupRequest, alone_and_together
from seq2serve.models.runtime.answers import LENGTH, STOP
from seq2serve.models.tokenizers.base import Tokenizer
from seq2serve.models.tokenizers.placeholders import MaskedTexts, make_placeholders
from seq2serve.models.transformer.models import Transformer

MAX_LENGTH_PENALTY = 10
MAX_SENTENCES = 64  # decoded at a time

_TEXT = [tf.TensorSpec([None], tf.string, name="text")]
_PAIR = [tf.TensorSpec([None], tf.string, name="source"), tf.TensorSpec([None], tf.string, name="target")]
_OPTIONS = {
    "beam_size": tf.int32,
    "n_best": tf.int32,
    "length_penalty": tf.float32,
    "min_length": tf.int32,
    "max_length": tf.int32,
}
_OPTION_SPECS = {name: tf.TensorSpec([None], dtype, name) for name, dtype in _OPTIONS.items()}


class _Translations(NamedTuple):
    """The N = `decoding.beam_size` best translations of each of B texts, or of each of B sentences.

    Args:
        texts: tf.string [B, N], best first. Where fewer were found, the best again; "" for a text without tokens.
        scores: float32 [B, N]; 0 for a text without tokens.
        is_cut: bool [B, N], whether the maximum length was reached.
        truncated: bool [B], whether the source was cut.
    """

    texts: tf.Tensor
    scores: tf.Tensor
    is_cut: tf.Tensor
    truncated: tf.Tensor


class _Pairs(NamedTuple):
    """Sources and targets.

    Args:
        source_ids, target_ids: int32 [B, S] and [B, T], padded with 0.
        truncated: bool [B], whether one of a pair was cut.
        masked: the sources with their placeholders, if the tokenizer has any.
    """

    source_ids: tf.Tensor
    target_ids: tf.Tensor
    truncated: tf.Tensor
    masked: MaskedTexts | None


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
        self.placeholders = make_placeholders(self.source_tokenizer, tokenizer)
        self.weights = [variable.value for variable in model.weights]
        # Folded once and stored, instead of in every request.
        self._decoder = FoldedDecoder(model)
        self.decoding_weights = [variable.value for variable in self._decoder.weights]
        self._generate = functools.partial(generate, self._decoder, bos_id=tokenizer.bos_id)
        self._log_probabilities = functools.partial(scoring.log_probabilities, model, bos_id=tokenizer.bos_id)
        self._attention = functools.partial(scoring.attention_weights_of_every_layer, model, bos_id=tokenizer.bos_id)
        self._model_config = functools.partial(dataclasses.asdict, model.config)

    def refresh(self) -> None:
        """Updates the folded weights after the model's weights have changed."""
        self._decoder.refresh()

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

    def pair_ids(self, source: tf.Tensor, target: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Tokenizes pairs, truncates them, and appends end markers.

        Args:
            source: tf.string [B], truncated to `max_source_length`.
            target: tf.string [B], truncated to the maximum length of translations.
        Returns:
            int32 [B, S] and int32 [B, T], padded with 0.
        """
        pairs = self._read_pairs(tf.convert_to_tensor(source), tf.convert_to_tensor(target))
        return pairs.source_ids, pairs.target_ids

    @signature(input_signature=_TEXT)
    def serving_default(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """Translates texts, sentence by sentence; the white space between and around sentences is kept.

        Args:
            text: tf.string [B]; the translation of a sentence without tokens is empty.
        Returns:
            translation: tf.string [B], valid UTF-8; score: float32 [B], sum over the sentences of the log probability
            divided by the length penalty; finish_reason: tf.string [B], "stop", or "length" if the translation of a
            sentence was cut at the maximum length; truncated: bool [B], whether a sentence was cut after
            `max_source_length` tokens.
        """
        found = self._search(text, self._filled_options(text, n_best=1))
        return {
            "translation": found.texts[:, 0],
            "score": found.scores[:, 0],
            "finish_reason": _finish_reasons(found.is_cut[:, 0]),
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

    @signature(input_signature=[*_TEXT, *_OPTION_SPECS.values()])
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
            min_length, max_length: int32 [B], limits of the number of tokens of the translation of a sentence. 0 leaves
                the maximum to the DecodingConfig, or to the minimum if that is larger.
        Returns:
            translations: tf.string [B, N], best first; scores: float32 [B, N]; finish_reasons: tf.string [B, N];
            truncated: bool [B]. The second translation joins the second ones of the sentences, and so on. No two are
            the same, white space aside. Where there are fewer than N, the rest are "" with the score -1e9, because JSON
            has no infinity, and the finish reason "".
        """
        values = (beam_size, n_best, length_penalty, min_length, max_length)
        options = dict(zip(_OPTIONS, values, strict=True))
        with tf.control_dependencies([check_rows("translate", {"text": text, **options})]):
            options = {name: tf.identity(value) for name, value in options.items()}
        with tf.control_dependencies(self._checks(**options)):
            found = self._search(tf.identity(text), options)
        translations, reasons = found.texts, _finish_reasons(found.is_cut)
        scores = tf.where(_repeats(translations), NEG_INF, found.scores)
        scores, order = tf.math.top_k(scores, self.decoding.beam_size)  # equal scores stay in their order
        is_returned = (scores > NEG_INF / 2) & (tf.range(self.decoding.beam_size) < options["n_best"][:, tf.newaxis])
        return {
            "translations": tf.where(is_returned, tf.gather(translations, order, batch_dims=1), ""),
            "scores": tf.where(is_returned, scores, NEG_INF),
            "finish_reasons": tf.where(is_returned, tf.gather(reasons, order, batch_dims=1), ""),
            "truncated": found.truncated,
        }

    @signature(input_signature=_PAIR)
    def score(self, source: tf.Tensor, target: tf.Tensor) -> dict[str, tf.Tensor]:
        """Computes the log probability of each target, given its source.

        A pair is not split, because nothing tells which sentences of the two texts belong together.

        Args:
            source, target: tf.string [B].
        Returns:
            log_probability: float32 [B], in nats; tokens: int32 [B], number of target tokens, including the end marker;
            truncated: bool [B], whether the source or the target was cut.
        """
        pairs = self._read_checked_pairs("score", source, target)
        log_probabilities = self._log_probabilities(pairs.source_ids, pairs.target_ids)  # [B, T]
        return {
            "log_probability": tf.reduce_sum(log_probabilities, 1),
            "tokens": _lengths(pairs.target_ids),
            "truncated": pairs.truncated,
        }

    @signature(input_signature=_PAIR)
    def attention(self, source: tf.Tensor, target: tf.Tensor) -> dict[str, tf.Tensor]:
        """Computes the cross-attention weights with which each target token is predicted. A pair is not split.

        Args:
            source, target: tf.string [B].
        Returns:
            source_tokens: tf.string [B, S], target_tokens: tf.string [B, T], pieces including end markers, padded with
            ""; source_length, target_length: int32 [B]; attention: float32 [B, L, H, T, S]; truncated: bool [B],
            whether the source or the target was cut.
        """
        pairs = self._read_checked_pairs("attention", source, target)
        cross = self._attention(pairs.source_ids, pairs.target_ids).cross  # [L, B, H, T, S]
        return {
            "source_tokens": self._pieces(self.source_tokenizer, pairs.source_ids, pairs.masked),
            "target_tokens": self._pieces(self.tokenizer, pairs.target_ids, pairs.masked),
            "source_length": _lengths(pairs.source_ids),
            "target_length": _lengths(pairs.target_ids),
            "attention": tf.cast(tf.transpose(cross, [1, 0, 2, 3, 4]), tf.float32),
            "truncated": pairs.truncated,
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

    def _read_source(self, text: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, MaskedTexts | None]:
        """Returns ids, int32 [B, S], whether a source was cut, bool [B], and the sources with their placeholders."""
        masked = self.placeholders.mask(text) if self.placeholders else None
        ids, truncated = read_texts(self.source_tokenizer, masked.text if masked else text, self.max_source_length)
        return ids, truncated, masked

    def _read_pairs(self, source: tf.Tensor, target: tf.Tensor) -> _Pairs:
        source_ids, source_cut, masked = self._read_source(source)
        if masked and self.placeholders:
            target = self.placeholders.mask_target(target, masked)
        max_length = int(self._max_length(self.max_source_length))
        target_ids, target_cut = read_texts(self.tokenizer, target, max_length)
        return _Pairs(source_ids, target_ids, source_cut | target_cut, masked)

    def _read_checked_pairs(self, name: str, source: tf.Tensor, target: tf.Tensor) -> _Pairs:
        """Reads the pairs of a signature after a check that there are as many targets as sources."""
        with tf.control_dependencies([check_rows(name, {"source": source, "target": target})]):
            return self._read_pairs(tf.identity(source), tf.identity(target))

    def _pieces(self, tokenizer: Tokenizer, ids: tf.Tensor, masked: MaskedTexts | None) -> tf.Tensor:
        """Returns the pieces of ids, tf.string [B, T]; for a placeholder the span that it stands for."""
        pieces = tf.where(ids == 0, "", tokenizer.id_to_piece(ids))
        if not masked:
            return pieces
        index = tokenizer.placeholder_index(ids)
        return tf.where(index < 0, pieces, masked.spans_of(tf.maximum(index, 0)))

    def _max_length(self, source_length: Any) -> Any:
        """Returns the maximum number of tokens of a translation, for a number or a tensor."""
        return self.decoding.max_length_ratio * source_length + self.decoding.max_length_extra

    @signature(input_signature=[*_TEXT, _OPTION_SPECS])
    def _search(self, text: tf.Tensor, options: Mapping[str, tf.Tensor]) -> _Translations:
        """Translates texts with valid options: those of `translate`, by name.

        The sentences of all texts are rows of the same batches, unless `split_sentences` is off. It is a separate
        tf.function, so that the graph contains it once. The model server processes the whole graph for each signature
        that it prepares.
        """
        if not self.decoding.split_sentences:
            return _in_batches(self._search_sentences, text, options, self.decoding.beam_size)
        tags, text = self.source_tokenizer.split_tag(text)
        segments = split_sentences(text)
        rows, number = segments.sentences.value_rowids(), segments.sentences.nrows()
        options = {name: tf.gather(values, rows) for name, values in options.items()}
        sentences = tf.gather(tags, rows) + segments.sentences.flat_values
        found = _in_batches(self._search_sentences, sentences, options, self.decoding.beam_size)
        texts, scores = segments.join(found.texts), tf.math.unsorted_segment_sum(found.scores, rows, number)
        is_cut, truncated = (
            tf.math.unsorted_segment_sum(tf.cast(flags, tf.int32), rows, number) > 0
            for flags in (found.is_cut, found.truncated)
        )
        return _Translations(texts, scores, is_cut, truncated)

    @signature(input_signature=[*_TEXT, _OPTION_SPECS])
    def _search_sentences(self, text: tf.Tensor, options: Mapping[str, tf.Tensor]) -> _Translations:
        source, truncated, masked = self._read_source(text)  # [B, S]
        length = _lengths(source) - 1
        default = tf.cast(self._max_length(tf.cast(length, tf.float32)), tf.int32)
        minimum, maximum = options["min_length"], options["max_length"]
        maximum = tf.where(maximum > 0, maximum, tf.maximum(default, minimum))
        lengths = LengthLimits(minimum, maximum)
        limits = BeamOptions(lengths, options["beam_size"], options["n_best"], options["length_penalty"])
        if masked:
            limits = limits._replace(placeholders=masked.is_used())
        beams, penalty, tokenizer = self.decoding.beam_size, self.decoding.length_penalty, self.tokenizer
        search = BeamSearch(beams, beams, penalty, tokenizer.eos_id, tokenizer.first_placeholders)
        result = self._generate(source, limit_repetition(search, self.decoding, tokenizer), limits)
        texts = tokenizer.detokenize(tf.reshape(result.ids, [-1, tf.shape(result.ids)[2]]))
        if masked and self.placeholders:
            texts = self.placeholders.restore(texts, masked.repeat(beams))
        texts, scores, is_cut = tf.reshape(texts, [-1, beams]), result.scores, result.lengths >= maximum[:, tf.newaxis]
        texts, scores, is_cut = (
            tf.where(result.scores > NEG_INF / 2, values, values[:, :1]) for values in (texts, scores, is_cut)
        )
        has_tokens = (length > 0)[:, tf.newaxis]
        return _Translations(
            tf.where(has_tokens, texts, ""), tf.where(has_tokens, scores, 0.0), has_tokens & is_cut, truncated
        )


def _in_batches(
    search: Callable[..., _Translations], text: tf.Tensor, options: Mapping[str, tf.Tensor], beams: int
) -> _Translations:
    """Calls `search` on MAX_SENTENCES rows of its inputs at a time, so that a long text needs no more memory."""
    total = tf.size(text)

    def search_next(start: tf.Tensor, found: _Translations) -> tuple[tf.Tensor, _Translations]:
        rows = slice(start, start + MAX_SENTENCES)
        batch = search(text[rows], {name: values[rows] for name, values in options.items()})
        return start + MAX_SENTENCES, _Translations(*(tf.concat(pair, 0) for pair in zip(found, batch, strict=True)))

    none = _Translations(
        tf.zeros([0, beams], tf.string), tf.zeros([0, beams]), tf.zeros([0, beams], tf.bool), tf.zeros([0], tf.bool)
    )
    shapes = _Translations(*(tf.TensorShape([None, *values.shape[1:]]) for values in none))
    return tf.while_loop(
        lambda start, _: start < total,
        search_next,
        (tf.constant(0), none),
        shape_invariants=(tf.TensorShape([]), shapes),
    )[1]


def _finish_reasons(is_cut: tf.Tensor) -> tf.Tensor:
    return tf.where(is_cut, LENGTH, STOP)


def _repeats(texts: tf.Tensor) -> tf.Tensor:
    """Returns whether a text equals an earlier one of its row, white space aside: tf.string [B, N] -> bool [B, N]."""
    words = tf.strings.strip(tf.strings.regex_replace(texts, r"[\s\pZ]+", " "))
    is_equal = words[:, :, tf.newaxis] == words[:, tf.newaxis]  # [B, N, N]
    is_earlier = np.tri(texts.shape[1], k=-1, dtype=bool)
    return tf.reduce_any(is_equal & is_earlier, 2)


def _lengths(ids: tf.Tensor) -> tf.Tensor:
    """Counts the tokens of padded ids: int32 [B, T] -> int32 [B]."""
    return tf.math.count_nonzero(ids, 1, dtype=tf.int32)
