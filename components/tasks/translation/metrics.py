"""BLEU and chrF of translations, computed by sacrebleu from n-gram counts, so that resampling is cheap."""

from collections.abc import Sequence

import numpy as np
from sacrebleu.metrics import CHRF
from sacrebleu.metrics.base import Metric

from seq2serve.components.tasks.bootstrap import Metrics, SufficientStatistics
from seq2serve.components.tasks.implementation import Measurement
from seq2serve.components.tasks.translation.bleu import make_bleu


def measure(translations: Sequence[str], references: Sequence[str], lowercase: bool = False) -> Measurement:
    """Computes BLEU (Papineni et al. 2002) and chrF (Popovic 2015) as sacrebleu does (Post 2018).

    Args:
        translations: one per sentence.
        references: one per sentence.
        lowercase: whether to ignore case.
    Returns:
        bleu (of characters if the references have no spaces) and chrf of all sentences. The quality of a sentence is
        its chrF, because most sentences share no four-word sequence with their reference.
    """
    metrics = _metrics(references, lowercase)
    counts = _statistics(translations, references, metrics)
    chrf, width = metrics["chrf"], 3 * CHRF.CHAR_ORDER
    quality = [chrf._compute_score_from_stats(row).score for row in counts.columns[:, -width:].tolist()]
    signatures = {name: str(metric.get_signature()) for name, metric in metrics.items()}
    pairs = zip(translations, references, strict=True)
    is_perfect = all(_comparable(answer, lowercase) == _comparable(right, lowercase) for answer, right in pairs)
    return Measurement(counts.total(), counts, np.array(quality), "chrF of the sentence", is_perfect, signatures)


def statistics(translations: Sequence[str], references: Sequence[str], lowercase: bool = False) -> SufficientStatistics:
    """Counts the n-grams of BLEU and chrF, sentence by sentence; see `measure` for the arguments."""
    return _statistics(translations, references, _metrics(references, lowercase))


def _statistics(
    translations: Sequence[str], references: Sequence[str], metrics: dict[str, Metric]
) -> SufficientStatistics:
    """Counts n-grams for sacrebleu's metrics, whose signatures are complete afterwards."""
    # sacrebleu's own bootstrap takes the same two steps, but only for all sentences; so its private methods are used.
    counts = [
        np.array(metric._extract_corpus_statistics(translations, [references]), float) for metric in metrics.values()
    ]
    ends = np.cumsum([columns.shape[1] for columns in counts])[:-1]

    def scores(columns: np.ndarray, weights: np.ndarray) -> Metrics:
        sums = np.split(weights @ columns, ends)
        return {
            name: metric._compute_score_from_stats(metric_sums.tolist()).score
            for (name, metric), metric_sums in zip(metrics.items(), sums, strict=True)
        }

    return SufficientStatistics(np.concatenate(counts, axis=1), scores)


def _comparable(text: str, lowercase: bool) -> str:
    """Returns a text without the differences that the metrics ignore."""
    return " ".join((text.lower() if lowercase else text).split())


def _metrics(references: Sequence[str], lowercase: bool) -> dict[str, Metric]:
    return {"bleu": make_bleu(references, lowercase), "chrf": CHRF(lowercase=lowercase)}
