"""Beam search; greedy search is a beam of one.

Axes: B rows, K beams, N hypotheses to return, V vocabulary, C the capacity for tokens, which grows during decoding. See
also sampling.py, which draws tokens at random, and loop.py, which calls `advance` after each step of the decoder.
"""

import dataclasses
import functools
from typing import Any, NamedTuple, Protocol

import tensorflow as tf

from seq2serve.models.decoding.tuning import NEG_INF, log_sum_exp, top_k
from seq2serve.models.transformer.cache import write_slice


class Hypotheses(NamedTuple):
    """The unfinished hypotheses of each row, and its best finished ones.

    Args:
        tokens: int32 [B, K], the last token of each unfinished hypothesis.
        parents: int32 [B, K], index of the hypothesis in the previous step that each of them extends.
        ids: int32 [B, K, C], all their tokens.
        log_probs: float32 [B, K], sums over the tokens.
        best_ids: int32 [B, N, C], finished hypotheses, best first, without end marker.
        best_lengths: int32 [B, N], number of tokens without the end marker.
        best_scores: float32 [B, N], log probability divided by the length penalty; NEG_INF where there is no hypothesis
            yet.
        best_log_probs: float32 [B, N].
        done: bool [B].
        is_repeating: bool [B], whether a hypothesis may be about to repeat itself; see repetition.py.
    """

    tokens: tf.Tensor
    parents: tf.Tensor
    ids: tf.Tensor
    log_probs: tf.Tensor
    best_ids: tf.Tensor
    best_lengths: tf.Tensor
    best_scores: tf.Tensor
    best_log_probs: tf.Tensor
    done: tf.Tensor
    is_repeating: tf.Tensor


class SearchStrategy(Protocol):
    """The interface of BeamSearch and Sampler.

    Args:
        beams: K, number of hypotheses per row.
        n_best: N, number of hypotheses to return.
    """

    @property
    def beams(self) -> int: ...

    @property
    def n_best(self) -> int: ...

    def advance(self, hypotheses: Hypotheses, logits: tf.Tensor, step: tf.Tensor, limits: Any, /) -> Hypotheses:
        """Extends every unfinished hypothesis by one token; see BeamSearch."""


def initial_hypotheses(last: tf.Tensor, beams: int, n_best: int, capacity: int) -> Hypotheses:
    """Makes empty hypotheses.

    Only the first beam has a finite score, because at first all beams are equal.

    Args:
        last: int32 [B], the token before the first generated one.
        beams: K.
        n_best: N.
        capacity: C.
    """
    batch, log_probs = tf.shape(last)[0], tf.constant([[0.0] + [NEG_INF] * (beams - 1)])  # [1, K]
    return Hypotheses(
        tokens=tf.repeat(last[:, tf.newaxis], beams, axis=1),
        parents=tf.zeros([batch, beams], tf.int32),
        ids=tf.zeros([batch, beams, capacity], tf.int32),
        log_probs=tf.repeat(log_probs, batch, axis=0),
        best_ids=tf.zeros([batch, n_best, capacity], tf.int32),
        best_lengths=tf.zeros([batch, n_best], tf.int32),
        best_scores=tf.fill([batch, n_best], NEG_INF),
        best_log_probs=tf.fill([batch, n_best], NEG_INF),
        done=tf.zeros([batch], tf.bool),
        is_repeating=tf.zeros([batch], tf.bool),
    )


def length_normalizer(length: tf.Tensor, alpha: float | tf.Tensor) -> tf.Tensor:
    """Computes the length penalty lp(Y) = ((5 + |Y|) / 6) ** alpha (GNMT, Wu et al. 2016, equation 14).

    The length |Y| includes the end marker. Length and alpha broadcast.
    """
    return tf.pow((5.0 + tf.cast(length, tf.float32)) / 6.0, alpha)


