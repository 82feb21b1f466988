"""How the next token is chosen: beam search (greedy is a beam of one) and sampling.

Comes in: logits [B * K, V] of K hypotheses a row. Goes out: the hypotheses one token longer.
Read next: decoding.py, whose loop calls `advance` after each step of the decoder.

K beams, N hypotheses returned, C positions there is room for; C grows while decoding.
"""

import dataclasses
from typing import NamedTuple

import tensorflow as tf

NEVER = -1e9  # a log probability no hypothesis has; finite, so that differences stay numbers


class Hypotheses(NamedTuple):
    """What has been written, and the best that is complete.

    Args:
        ids: int32 [B, K, C], tokens of the open hypotheses.
        slots: int32 [B, K, C]: which of the K places of the cache holds each position of a hypothesis. Caches stay
            where they are when beams change places; the attention mask follows these numbers instead.
        log_probs: float32 [B, K], sums over the tokens.
        best_ids: int32 [B, N, C], complete hypotheses, best first, without end marker.
        best_lengths: int32 [B, N], tokens without the end marker.
        best_scores: float32 [B, N], log probability over length penalty; NEVER where there is no hypothesis yet.
        best_log_probs: float32 [B, N].
        done: bool [B].
    """

    ids: tf.Tensor
    slots: tf.Tensor
    log_probs: tf.Tensor
    best_ids: tf.Tensor
    best_lengths: tf.Tensor
    best_scores: tf.Tensor
    best_log_probs: tf.Tensor
    done: tf.Tensor


def begin(batch: tf.Tensor, beams: int, n_best: int, room: int) -> Hypotheses:
    """Makes empty hypotheses: only the first beam may be extended, for all are still alike."""
    first = tf.constant([[0.0] + [NEVER] * (beams - 1)])
    return Hypotheses(
        ids=tf.zeros([batch, beams, room], tf.int32),
        slots=tf.zeros([batch, beams, room], tf.int32),
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
    """Computes log sum exp over the last axis, given its maximum [..., 1]; one pass fewer than TensorFlow's own."""
    return highest + tf.math.log(tf.reduce_sum(tf.exp(logits - highest), -1, keepdims=True))


@dataclasses.dataclass(frozen=True)
class BeamSearch:
    """Beam search with length penalty and n-best.

    At each step the 2K best extensions are looked at. Those of the first K that end are complete; the K best that do
    not end stay open. A row is done when it has N complete hypotheses and its best open one, penalised at its present
    length, is worse than the worst of those: without penalty nothing better can follow; with one this is the usual
    heuristic, for a longer hypothesis is divided by more.

    Args:
        beams: K; 1 is greedy search.
        n_best: N, at most K.
        alpha: of the length penalty, 0 for none.
        eos_id: the end marker.
    Raises:
        ValueError: N exceeds K.
    """

    beams: int = 4
    n_best: int = 1
    alpha: float = 0.6
    eos_id: int = 3

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
        h, k = hypotheses, self.beams
        log_probs, parents, tokens = self._candidates(h.log_probs, limits.mask_end(logits, step, k, self.eos_id))
        last = (step + 1 >= limits.maximum)[:, tf.newaxis]
        ends = (tokens == self.eos_id) | last
        here = tf.range(tf.shape(h.ids)[2]) == step
        best = self._complete(h, log_probs, parents, tokens, ends, step, here)
        if k > 1:
            open_log_probs, order = tf.math.top_k(tf.where(tokens == self.eos_id, NEVER, log_probs), k)
            parents = tf.gather(parents, order, batch_dims=1)
            tokens = tf.gather(tokens, order, batch_dims=1)
            ids = tf.where(here, tokens[..., tf.newaxis], tf.gather(h.ids, parents, batch_dims=1))
            slots = tf.where(here, parents[..., tf.newaxis], tf.gather(h.slots, parents, batch_dims=1))
        else:
            open_log_probs, slots = log_probs, h.slots
            ids = tf.where(here, tokens[..., tf.newaxis], h.ids)
        bound = open_log_probs[:, 0] / length_penalty(step + 1, self.alpha)
        enough = best.best_scores[:, -1] >= bound if k > 1 else ends[:, 0]
        done = h.done | last[:, 0] | enough
        return best._replace(ids=ids, slots=slots, log_probs=open_log_probs, done=done)

    def _candidates(self, log_probs: tf.Tensor, logits: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns the best extensions, best first: log probability, parent, token, each [B, 2K] ([B, 1] if K is 1).

        The best of all K x V extensions are among the best of each beam, and the order within a beam is that of its
        logits: only the few that are kept need the normaliser.
        """
        k = self.beams
        kept = 2 * k if k > 1 else 1
        top, tokens = tf.math.top_k(logits, kept)
        top -= log_sum_exp(logits, top[:, :1])
        if k == 1:
            return log_probs + top, tf.zeros_like(tokens), tokens
        scores = tf.reshape(tf.reshape(top, [-1, k, kept]) + log_probs[..., tf.newaxis], [-1, k * kept])
        best, index = tf.math.top_k(scores, kept)
        tokens = tf.gather(tf.reshape(tokens, [-1, k * kept]), index, batch_dims=1)
        return best, index // kept, tokens

    def _complete(self, h, log_probs, parents, tokens, ends, step, here) -> Hypotheses:
        """Merges those of the first K candidates that end into the complete hypotheses."""
        k, n = self.beams, self.n_best
        log_probs, parents, tokens = log_probs[:, :k], parents[:, :k], tokens[:, :k]
        counts = ends[:, :k] & ~h.done[:, tf.newaxis] & (log_probs > NEVER / 2)
        scores = tf.where(counts, log_probs / length_penalty(step + 1, self.alpha), NEVER)
        ids = tf.gather(h.ids, parents, batch_dims=1) if k > 1 else h.ids
        ids = tf.where(here, tf.where(tokens == self.eos_id, 0, tokens)[..., tf.newaxis], ids)
        lengths = step + tf.cast(tokens != self.eos_id, tf.int32)
        best_scores, index = tf.math.top_k(tf.concat([h.best_scores, scores], 1), n)

        def pick(old, new):
            return tf.gather(tf.concat([old, new], 1), index, batch_dims=1)

        return h._replace(
            best_ids=pick(h.best_ids, ids),
            best_lengths=pick(h.best_lengths, lengths),
            best_scores=best_scores,
            best_log_probs=pick(h.best_log_probs, log_probs),
        )


class Limits(NamedTuple):
    """Least and most tokens a row may have, end marker not counted: int32 [B] each."""

    minimum: tf.Tensor
    maximum: tf.Tensor

    def mask_end(self, logits: tf.Tensor, step: tf.Tensor, beams: int, eos_id: int) -> tf.Tensor:
        """Makes the end marker impossible in rows that are still too short."""
        early = tf.repeat(step < self.minimum, beams)[:, tf.newaxis]
        return tf.where(early & (tf.range(tf.shape(logits)[1]) == eos_id), NEVER, logits)
