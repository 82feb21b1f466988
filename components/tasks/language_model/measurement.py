"""The measurement of language models: metrics over the sums of all documents, so long documents weigh more."""

import math

import numpy as np

from seq2serve.components.tasks.bootstrap import SufficientStatistics
from seq2serve.components.tasks.data import Answers
from seq2serve.components.tasks.language_model.metrics import BITS_PER_CHARACTER, PERPLEXITY
from seq2serve.components.tasks.measurement import Measurement


def measure(answers: Answers, lowercase: bool = False) -> Measurement:
    """Measures the outputs of `score`, see `statistics`; `lowercase` tells whether the model reads lower case only."""
    counts = statistics(answers)
    bits, characters, _ = counts.columns.T
    signature = {
        BITS_PER_CHARACTER.name: f"of normalised{' lower-case' * lowercase} text, end of document included",
        PERPLEXITY.name: "per token: pieces for the model, characters for the baselines",
    }
    quality = bits / characters.clip(1)
    return Measurement(counts.total(), counts, quality, BITS_PER_CHARACTER.unit, signature=signature)


def statistics(answers: Answers) -> SufficientStatistics:
    """Returns bits, characters and tokens of each text.

    Args:
        answers: `log_probability` (natural logarithm), `characters` and `tokens`.
    """
    counts = [answers[name] for name in ("log_probability", "characters", "tokens")]
    columns = np.array(counts, float).T / [-math.log(2), 1, 1]
    return SufficientStatistics(columns, (BITS_PER_CHARACTER, PERPLEXITY))
