"""The measurement of classifiers: metrics, F1 by label, confusion matrix and calibration."""

from collections.abc import Sequence

import numpy as np

from seq2serve.components.tasks.bootstrap import SufficientStatistics
from seq2serve.components.tasks.classification.metrics import ACCURACY, ECE, MACRO_F1, ROC_AUC
from seq2serve.components.tasks.measurement import Measurement, ResultTable

NUM_BINS = 10  # of confidence, of equal width


def measure(labels: Sequence[str], probabilities: Sequence[Sequence[float]], references: Sequence[str]) -> Measurement:
    """Measures a classifier.

    Args:
        labels: label of each id.
        probabilities: [rows, labels].
        references: the right label of each row; one that is not in `labels` is never predicted.
    Returns:
        accuracy, macro_f1 (over the labels that occur or are predicted, as in scikit-learn), roc_auc (one label against
        the rest, averaged over the labels that occur, unless only one does) and ece, in percent. The tables show the
        metrics by label, the confusion matrix and the calibration. The quality of an answer is the probability of the
        right label.
    """
    names = _names(labels, references)
    scores = np.zeros((len(references), len(names)))
    scores[:, : len(labels)] = probabilities
    right = np.array([names.index(label) for label in references])
    predicted = scores.argmax(1)
    counts = _statistics(right, predicted)
    areas = [roc_auc(scores[:, i], right == i) for i in range(len(names)) if 0 < (right == i).sum() < len(right)]
    bins = _confidence_bins(scores.max(1), predicted == right)
    error = sum(count * abs(confidence - accuracy) for count, confidence, accuracy in bins) / len(right)
    values = {
        **counts.total(),
        ROC_AUC.name: 100 * float(np.mean(areas) if areas else 0.5),
        ECE.name: 100 * error,
    }
    signature = {ECE.name: f"expected calibration error, {NUM_BINS} bins of equal width (Guo et al. 2017)"}
    quality = 100 * scores[np.arange(len(right)), right]
    tables = _tables(names, right, predicted, bins)
    is_perfect = bool((predicted == right).all())
    return Measurement(values, counts, quality, "probability of the right label, %", is_perfect, signature, tables)


def _tables(
    names: list[str], right: np.ndarray, predicted: np.ndarray, bins: Sequence[tuple[int, float, float]]
) -> tuple[ResultTable, ...]:
    confusion = np.zeros((len(names), len(names)), int)
    np.add.at(confusion, (right, predicted), 1)
    precision, recall, f1 = _by_label(confusion.diagonal(), confusion.sum(0), confusion.sum(1))
    by_label = zip(names, precision, recall, f1, strict=True)
    return (
        ResultTable(
            "By label", ("label", "precision", "recall", "F1"), tuple((n, *map(_percent, v)) for n, *v in by_label)
        ),
        ResultTable(
            "Confusion matrix: right label (down), predicted label (across)",
            ("", *names),
            tuple((name, *map(str, row)) for name, row in zip(names, confusion.tolist(), strict=True)),
            is_matrix=True,
        ),
        ResultTable(
            "Calibration: accuracy by confidence",
            ("rows", "mean confidence", "accuracy"),
            tuple((str(count), _percent(confidence), _percent(accuracy)) for count, confidence, accuracy in bins),
        ),
    )


def statistics(predicted: Sequence[str], references: Sequence[str]) -> SufficientStatistics:
    """Returns the statistics of answers of which only the label is known.

    Args:
        predicted: the predicted label of each row.
        references: the right label of each row.
    Returns:
        The SufficientStatistics of accuracy and of macro_f1 over the labels that occur.
    """
    names = _names(sorted(set(predicted)), references)
    right_ids, predicted_ids = (np.array([names.index(name) for name in labels]) for labels in (references, predicted))
    return _statistics(right_ids, predicted_ids)


def statistics_of(confusion: np.ndarray) -> SufficientStatistics:
    """Returns the statistics of the rows that a confusion matrix counts.

    Args:
        confusion: right labels down, predicted labels across, int [labels, labels].
    """
    cells = np.argwhere(confusion)
    right, predicted = np.repeat(cells, confusion[tuple(cells.T)], axis=0).T
    return _statistics(right, predicted)


def _names(labels: Sequence[str], references: Sequence[str]) -> list[str]:
    return [*labels, *sorted(set(references) - set(labels))]


def _statistics(right: np.ndarray, predicted: np.ndarray) -> SufficientStatistics:
    return SufficientStatistics(np.stack([right, predicted], axis=1), (ACCURACY, MACRO_F1))


def _by_label(hits: np.ndarray, predicted: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns precision, recall and F1 of every label, from its counts."""
    precision, recall = _ratio(hits, predicted), _ratio(hits, right)
    return precision, recall, _ratio(2 * precision * recall, precision + recall)


def roc_auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Computes the area under the ROC curve, in the form of Mann and Whitney.

    It is the probability that a positive row has a higher score than a negative one; ties count half.

    Args:
        scores: float [rows].
        positive: bool [rows], with at least one True and one False.
    Returns:
        A number from 0 to 1.
    """
    _, groups, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[groups]  # equal scores share their mean rank
    num_positive = positive.sum()
    wins = ranks[positive].sum() - num_positive * (num_positive + 1) / 2
    return float(wins / (num_positive * (len(scores) - num_positive)))


def _confidence_bins(confidence: np.ndarray, is_right: np.ndarray) -> list[tuple[int, float, float]]:
    """Returns (rows, mean confidence, accuracy) of every bin that has rows."""
    bins = np.minimum((confidence * NUM_BINS).astype(int), NUM_BINS - 1)
    members = (bins == number for number in np.unique(bins))
    return [(int(rows.sum()), float(confidence[rows].mean()), float(is_right[rows].mean())) for rows in members]


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return numerator / np.where(denominator == 0, 1, denominator)


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"
