"""A search strategy of one's own is one class with the attributes and the method of `SearchStrategy`."""

import dataclasses

import numpy as np
import tensorflow as tf

from seq2serve.models.decoding.beam_search import Hypotheses, LengthLimits, SearchStrategy, append_tokens
from seq2serve.models.decoding.tuning import log_sum_exp

EOS = 3


@dataclasses.dataclass(frozen=True)
class SecondBest:
    """Begins with the second most likely token, and takes the most likely one after that."""

    beams: int = 1
    n_best: int = 1
    eos_id: int = EOS

    def advance(self, hypotheses: Hypotheses, logits: tf.Tensor, step: tf.Tensor, limits: LengthLimits) -> Hypotheses:
        logits = limits.mask_end(logits, step, self.beams, self.eos_id)
        values, tokens = tf.math.top_k(logits, 2)
        chosen, value = (tf.where(step == 0, best[:, 1:], best[:, :1]) for best in (tokens, values))
        is_last = (step + 1 >= limits.maximum)[:, tf.newaxis]
        return append_tokens(hypotheses, chosen, value - log_sum_exp(logits, values[:, :1]), step, is_last, self.eos_id)


def test_another_strategy_needs_one_class(noisy_reverser, decode, random_ids):
    search: SearchStrategy = SecondBest()
    source = random_ids([4, 2, 6], end=(EOS,))
    result = decode(noisy_reverser, source, search, maximum=9, minimum=9)
    for row in range(3):
        target = [2]
        for position, token in enumerate(result.ids[row, 0, :9].tolist()):
            logits = noisy_reverser({"source": source[row : row + 1], "target": np.array([target], np.int32)})[0, -1]
            order = np.argsort(np.where(np.arange(len(logits)) == EOS, -np.inf, logits))[::-1]
            assert token == order[int(position == 0)]
            target.append(token)
