"""How the next token is drawn: temperature, top-k, top-p and seed, each row's own.

Comes in: logits [B, V]. Goes out: the one hypothesis of each row, one token longer.
Read next: decoding.py, whose loop calls `advance` after each step of the decoder; search.py for the best, not a chance.
"""

import dataclasses
import math
from typing import NamedTuple

import tensorflow as tf

from models.inference import NEVER
from models.search import Hypotheses, Limits, lengthen, log_sum_exp

_COLD = 1e-6  # below it a temperature counts as 0, and so does one that is no number


class SamplingOptions(NamedTuple):
    """What each row asks for, in the place of `Limits`.

    Args:
        lengths: least and most tokens.
        temperature: float32 [B]; the logits are divided by it, and 0 takes the most likely token.
        top_k: int32 [B]; only the k most likely tokens may be drawn (Fan et al. 2018), 0 for all.
        top_p: float32 [B]; only the fewest tokens whose probabilities reach p (Holtzman et al. 2020), 1 for all.
        draws: float32 [B, T], the random number in [0, 1) of each step; see `draws`.
    """

    lengths: Limits
    temperature: tf.Tensor
    top_k: tf.Tensor
    top_p: tf.Tensor
    draws: tf.Tensor


def draws(seeds: tf.Tensor, steps: tf.Tensor) -> tf.Tensor:
    """Draws every random number of every row beforehand: a row's text depends on its own seed, not on its batch mates.

    Args:
        seeds: int32 [B].
        steps: int32 scalar, the most tokens any row may have.
    Returns:
        float32 [B, steps], uniform in [0, 1); the first of them are the same for any number of steps.
    """
    numbers = tf.TensorSpec([None], tf.float32)
    # With a row that is none: `map_fn` over nothing is not defined, and a batch may be empty.
    rows = tf.concat([seeds, [0]], 0)
    drawn = tf.map_fn(lambda seed: tf.random.stateless_uniform([steps], [seed, 0]), rows, fn_output_signature=numbers)
    return drawn[:-1]


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Draws one token a step; stands where a BeamSearch may stand, with one hypothesis a row and no length penalty.

    Args:
        eos_id: the end marker.
    """

    eos_id: int = 3
    alpha: float = 0.0
    beams: int = 1
    n_best: int = 1

    def advance(
        self, hypotheses: Hypotheses, logits: tf.Tensor, step: tf.Tensor, options: SamplingOptions
    ) -> Hypotheses:
        """Makes every hypothesis one token longer.

        Args:
            hypotheses: before the step.
            logits: float32 [B, V].
            step: int32 scalar, tokens that the hypotheses have.
            options: of each row.
        Returns:
            Hypotheses after the step. Log probabilities are the model's own, whatever was made of them for the draw.
        """
        logits = options.lengths.mask_end(logits, step, 1, self.eos_id)
        tokens = draw(logits, options, options.draws[:, step])[:, tf.newaxis]
        gained = tf.gather(logits, tokens, batch_dims=1) - log_sum_exp(logits, tf.reduce_max(logits, 1, keepdims=True))
        last = (step + 1 >= options.lengths.maximum)[:, tf.newaxis]
        return lengthen(hypotheses, tokens, gained, step, last, self)


def draw(logits: tf.Tensor, options: SamplingOptions, numbers: tf.Tensor) -> tf.Tensor:
    """Draws a token a row: the one at which the cumulated probability of those allowed passes the row's number.

    Args:
        logits: float32 [B, V]; NEVER for a token that may not be drawn, whatever the options.
        options: of each row.
        numbers: float32 [B], uniform in [0, 1).
    Returns:
        int32 [B].
    """
    size = tf.shape(logits)[1]
    cold = ~(options.temperature >= _COLD)
    # The largest becomes 0, so that none of them overflows, however low the temperature.
    below = logits - tf.reduce_max(logits, 1, keepdims=True)
    scaled = below / tf.where(cold, 1.0, options.temperature)[:, tf.newaxis]
    # A temperature may be so high that what may not be drawn comes near the rest.
    values, tokens = tf.math.top_k(tf.where(logits > NEVER / 2, scaled, -math.inf), size)
    probabilities = tf.nn.softmax(values)
    most = tf.where(cold, 1, tf.where(options.top_k > 0, options.top_k, size))[:, tf.newaxis]
    # The most likely token stays allowed whatever top_p says.
    rank, before = tf.range(size), tf.cumsum(probabilities, axis=1, exclusive=True)
    allowed = (probabilities > 0) & (rank < most) & ((before < options.top_p[:, tf.newaxis]) | (rank == 0))
    up_to = tf.cumsum(tf.where(allowed, probabilities, 0.0), axis=1)
    # Rounding may let the number reach the sum: then it is the last one allowed.
    last = tf.math.count_nonzero(allowed, 1, dtype=tf.int32) - 1
    passed = tf.math.count_nonzero(up_to <= (numbers * up_to[:, -1])[:, tf.newaxis], 1, dtype=tf.int32)
    return tf.gather(tokens, tf.minimum(passed, last), batch_dims=1)
