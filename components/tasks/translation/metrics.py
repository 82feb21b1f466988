"""The metrics of translation: BLEU and chrF, computed by sacrebleu from n-gram counts, so that resampling is cheap."""

import functools
from typing import TYPE_CHECKING, Any

from seq2serve.components.tasks.metric import Metric

if TYPE_CHECKING:
    import numpy as np

# Columns of the statistics.
BLEU_COUNTS = slice(0, 10)  # lengths of answer and reference; matches of each order; n-grams of each order
CHRF_COUNTS = slice(10, 28)  # for each order: n-grams of the answer, of the reference, matches


def bleu(columns: "np.ndarray", weights: "np.ndarray") -> float:
    """Returns corpus BLEU (Papineni et al. 2002), 0 to 100."""
    return _score(0, weights @ columns[:, BLEU_COUNTS])


def chrf(columns: "np.ndarray", weights: "np.ndarray") -> float:
    """Returns chrF (Popovic 2015), 0 to 100."""
    return _score(1, weights @ columns[:, CHRF_COUNTS])


def _score(index: int, sums: "np.ndarray") -> float:
    # sacrebleu's own bootstrap takes the same step, but only for all sentences; so its private method is used.
    return _scorers()[index]._compute_score_from_stats(sums.tolist()).score


@functools.cache
def _scorers() -> tuple[Any, ...]:
    """Returns sacrebleu's metrics; tokenizer and case matter only when n-grams are counted."""
    from sacrebleu.metrics import BLEU, CHRF  # not above: see Metric

    return BLEU(), CHRF()


BLEU = Metric("bleu", "BLEU points", bleu, best=100)
CHRF = Metric("chrf", "chrF points", chrf, best=100)