def append_tokens(
    h: Hypotheses, tokens: tf.Tensor, log_probs: tf.Tensor, step: tf.Tensor, is_last: tf.Tensor, eos_id: int
) -> Hypotheses:
    """Appends a token to the only hypothesis of each row, which is also its best.

    Args:
        h: hypotheses before the step.
        tokens: int32 [B, 1].
        log_probs: float32 [B, 1], log probabilities of the tokens.
        step: int32 scalar, number of tokens in the hypotheses.
        is_last: bool [B, 1], whether a row reaches its maximum length.
        eos_id: the end marker.
    Returns:
        Hypotheses after the step, scored by their log probability. Rows that were done do not change.
    """
    is_end, was_done = tokens == eos_id, h.done[:, tf.newaxis]
    totals = tf.where(was_done, h.log_probs, h.log_probs + log_probs)
    ids = write_slice(h.ids, step, tf.where(was_done | is_end, 0, tokens)[..., tf.newaxis])
    return h._replace(
        tokens=tokens,
        ids=ids,
        log_probs=totals,
        best_ids=ids,
        best_lengths=h.best_lengths + tf.cast(~(was_done | is_end), tf.int32),
        best_scores=totals,
        best_log_probs=totals,
        done=h.done | (is_end | is_last)[:, 0],
    )


class LengthLimits(NamedTuple):
    """Minimum and maximum number of tokens per row, without the end marker: int32 [B] each."""

    minimum: tf.Tensor
    maximum: tf.Tensor

    def mask_end(self, logits: tf.Tensor, step: tf.Tensor, beams: int, eos_id: int) -> tf.Tensor:
        """Sets the logit of the end marker to NEG_INF in rows that are still too short; writes in place."""
        too_short = tf.repeat(step < self.minimum, beams)[:, tf.newaxis]  # [B * K, 1]
        end = logits[:, eos_id : eos_id + 1]
        return write_slice(logits, eos_id, tf.where(too_short, NEG_INF, end))


