"""Sampling: draws the next token with a temperature, top-k, top-p and seed of each row.

It replaces beam_search.py in the loop of loop.py, which calls `advance` after each step of the decoder.
"""

import dataclasses
import math
from typing import NamedTuple

import tensorflow as tf

from seq2serve.models.decoding.beam_search import Hypotheses, LengthLimits, append_tokens
from seq2serve.models.decoding.tuning import NEG_INF, log_sum_exp

_MIN_TEMPERATURE = 1e-6  # a lower temperature, or NaN, counts as 0


class SamplingOptions(NamedTuple):
    """The options of each row; a Sampler takes them instead of `LengthLimits`.

    Args:
        lengths: minimum and maximum number of tokens.
        temperature: float32 [B]; divides the logits. 0 takes the most likely token.
        top_k: int32 [B]; sample from the k most likely tokens only (Fan et al. 2018). 0 samples from all tokens.
        top_p: float32 [B]; sample from the fewest tokens whose probabilities reach p (Holtzman et al. 2020). 1 samples
            from all tokens.
        random_numbers: float32 [B, T], one number in [0, 1) for each step; see `draw_random_numbers`.
        begins_word: bool [B], whether the first token must begin a word; see `Sampler.word_starts`.
    """

    lengths: LengthLimits
    temperature: tf.Tensor
    top_k: tf.Tensor
    top_p: tf.Tensor
    random_numbers: tf.Tensor
    begins_word: tf.Tensor


def draw_random_numbers(seeds: tf.Tensor, steps: tf.Tensor) -> tf.Tensor:
    """Draws all random numbers in advance, so that a row's text depends on its own seed and not on its batch.

    Args:
        seeds: int32 [B].
        steps: int32 scalar, the maximum number of tokens of any row.
    Returns:
        float32 [B, steps], uniform in [0, 1). For a given seed, the first numbers do not depend on `steps`.
    """
    numbers = tf.TensorSpec([None], tf.float32)
    padded = tf.concat([seeds, [0]], 0)  # one extra row: the batch may be empty, which `map_fn` does not support
    drawn = tf.map_fn(lambda seed: tf.random.stateless_uniform([steps], [seed, 0]), padded, fn_output_signature=numbers)
    return drawn[:-1]


@dataclasses.dataclass(frozen=True)
class Sampler:
    """Samples one token per step; has the interface of a BeamSearch with one hypothesis.

    Args:
        eos_id: the end marker.
        word_starts: bool [tokens], whether a token begins a word; None if no row of any batch has `begins_word`.
    """

    eos_id: int = 3
    word_starts: tf.Tensor | None = None
    beams: int = 1
    n_best: int = 1

    def advance(
        self, hypotheses: Hypotheses, logits: tf.Tensor, step: tf.Tensor, options: SamplingOptions
    ) -> Hypotheses:
        """Extends every hypothesis by one token.

        Args:
            hypotheses: before the step.
            logits: float32 [B, V].
            step: int32 scalar, number of tokens in the hypotheses.
            options: options of each row.
        Returns:
            Hypotheses after the step. Log probabilities are those of the model, before temperature, top-k and top-p.
        """
        logits = options.lengths.mask_end(logits, step, 1, self.eos_id)
        if self.word_starts is not None:
            size = tf.size(self.word_starts)
            can_begin = self.word_starts | (tf.range(size) == self.eos_id)  # or nothing follows
            can_begin = tf.pad(can_begin, [[0, tf.shape(logits)[1] - size]])  # logits have a rounded size
            is_free = ~options.begins_word[:, tf.newaxis] | (step > 0)
            logits = tf.where(is_free | can_begin, logits, NEG_INF)
        tokens = sample_tokens(logits, options, options.random_numbers[:, step])[:, tf.newaxis]  # [B, 1]
        normalizer = log_sum_exp(logits, tf.reduce_max(logits, 1, keepdims=True))
        log_probs = tf.gather(logits, tokens, batch_dims=1) - normalizer
        is_last = (step + 1 >= options.lengths.maximum)[:, tf.newaxis]
        return append_tokens(hypotheses, tokens, log_probs, step, is_last, self.eos_id)


def sample_tokens(logits: tf.Tensor, options: SamplingOptions, random_numbers: tf.Tensor) -> tf.Tensor:
    """Samples one token per row: the first allowed one whose cumulative probability exceeds the row's random number.

    Args:
        logits: float32 [B, V]; NEG_INF for a token that must not be sampled under any options.
        options: options of each row.
        random_numbers: float32 [B], uniform in [0, 1).
    Returns:
        int32 [B].
    """
    size = tf.shape(logits)[1]
    is_greedy = ~(options.temperature >= _MIN_TEMPERATURE)  # also true for NaN
    # The maximum becomes 0, so that no logit overflows at a low temperature.
    shifted = logits - tf.reduce_max(logits, 1, keepdims=True)
    scaled = shifted / tf.where(is_greedy, 1.0, options.temperature)[:, tf.newaxis]
    # A high temperature would bring the logits of impossible tokens close to the rest.
    values, tokens = tf.math.top_k(tf.where(logits > NEG_INF / 2, scaled, -math.inf), size)  # [B, V], sorted
    probabilities = tf.nn.softmax(values)
    k = tf.where(is_greedy, 1, tf.where(options.top_k > 0, options.top_k, size))[:, tf.newaxis]
    rank, before = tf.range(size), tf.cumsum(probabilities, axis=1, exclusive=True)
    in_nucleus = (before < options.top_p[:, tf.newaxis]) | (rank == 0)  # the most likely token, whatever top_p is
    allowed = (probabilities > 0) & (rank < k) & in_nucleus
    cumulative = tf.cumsum(tf.where(allowed, probabilities, 0.0), axis=1)
    # Rounding may make the number reach the sum; then the last allowed token is taken.
    last = tf.math.count_nonzero(allowed, 1, dtype=tf.int32) - 1
    threshold = (random_numbers * cumulative[:, -1])[:, tf.newaxis]  # [B, 1]
    index = tf.math.count_nonzero(cumulative <= threshold, 1, dtype=tf.int32)
    return tf.gather(tokens, tf.minimum(index, last), batch_dims=1)
