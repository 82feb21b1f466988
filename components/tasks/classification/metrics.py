"""Metrics of classifiers: accuracy, F1 by label, ROC AUC and calibration error."""

from collections.abc import Sequence

import numpy as np

from seq2serve.components.tasks.bootstrap import Metrics, SufficientStatistics
from seq2serve.components.tasks.implementation import Measurement, ResultTable

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
    counts = _statistics(right, predicted, len(names))
    areas = [roc_auc(scores[:, i], right == i) for i in range(len(names)) if 0 < (right == i).sum() < len(right)]
    bins = _confidence_bins(scores.max(1), predicted == right)
    error = sum(count * abs(confidence - accuracy) for count, confidence, accuracy in bins) / len(right)
    values = {**counts.total(), "roc_auc": 100 * float(np.mean(areas) if areas else 0.5), "ece": 100 * error}
    signature = {"ece": f"expected calibration error, {NUM_BINS} bins of equal width (Guo et al. 2017)"}
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
    return _statistics(right_ids, predicted_ids, len(names))


def statistics_of(confusion: np.ndarray) -> SufficientStatistics:
    """Returns the statistics of the rows that a confusion matrix counts.

    Args:
        confusion: right labels down, predicted labels across, int [labels, labels].
    """
    cells = np.argwhere(confusion)
    right, predicted = np.repeat(cells, confusion[tuple(cells.T)], axis=0).T
    return _statistics(right, predicted, len(confusion))


def _names(labels: Sequence[str], references: Sequence[str]) -> list[str]:
    return [*labels, *sorted(set(references) - set(labels))]


def _statistics(right: np.ndarray, predicted: np.ndarray, num_labels: int) -> SufficientStatistics:
    def metrics(columns: np.ndarray, weights: np.ndarray) -> Metrics:
        right, predicted = columns.T
        hits = weights * (right == predicted)
        # Counted by label, because the size of a confusion matrix is the square of the number of labels.
        hit_counts, predicted_counts, right_counts = (
            np.bincount(ids, values, num_labels)
            for ids, values in ((right, hits), (predicted, weights), (right, weights))
        )
        _, _, f1 = _by_label(hit_counts, predicted_counts, right_counts)
        # A label that is missing from this resample would otherwise count as one that is never predicted correctly.
        occurs = predicted_counts + right_counts > 0
        return {"accuracy": 100 * float(hits.sum() / weights.sum()), "macro_f1": 100 * float(f1[occurs].mean())}

    return SufficientStatistics(np.stack([right, predicted], axis=1), metrics)


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