class BeamOptions(NamedTuple):
    """The options of each row; a BeamSearch takes them instead of `LengthLimits`.

    Args:
        lengths: minimum and maximum number of tokens.
        beams: int32 [B], number of beams to use, 1 to K.
        n_best: int32 [B], number of finished hypotheses that the row needs to be done, 1 to N.
        length_penalty: float32 [B], alpha of the length penalty.
        placeholders: bool [B, M], which placeholders the source has; empty if the vocabulary has none.
    """

    lengths: LengthLimits
    beams: tf.Tensor | int
    n_best: tf.Tensor | int
    length_penalty: tf.Tensor | float
    placeholders: tf.Tensor | tuple[()] = ()

    def columns(self) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns beams, n_best and length_penalty as [B, 1], or [1, 1] if they are numbers."""
        beams, n_best, length_penalty = (tf.reshape(option, [-1, 1]) for option in self[1:4])
        return beams, n_best, length_penalty


@dataclasses.dataclass(frozen=True)
class BeamSearch:
    """Beam search with length penalty and n-best results.

    Each step considers the 2K best extensions. Those among the first K that end become finished hypotheses. The K best
    that do not end are extended in the next step. A row with fewer beams (BeamOptions) finds the same as a search with
    that many: the log probability of its unused beams is NEG_INF.

    A row is done when it has enough finished hypotheses and its best unfinished one scores lower than the worst of
    them, even if it ended with the next token with probability one. Without length penalty, nothing better can follow.
    With it, something better is rare: a longer hypothesis is divided by a larger number, but is also less probable.

    Args:
        beams: K; 1 is greedy search.
        n_best: N, at most K.
        length_penalty: alpha of the length penalty; 0 disables it. BeamOptions override it.
        eos_id: the end marker.
        first_placeholders: of the target's Tokenizer. A hypothesis has each placeholder of its source (BeamOptions)
            once and no other, and ends after the last one, or at its maximum length.
    Raises:
        ValueError: N exceeds K.
    """

    beams: int = 4
    n_best: int = 1
    length_penalty: float = 0.6
    eos_id: int = 3
    first_placeholders: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.n_best <= self.beams:
            raise ValueError(f"n_best ({self.n_best}) must be between 1 and the number of beams ({self.beams})")

    def advance(
        self, hypotheses: Hypotheses, logits: tf.Tensor, step: tf.Tensor, limits: LengthLimits | BeamOptions
    ) -> Hypotheses:
        """Extends every unfinished hypothesis by one token.

        Args:
            hypotheses: before the step.
            logits: float32 [B * K, V].
            step: int32 scalar, number of tokens in the unfinished hypotheses.
            limits: length limits or options of each row.
        Returns:
            Hypotheses after the step. The finished hypotheses of rows that were done do not change.
        """
        if not isinstance(limits, BeamOptions):
            limits = BeamOptions(limits, self.beams, self.n_best, self.length_penalty)
        logits = limits.lengths.mask_end(logits, step, self.beams, self.eos_id)
        if tf.is_tensor(limits.placeholders):
            left = limits.lengths.maximum - step
            logits = self._mask_placeholders(logits, hypotheses.ids, limits.placeholders, left)
        is_last = (step + 1 >= limits.lengths.maximum)[:, tf.newaxis]  # [B, 1]
        extend = self._extend_greedily if self.beams == 1 else self._extend
        return extend(hypotheses, logits, step, is_last, limits)

    def _mask_placeholders(
        self, logits: tf.Tensor, ids: tf.Tensor, placeholders: tf.Tensor, left: tf.Tensor
    ) -> tf.Tensor:
        """Masks the placeholders that must not come next, and the end marker while some are missing; in place.

        When there is just enough room for the missing ones, it masks all other tokens.

        Args:
            logits: float32 [B * K, V].
            ids: int32 [B, K, C], the tokens of the hypotheses.
            placeholders: bool [B, M], those of the source.
            left: int32 [B], number of tokens before the maximum length.
        """
        index = tf.range(placeholders.shape[1])
        ids_of_placeholders = tf.concat([first + index for first in self.first_placeholders], 0)
        is_used = [tf.reduce_any(ids[..., tf.newaxis] == first + index, 2) for first in self.first_placeholders]
        is_missing = placeholders[:, tf.newaxis] & ~functools.reduce(tf.logical_or, is_used)  # [B, K, M]
        is_urgent = tf.math.count_nonzero(is_missing, 2, dtype=tf.int32) >= tf.maximum(left, 1)[:, tf.newaxis]
        is_missing, is_urgent = tf.reshape(is_missing, [-1, placeholders.shape[1]]), tf.reshape(is_urgent, [-1, 1])
        others = tf.one_hot(ids_of_placeholders, logits.shape[1], False, True, dtype=tf.bool)
        logits = tf.cond(
            tf.reduce_any(is_urgent),
            lambda: tf.where(is_urgent & tf.reduce_all(others, 0), NEG_INF, logits),
            lambda: tf.identity(logits),
        )
        for first in self.first_placeholders:
            columns = logits[:, first : first + placeholders.shape[1]]
            logits = write_slice(logits, first, tf.where(is_missing, columns, NEG_INF))
        end = logits[:, self.eos_id : self.eos_id + 1]
        return write_slice(logits, self.eos_id, tf.where(tf.reduce_any(is_missing, 1, keepdims=True), NEG_INF, end))

    def _extend_greedily(
        self, h: Hypotheses, logits: tf.Tensor, step: tf.Tensor, is_last: tf.Tensor, options: BeamOptions
    ) -> Hypotheses:
        _, _, length_penalty = options.columns()
        highest, tokens = tf.math.top_k(logits, 1)  # [B, 1]
        extended = append_tokens(h, tokens, highest - log_sum_exp(logits, highest), step, is_last, self.eos_id)
        scores = extended.log_probs / length_normalizer(step + 1, length_penalty)
        return extended._replace(best_scores=tf.where(h.done[:, tf.newaxis], h.best_scores, scores))

    def _extend(
        self, h: Hypotheses, logits: tf.Tensor, step: tf.Tensor, is_last: tf.Tensor, options: BeamOptions
    ) -> Hypotheses:
        """Extends the hypotheses of more than one beam."""
        k, (beams, n_best, length_penalty) = self.beams, options.columns()
        log_probs, parents, tokens = self._candidates(h.log_probs, logits)  # [B, 2K]
        ends = ((tokens == self.eos_id) | is_last)[:, :k]  # [B, K]
        if are_fewer := tf.is_tensor(options.beams):
            in_beam = tf.range(k) < beams  # [B, K]; the candidates are sorted, so those of unused beams come last
            ends &= in_beam
        best = self._add_finished(h, (log_probs[:, :k], parents[:, :k], tokens[:, :k]), ends, step, length_penalty)
        log_probs, order = tf.math.top_k(tf.where(tokens == self.eos_id, NEG_INF, log_probs), k)  # [B, K]
        if are_fewer:
            log_probs = tf.where(in_beam, log_probs, NEG_INF)
        parents = tf.gather(parents, order, batch_dims=1)
        tokens = tf.gather(tokens, order, batch_dims=1)
        bound = log_probs[:, :1] / length_normalizer(step + 2, length_penalty)  # +2: counts the end marker to come
        is_needed = tf.range(self.n_best) < n_best  # [B, N]
        has_enough = tf.reduce_all(~is_needed | (best.best_scores >= bound), 1)
        return best._replace(
            tokens=tokens,
            parents=parents,
            ids=write_slice(tf.gather(h.ids, parents, batch_dims=1), step, tokens[..., tf.newaxis]),
            log_probs=log_probs,
            done=h.done | is_last[:, 0] | has_enough,
        )

    def _candidates(self, log_probs: tf.Tensor, logits: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns the best extensions, best first: log probability, parent and token, each [B, 2K].

        The best of all K x V extensions are among the best of each beam, and within a beam they are ordered by their
        logits. Only these few have to be normalised.
        """
        k, count = self.beams, 2 * self.beams
        values, tokens = top_k(logits, count)  # [B * K, 2K]
        values -= log_sum_exp(logits, values[:, :1])
        totals = tf.reshape(values, [-1, k, count]) + log_probs[..., tf.newaxis]  # [B, K, 2K]
        best, index = tf.math.top_k(tf.reshape(totals, [-1, k * count]), count)  # [B, 2K]
        tokens = tf.gather(tf.reshape(tokens, [-1, k * count]), index, batch_dims=1)
        return best, index // count, tokens

    def _add_finished(
        self,
        h: Hypotheses,
        candidates: tuple[tf.Tensor, tf.Tensor, tf.Tensor],
        ends: tf.Tensor,
        step: tf.Tensor,
        length_penalty: tf.Tensor,
    ) -> Hypotheses:
        """Merges the candidates that end, of as many as the row has beams, into the finished hypotheses.

        Args:
            h: hypotheses before the step.
            candidates: log probability, parent and token, each [B, K].
            ends: bool [B, K].
            step: int32 scalar.
            length_penalty: float32 [B, 1] or [1, 1].
        """
        n, (log_probs, parents, tokens) = self.n_best, candidates
        is_finished = ends & ~h.done[:, tf.newaxis] & (log_probs > NEG_INF / 2)
        scores = log_probs / length_normalizer(step + 1, length_penalty)
        scores = tf.where(is_finished, scores, NEG_INF)  # [B, K]
        is_end = tokens == self.eos_id
        best_scores, index = tf.math.top_k(tf.concat([h.best_scores, scores], 1), n)  # [B, N], index in N + K

        def select(old: tf.Tensor, new: tf.Tensor) -> tf.Tensor:
            return tf.gather(tf.concat([old, new], 1), index, batch_dims=1)

        # A hypothesis that was finished before this step keeps its ids and gets no further token.
        is_old, candidate = index < n, tf.maximum(index - n, 0)
        origin = tf.where(is_old, index, tf.gather(parents, candidate, batch_dims=1) + n)
        ids = tf.gather(tf.concat([h.best_ids, h.ids], 1), origin, batch_dims=1)  # [B, N, C]
        token = tf.gather(tf.where(is_end, 0, tokens), candidate, batch_dims=1)
        token = tf.where(is_old, 0, token)
        return h._replace(
            best_ids=write_slice(ids, step, token[..., tf.newaxis]),
            best_lengths=select(h.best_lengths, step + tf.cast(~is_end, tf.int32)),
            best_scores=best_scores,
            best_log_probs=select(h.best_log_probs, log_probs),
        )
