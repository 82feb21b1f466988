"""How good translations are: BLEU and chrF, by sacrebleu, from counts of n-grams that are taken once.

Comes in: translations and their references. Goes out: a Measurement, or its Tally alone.
Read next: task_translation.py, which asks; bootstrap.py, which weighs the sentences anew a thousand times.
"""

from collections.abc import Sequence

import numpy as np
from sacrebleu.metrics import CHRF
from sacrebleu.metrics.base import Metric

from components.bootstrap import Metrics, Tally
from components.task import Measurement
from models.bleu import make_bleu


def measure(translations: Sequence[str], references: Sequence[str]) -> Measurement:
    """Computes BLEU (Papineni et al. 2002) and chrF (Popovic 2015) as sacrebleu does (Post 2018).

    Args:
        translations: one a sentence.
        references: as many.
    Returns:
        bleu (of characters where the references have no spaces) and chrf of all sentences. The quality of each is its
        chrF, for most sentences have no four words in common with their reference.
    """
    counters = _counters(references)
    counted = tally(translations, references, counters)
    chrf, width = counters["chrf"], 3 * CHRF.CHAR_ORDER
    quality = [chrf._compute_score_from_stats(row).score for row in counted.columns[:, -width:].tolist()]
    signatures = {name: str(counter.get_signature()) for name, counter in counters.items()}
    return Measurement(counted.total(), counted, np.array(quality), "chrF of the sentence", signatures)


def tally(translations: Sequence[str], references: Sequence[str], counters: dict[str, Metric] | None = None) -> Tally:
    """Counts n-grams, sentence by sentence.

    Args:
        translations: one a sentence.
        references: as many.
        counters: metric -> what counts for it; afterwards it knows its signature.
    """
    counters = counters or _counters(references)
    # sacrebleu's own bootstrap takes the same two steps, but of all sentences or none; hence its inner methods.
    counts = [
        np.array(counter._extract_corpus_statistics(translations, [references]), float) for counter in counters.values()
    ]
    ends = np.cumsum([columns.shape[1] for columns in counts])[:-1]

    def metrics(columns: np.ndarray, weights: np.ndarray) -> Metrics:
        sums = np.split(weights @ columns, ends)
        return {
            name: counter._compute_score_from_stats(of_metric.tolist()).score
            for (name, counter), of_metric in zip(counters.items(), sums, strict=True)
        }

    return Tally(np.concatenate(counts, axis=1), metrics)


def _counters(references: Sequence[str]) -> dict[str, Metric]:
    return {"bleu": make_bleu(references), "chrf": CHRF()}
