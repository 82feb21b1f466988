"""The measurement of translations: sacrebleu's n-gram counts of every sentence."""

from collections.abc import Sequence

import numpy as np
import sacrebleu.metrics
from sacrebleu.metrics.base import Metric

from seq2serve.components.tasks.bootstrap import SufficientStatistics
from seq2serve.components.tasks.measurement import Measurement
from seq2serve.components.tasks.translation.bleu import make_bleu
from seq2serve.components.tasks.translation.metrics import BLEU, CHRF


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
    quality = [counts.take(np.array([i])).score(CHRF) for i in range(len(counts))]
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
    # sacrebleu's own bootstrap takes the same step, but only for all sentences; so its private method is used.
    counts = [
        np.array(metric._extract_corpus_statistics(translations, [references]), float) for metric in metrics.values()
    ]
    return SufficientStatistics(np.concatenate(counts, axis=1), (BLEU, CHRF))


def _comparable(text: str, lowercase: bool) -> str:
    """Returns a text without the differences that the metrics ignore."""
    return " ".join((text.lower() if lowercase else text).split())


def _metrics(references: Sequence[str], lowercase: bool) -> dict[str, Metric]:
    return {BLEU.name: make_bleu(references, lowercase), CHRF.name: sacrebleu.metrics.CHRF(lowercase=lowercase)}
