"""Limits on repetition: wraps a search strategy, and changes the logits before the strategy chooses a token.

Models sometimes repeat a phrase until they reach the maximum length (Holtzman et al. 2020, arXiv:1904.09751). Only
generated tokens count, not those of a prompt or a source.

Axes: B rows, K hypotheses per row, t generated tokens, V vocabulary, W earlier positions, M matches.
"""

import dataclasses
import functools
from typing import Any

import tensorflow as tf

from seq2serve.models.config import DecodingConfig
from seq2serve.models.decoding.beam_search import Hypotheses, SearchStrategy
from seq2serve.models.decoding.tuning import NEG_INF, log_sum_exp
from seq2serve.models.tokenizers.base import Tokenizer

CHARACTERS_PER_TOKEN = 8  # how much longer an n-gram of single characters or bytes may be than one of longer pieces

_MAX_PERIOD = 4  # most steps between two looks for repeated tokens
_PROBES = 4  # number of tokens that are compared at first; the rest only if these match


def limit_repetition(search: SearchStrategy, decoding: DecodingConfig, tokenizer: Tokenizer) -> SearchStrategy:
    """Returns a search that obeys `no_repeat_ngram` and `repetition_penalty`; the same search if both are off."""
    ngram, penalty = decoding.no_repeat_ngram, decoding.repetition_penalty
    if tokenizer.is_character_level:
        ngram *= CHARACTERS_PER_TOKEN
    return RepetitionLimit(search, ngram, penalty) if ngram or penalty != 1 else search


