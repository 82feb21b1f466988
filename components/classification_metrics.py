"""How good a classifier is: right answers, by label, in rank and in confidence.

Comes in: a probability for every label and row, and the right labels. Goes out: a Measurement, in percent.
Read next: task_classification.py, which asks.
"""

from collections.abc import Sequence

import numpy as np

from components.bootstrap import Metrics, Tally
from components.task import Measurement, Table

NUM_BINS = 10  # of confidence, each as wide as the others


def measure(labels: Sequence[str], probabilities: Sequence[Sequence[float]], references: Sequence[str]) -> Measurement:
    """Measures a classifier.

    Args:
        labels: by id.
        probabilities: [rows, labels].
        references: the right label of each row; one that is not in `labels` is never guessed.
    Returns:
        accuracy, macro_f1 (over the labels that occur or were answered, as scikit-learn's), roc_auc (of every label
        against the rest, averaged over the labels that occur and are not alone) and ece, in percent; tables of each
        label, of what was taken for what, and of the confidence. The quality of an answer is the probability it gives
        to the right label.
    """
    names = _names(labels, references)
    scores = np.zeros((len(references), len(names)))
    scores[:, : len(labels)] = probabilities
    right = np.array([names.index(label) for label in references])
    guessed = scores.argmax(1)
    counted = _tally(right, guessed, len(names))
    confusion = np.zeros((len(names), len(names)), int)
    np.add.at(confusion, (right, guessed), 1)
    precision, recall, f1 = _by_label(confusion.diagonal(), confusion.sum(0), confusion.sum(1))
    areas = [roc_auc(scores[:, i], right == i) for i in range(len(names)) if 0 < (right == i).sum() < len(right)]
    bins = _confidence_bins(scores.max(1), guessed == right)
    error = sum(count * abs(confidence - accuracy) for count, confidence, accuracy in bins) / len(right)
    values = {**counted.total(), "roc_auc": 100 * float(np.mean(areas) if areas else 0.5), "ece": 100 * error}
    per_label = zip(names, precision, recall, f1, strict=True)
    tables = (
        Table("By label", ("label", "precision", "recall", "F1"), tuple((n, *map(_percent, v)) for n, *v in per_label)),
        Table(
            "Right label (down), answered (across)",
            ("", *names),
            tuple((name, *map(str, row)) for name, row in zip(names, confusion.tolist(), strict=True)),
            is_matrix=True,
        ),
        Table(
            "How sure it was, how often right",
            ("rows", "mean confidence", "accuracy"),
            tuple((str(count), _percent(confidence), _percent(accuracy)) for count, confidence, accuracy in bins),
        ),
    )
    signature = {"ece": f"expected calibration error, {NUM_BINS} bins of equal width (Guo et al. 2017)"}
    quality = 100 * scores[np.arange(len(right)), right]
    return Measurement(values, counted, quality, "probability of the right label, %", signature, tables)


def tally(guessed: Sequence[str], references: Sequence[str]) -> Tally:
    """Counts answers of which no more is known than the labels.

    Args:
        guessed: the label answered to each row.
        references: the right label of each row.
    Returns:
        A Tally of accuracy and macro_f1, of the labels that occur.
    """
    names = _names(sorted(set(guessed)), references)
    right, answered = (np.array([names.index(label) for label in labels]) for labels in (references, guessed))
    return _tally(right, answered, len(names))


def _names(labels: Sequence[str], references: Sequence[str]) -> list[str]:
    return [*labels, *sorted(set(references) - set(labels))]


def _tally(right: np.ndarray, guessed: np.ndarray, num_labels: int) -> Tally:
    def metrics(columns: np.ndarray, weights: np.ndarray) -> Metrics:
        right, guessed = columns.T
        hits = weights * (right == guessed)
        # Not from the confusion, whose size is the square of the number of labels.
        counts = [np.bincount(ids, of, num_labels) for ids, of in ((right, hits), (guessed, weights), (right, weights))]
        _, _, f1 = _by_label(*counts)
        # Of the labels there are, in this resample too: one that is missing would count as one that was never found.
        occurs = counts[1] + counts[2] > 0
        return {"accuracy": 100 * float(hits.sum() / weights.sum()), "macro_f1": 100 * float(f1[occurs].mean())}

    return Tally(np.stack([right, guessed], axis=1), metrics)


def _by_label(hits: np.ndarray, answered: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns precision, recall and F1 of every label."""
    precision, recall = _ratio(hits, answered), _ratio(hits, right)
    return precision, recall, _ratio(2 * precision * recall, precision + recall)


def roc_auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Computes how likely a positive row has a higher score than another; of two equal ones, half (Mann and Whitney).

    Args:
        scores: float [rows].
        positive: bool [rows], with both values in it.
    Returns:
        0 to 1.
    """
    _, groups, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[groups]  # of equal scores the mean rank
    num_positive = positive.sum()
    above = ranks[positive].sum() - num_positive * (num_positive + 1) / 2
    return float(above / (num_positive * (len(scores) - num_positive)))


def _confidence_bins(confidence: np.ndarray, right: np.ndarray) -> list[tuple[int, float, float]]:
    """Returns (rows, mean confidence, accuracy) of every bin that has rows."""
    bins = np.minimum((confidence * NUM_BINS).astype(int), NUM_BINS - 1)
    found = (bins == number for number in np.unique(bins))
    return [(int(rows.sum()), float(confidence[rows].mean()), float(right[rows].mean())) for rows in found]


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return numerator / np.where(denominator == 0, 1, denominator)


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"
