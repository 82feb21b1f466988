"""How good a classifier is: right answers, by label, in rank and in confidence.

Comes in: a probability for every label and row, and the right labels. Goes out: a Measurement, in percent.
Read next: task_classification.py, which asks.
"""

from collections.abc import Sequence

import numpy as np

from components.task import Measurement, Table

NUM_BINS = 10  # of confidence, each as wide as the others


def measure(labels: Sequence[str], probabilities: Sequence[Sequence[float]], references: Sequence[str]) -> Measurement:
    """Measures a classifier.

    Args:
        labels: by id.
        probabilities: [rows, labels].
        references: the right label of each row; one that is not in `labels` is never guessed.
    Returns:
        accuracy, macro_f1, roc_auc (of every label against the rest, averaged over the labels that occur and are not
        alone) and ece, in percent; tables of each label, of what was taken for what, and of the confidence.
    """
    names = [*labels, *sorted(set(references) - set(labels))]
    scores = np.zeros((len(references), len(names)))
    scores[:, : len(labels)] = probabilities
    right = np.array([names.index(label) for label in references])
    guessed = scores.argmax(1)
    confusion = np.zeros((len(names), len(names)), int)
    np.add.at(confusion, (right, guessed), 1)
    precision, recall = (_ratio(confusion.diagonal(), confusion.sum(axis)) for axis in (0, 1))
    f1 = _ratio(2 * precision * recall, precision + recall)
    areas = [roc_auc(scores[:, i], right == i) for i in range(len(names)) if 0 < (right == i).sum() < len(right)]
    bins = _confidence_bins(scores.max(1), guessed == right)
    values = {
        "accuracy": float((guessed == right).mean()),
        "macro_f1": float(f1.mean()),
        "roc_auc": float(np.mean(areas)) if areas else 0.5,
        "ece": sum(count * abs(confidence - accuracy) for count, confidence, accuracy in bins) / len(right),
    }
    per_label = zip(names, precision, recall, f1, strict=True)
    tables = (
        Table("By label", ("label", "precision", "recall", "F1"), tuple((n, *map(_percent, v)) for n, *v in per_label)),
        Table(
            "Right label (down), answered (across)",
            ("", *names),
            tuple((name, *map(str, row)) for name, row in zip(names, confusion.tolist(), strict=True)),
        ),
        Table(
            "How sure it was, how often right",
            ("rows", "mean confidence", "accuracy"),
            tuple((str(count), _percent(confidence), _percent(accuracy)) for count, confidence, accuracy in bins),
        ),
    )
    signature = {"ece": f"expected calibration error, {NUM_BINS} bins of equal width (Guo et al. 2017)"}
    return Measurement({name: 100 * value for name, value in values.items()}, signature, tables)


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