@dataclasses.dataclass(frozen=True)
class RepetitionLimit:
    """A search strategy that repeats no n-gram, or repeats tokens less often.

    The logit of a token that would complete an n-gram of the hypothesis for the second time becomes NEG_INF (Paulus et
    al. 2018, arXiv:1705.04304, with n = 3). Logits of generated tokens are divided by the penalty if they are positive,
    and multiplied by it if they are negative (Keskar et al. 2019, arXiv:1909.05858). The end marker is never part of a
    hypothesis, so a hypothesis can always end.

    Log probabilities stay those of the model: a banned token does not make the other tokens more probable. Otherwise a
    hypothesis would gain from its repetition. With a penalty, the log probability of a repeated token is that of its
    lower logit.

    Args:
        search: the strategy that chooses the tokens.
        ngram: n, number of tokens; 0 disables it.
        penalty: at least 1; 1 disables it.
    """

    search: SearchStrategy
    ngram: int = 0
    penalty: float = 1.0

    @property
    def beams(self) -> int:
        return self.search.beams

    @property
    def n_best(self) -> int:
        return self.search.n_best

    def advance(self, hypotheses: Hypotheses, logits: tf.Tensor, step: tf.Tensor, limits: Any) -> Hypotheses:
        """Extends every unfinished hypothesis by one token; see BeamSearch."""
        if self.penalty != 1:
            penalized = penalize_tokens(logits, hypotheses.ids[:, :, :step], self.penalty)
            log_probs = _pay_for_lower_logits(hypotheses.log_probs, hypotheses.done, logits, penalized)
            hypotheses, logits = hypotheses._replace(log_probs=log_probs), penalized
        if self.ngram:
            hypotheses, logits = self._ban(hypotheses, logits, step)
        return self.search.advance(hypotheses, logits, step, limits)

    def _ban(self, h: Hypotheses, logits: tf.Tensor, step: tf.Tensor) -> tuple[Hypotheses, tf.Tensor]:
        """Bans the tokens that would repeat an n-gram.

        That takes too long for every step. Before an n-gram repeats, n - 1 tokens have repeated, and one to `period`
        steps before, at least n - `period` of them. Only every `period` steps are the last tokens looked up.
        """
        period = min(_MAX_PERIOD, max(1, self.ngram // 2))
        size = self.ngram - period

        def look_up() -> tf.Tensor:
            return tf.reduce_any(probe_repeats(h.ids[:, :, :step], size), [1, 2]) & ~h.done

        # A call that is not inlined is one operation to skip, instead of fifty.
        @functools.partial(tf.function, autograph=False, experimental_attributes={"_noinline": True})
        def ban(ids: tf.Tensor, log_probs: tf.Tensor, done: tf.Tensor, logits: tf.Tensor, step: tf.Tensor) -> tuple:
            banned = ban_ngrams(logits, ids[:, :, :step], self.ngram)
            return _pay_for_lower_logits(log_probs, done, logits, banned), banned

        is_due = (step % period == 0) & (step > size)
        is_repeating = tf.cond(is_due, look_up, lambda: tf.identity(h.is_repeating))  # [B]
        log_probs, logits = tf.cond(
            tf.reduce_any(is_repeating) & (step >= self.ngram),
            lambda: ban(h.ids, h.log_probs, h.done, logits, step),
            lambda: (tf.identity(h.log_probs), tf.identity(logits)),
        )
        return h._replace(log_probs=log_probs, is_repeating=is_repeating), logits


def _pay_for_lower_logits(log_probs: tf.Tensor, done: tf.Tensor, logits: tf.Tensor, lowered: tf.Tensor) -> tf.Tensor:
    """Subtracts in advance what hypotheses will gain when the search normalises lower logits.

    Args:
        log_probs: float32 [B, K].
        done: bool [B]; rows that are done stay the same.
        logits, lowered: float32 [B * K, V].
    Returns:
        float32 [B, K]. In the end, log probabilities are the same as with the normaliser of the original logits.
    """
    before, after = (log_sum_exp(x, tf.reduce_max(x, 1, keepdims=True)) for x in (logits, lowered))  # [B * K, 1]
    gain = tf.reshape(before - after, [-1, log_probs.shape[1]])
    return tf.where(done[:, tf.newaxis], log_probs, log_probs - gain)


def penalize_tokens(logits: tf.Tensor, past: tf.Tensor, penalty: float) -> tf.Tensor:
    """Lowers the logits of the tokens that a hypothesis has.

    Args:
        logits: float32 [B * K, V].
        past: int32 [B, K, t].
        penalty: above 1.
    Returns:
        float32 [B * K, V].
    """
    tokens = tf.reshape(past, [tf.shape(logits)[0], -1])  # [B * K, t]
    values = tf.gather(logits, tokens, batch_dims=1)
    values = tf.where(values > 0, values / penalty, values * penalty)
    rows = tf.repeat(tf.range(tf.shape(tokens)[0])[:, tf.newaxis], tf.shape(tokens)[1], axis=1)
    return tf.tensor_scatter_nd_min(logits, tf.stack([rows, tokens], 2), values)


def probe_repeats(past: tf.Tensor, size: int) -> tf.Tensor:
    """Looks up where the last `size` tokens may have occurred before, by comparing a few of them.

    Args:
        past: int32 [B, K, t], t above `size`.
        size: number of tokens; without any, they occur everywhere.
    Returns:
        bool [B, K, t - size]; element i is about the tokens from i on.
    """
    if size == 0:
        return tf.ones_like(past, tf.bool)
    stride = -(-size // _PROBES)
    offsets = range(1, size + 1, stride)  # from the end
    probes = tf.stack([past[:, :, size - offset : -offset] for offset in offsets], 2)  # [B, K, P, t - size]
    last = past[:, :, -1 : -size - 1 : -stride, tf.newaxis]  # [B, K, P, 1]
    return tf.reduce_all(tf.equal(probes, last), 2)  # `==` would lose the static shape


def ban_ngrams(logits: tf.Tensor, past: tf.Tensor, n: int) -> tf.Tensor:
    """Sets the logits of the tokens that would repeat an n-gram to NEG_INF.

    Args:
        logits: float32 [B * K, V].
        past: int32 [B, K, t], t at least n.
        n: number of tokens.
    Returns:
        float32 [B * K, V].
    """
    length = tf.shape(past, tf.int64)[2]
    is_match = tf.reshape(probe_repeats(past, n - 1), [-1, length - n + 1])
    hypothesis, start = tf.unstack(tf.where(is_match), axis=1)  # int64 [M]
    index = (hypothesis * length + start)[:, tf.newaxis] + tf.range(n, dtype=tf.int64)  # [M, n]
    ngrams = tf.gather(tf.reshape(past, [-1]), index)  # [M, n]
    last = tf.gather(tf.reshape(past, [-1, length])[:, length - n + 1 :], hypothesis)  # [M, n - 1]
    is_repeat = tf.reduce_all(tf.equal(ngrams[:, :-1], last), 1)
    values = tf.where(is_repeat, NEG_INF, logits.dtype.max)
    return tf.tensor_scatter_nd_min(logits, tf.stack([hypothesis, tf.cast(ngrams[:, -1], tf.int64)], 1), values)
