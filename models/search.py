"""How the next token is chosen: beam search; greedy is a beam of one.

Comes in: logits [B * K, V] of K hypotheses a row. Goes out: the hypotheses one token longer.
Read next: sampling.py for chance; decoding.py, whose loop calls `advance` after each step of the decoder.

K beams, N hypotheses returned, C positions there is room for; C grows while decoding.
"""

import dataclasses
from typing import NamedTuple

import tensorflow as tf

from models.inference import GROUP, NEVER, put


class Hypotheses(NamedTuple):
    """What has been written, and the best that is complete.

    Args:
        tokens: int32 [B, K], the last token of each open hypothesis.
        parents: int32 [B, K]: which of the hypotheses of the step before each of them continues.
        ids: int32 [B, K, C], all their tokens.
        log_probs: float32 [B, K], sums over the tokens.
        best_ids: int32 [B, N, C], complete hypotheses, best first, without end marker.
        best_lengths: int32 [B, N], tokens without the end marker.
        best_scores: float32 [B, N], log probability over length penalty; NEVER where there is no hypothesis yet.
        best_log_probs: float32 [B, N].
        done: bool [B].
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


def begin(last: tf.Tensor, beams: int, n_best: int, room: int) -> Hypotheses:
    """Makes empty hypotheses after the token `last`, int32 [B], of each row.

    Only the first beam may be extended, for all are still alike.
    """
    batch, first = tf.shape(last)[0], tf.constant([[0.0] + [NEVER] * (beams - 1)])
    return Hypotheses(
        tokens=tf.repeat(last[:, tf.newaxis], beams, axis=1),
        parents=tf.zeros([batch, beams], tf.int32),
        ids=tf.zeros([batch, beams, room], tf.int32),
        log_probs=tf.repeat(first, batch, axis=0),
        best_ids=tf.zeros([batch, n_best, room], tf.int32),
        best_lengths=tf.zeros([batch, n_best], tf.int32),
        best_scores=tf.fill([batch, n_best], NEVER),
        best_log_probs=tf.fill([batch, n_best], NEVER),
        done=tf.zeros([batch], tf.bool),
    )


def length_penalty(length: tf.Tensor, alpha: float) -> tf.Tensor:
    """Computes lp(Y) = ((5 + |Y|) / 6) ** alpha (GNMT, Wu et al. 2016, equation 14); |Y| counts the end marker."""
    return tf.pow((5.0 + tf.cast(length, tf.float32)) / 6.0, alpha)


def log_sum_exp(logits: tf.Tensor, highest: tf.Tensor) -> tf.Tensor:
    """Computes log sum exp over the last axis, given its maximum [..., 1].

    The largest value of a softmax is 1 / sum exp(logits - highest): one fused operation instead of three, and its
    logarithm is always finite.
    """
    return highest - tf.math.log(tf.reduce_max(tf.nn.softmax(logits), -1, keepdims=True))


def top_k(logits: tf.Tensor, k: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Finds the k largest values of each row, in a fraction of the time of one tf.math.top_k.

    They are in the k groups of GROUP neighbours whose maxima are the largest: finding the maxima is the one pass over
    all values, and quick.

    Args:
        logits: float [N, V], V a multiple of GROUP.
        k: how many.
    Returns:
        The values, largest first, and their indices, int32; both [N, k].
    """
    groups = logits.shape[1] // GROUP
    if k == 1 or groups <= k:
        return tf.math.top_k(logits, k)
    _, chosen = tf.math.top_k(tf.reduce_max(tf.reshape(logits, [-1, groups, GROUP]), 2), k)
    row = tf.range(tf.shape(logits)[0])[:, tf.newaxis] * groups
    members = tf.gather(tf.reshape(logits, [-1, GROUP]), row + chosen)  # [N, k, GROUP]
    values, index = tf.math.top_k(tf.reshape(members, [-1, k * GROUP]), k)
    group = tf.gather(chosen, index // GROUP, batch_dims=1)
    return values, group * GROUP + index % GROUP


def lengthen(h: Hypotheses, tokens, gained, step, last, search) -> Hypotheses:
    """Makes the one hypothesis of each row a token longer. It is also the best, so it is complete as far as it goes.

    Args:
        h: before the step.
        tokens: int32 [B, 1].
        gained: float32 [B, 1], their log probabilities.
        step: int32 scalar, tokens that the hypotheses have.
        last: bool [B, 1], whether a row may have no more.
        search: has `eos_id` and `alpha`.
    Returns:
        Hypotheses after the step. Rows that are done stay as they are.
    """
    is_end, was_done = tokens == search.eos_id, h.done[:, tf.newaxis]
    log_probs = tf.where(was_done, h.log_probs, h.log_probs + gained)
    ids = put(h.ids, step, tf.where(was_done | is_end, 0, tokens)[..., tf.newaxis])
    return h._replace(
        tokens=tokens,
        ids=ids,
        log_probs=log_probs,
        best_ids=ids,
        best_lengths=h.best_lengths + tf.cast(~(was_done | is_end), tf.int32),
        best_scores=tf.where(was_done, h.best_scores, log_probs / length_penalty(step + 1, search.alpha)),
        best_log_probs=log_probs,
        done=h.done | (is_end | last)[:, 0],
    )


@dataclasses.dataclass(frozen=True)
class BeamSearch:
    """Beam search with length penalty and n-best.

    At each step the 2K best extensions are looked at. Those of the first K that end are complete; the K best that do
    not end stay open. A row is done when it has enough complete hypotheses and its best open one, were it to end for
    certain with the next token, would be worse than the worst of those: without penalty nothing better can follow; with
    one it seldom does, for a longer hypothesis is divided by more but has lost more as well.

    Args:
        beams: K; 1 is greedy search.
        n_best: N, at most K.
        alpha: of the length penalty, 0 for none.
        eos_id: the end marker.
        enough: complete hypotheses after which a row may be done, 1 to N; None for N.
    Raises:
        ValueError: N exceeds K.
    """

    beams: int = 4
    n_best: int = 1
    alpha: float = 0.6
    eos_id: int = 3
    enough: int | tf.Tensor | None = None

    def __post_init__(self):
        if not 1 <= self.n_best <= self.beams:
            raise ValueError(f"n_best ({self.n_best}) must be between 1 and the number of beams ({self.beams})")

    def advance(self, hypotheses: Hypotheses, logits: tf.Tensor, step: tf.Tensor, limits: "Limits") -> Hypotheses:
        """Makes every open hypothesis one token longer.

        Args:
            hypotheses: before the step.
            logits: float32 [B * K, V].
            step: int32 scalar, tokens that the open hypotheses have.
            limits: each row's lengths.
        Returns:
            Hypotheses after the step. Rows that are done stay as they are.
        """
        logits = limits.mask_end(logits, step, self.beams, self.eos_id)
        last = (step + 1 >= limits.maximum)[:, tf.newaxis]
        extend = self._extend_one if self.beams == 1 else self._extend
        return extend(hypotheses, logits, step, last)

    def _extend_one(self, h: Hypotheses, logits: tf.Tensor, step: tf.Tensor, last: tf.Tensor) -> Hypotheses:
        """Greedy search."""
        top, tokens = tf.math.top_k(logits, 1)
        return lengthen(h, tokens, top - log_sum_exp(logits, top), step, last, self)

    def _extend(self, h: Hypotheses, logits: tf.Tensor, step: tf.Tensor, last: tf.Tensor) -> Hypotheses:
        """Beam search with more than one beam."""
        k = self.beams
        log_probs, parents, tokens = self._candidates(h.log_probs, logits)
        ends = (tokens == self.eos_id) | last
        best = self._complete(h, log_probs, parents, tokens, ends, step)
        open_log_probs, order = tf.math.top_k(tf.where(tokens == self.eos_id, NEVER, log_probs), k)
        parents = tf.gather(parents, order, batch_dims=1)
        tokens = tf.gather(tokens, order, batch_dims=1)
        bound = open_log_probs[:, 0] / length_penalty(step + 2, self.alpha)  # with the end marker it still lacks
        enough = self.n_best if self.enough is None else self.enough
        return best._replace(
            tokens=tokens,
            parents=parents,
            ids=put(tf.gather(h.ids, parents, batch_dims=1), step, tokens[..., tf.newaxis]),
            log_probs=open_log_probs,
            done=h.done | last[:, 0] | (best.best_scores[:, enough - 1] >= bound),
        )

    def _candidates(self, log_probs: tf.Tensor, logits: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns the best extensions, best first: log probability, parent, token, each [B, 2K].

        The best of all K x V extensions are among the best of each beam, and the order within a beam is that of its
        logits: only the few that are kept need the normaliser.
        """
        k, kept = self.beams, 2 * self.beams
        top, tokens = top_k(logits, kept)
        top -= log_sum_exp(logits, top[:, :1])
        scores = tf.reshape(tf.reshape(top, [-1, k, kept]) + log_probs[..., tf.newaxis], [-1, k * kept])
        best, index = tf.math.top_k(scores, kept)
        tokens = tf.gather(tf.reshape(tokens, [-1, k * kept]), index, batch_dims=1)
        return best, index // kept, tokens

    def _complete(self, h: Hypotheses, log_probs, parents, tokens, ends, step) -> Hypotheses:
        """Merges those of the first K candidates that end into the complete hypotheses."""
        k, n = self.beams, self.n_best
        log_probs, parents, tokens = log_probs[:, :k], parents[:, :k], tokens[:, :k]
        counts = ends[:, :k] & ~h.done[:, tf.newaxis] & (log_probs > NEVER / 2)
        scores = tf.where(counts, log_probs / length_penalty(step + 1, self.alpha), NEVER)
        is_end = tokens == self.eos_id
        best_scores, index = tf.math.top_k(tf.concat([h.best_scores, scores], 1), n)

        def pick(old, new):
            return tf.gather(tf.concat([old, new], 1), index, batch_dims=1)

        # What comes from an old one keeps its place and gets no further token.
        is_old, candidate = index < n, tf.maximum(index - n, 0)
        origin = tf.where(is_old, index, tf.gather(parents, candidate, batch_dims=1) + n)
        ids = tf.gather(tf.concat([h.best_ids, h.ids], 1), origin, batch_dims=1)
        token = tf.gather(tf.where(is_end, 0, tokens), candidate, batch_dims=1)
        token = tf.where(is_old, 0, token)
        return h._replace(
            best_ids=put(ids, step, token[..., tf.newaxis]),
            best_lengths=pick(h.best_lengths, step + tf.cast(~is_end, tf.int32)),
            best_scores=best_scores,
            best_log_probs=pick(h.best_log_probs, log_probs),
        )


class Limits(NamedTuple):
    """Least and most tokens a row may have, end marker not counted: int32 [B] each."""

    minimum: tf.Tensor
    maximum: tf.Tensor

    def mask_end(self, logits: tf.Tensor, step: tf.Tensor, beams: int, eos_id: int) -> tf.Tensor:
        """Makes the end marker impossible in rows that are still too short; all other logits stay in place."""
        early = tf.repeat(step < self.minimum, beams)[:, tf.newaxis]
        end = logits[:, eos_id : eos_id + 1]
        return put(logits, eos_id, tf.where(early, NEVER, end))
