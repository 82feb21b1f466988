"""The metrics of classification: accuracy, macro F1, ROC AUC and calibration error, in percent."""

from typing import TYPE_CHECKING

from seq2serve.components.tasks.metric import Metric

if TYPE_CHECKING:
    import numpy as np


def accuracy(columns: "np.ndarray", weights: "np.ndarray") -> float:
    """Returns the share of rows with the right label; the columns are the ids of the right and the predicted label."""
    right, predicted = columns.T
    return 100 * float((weights * (right == predicted)).sum() / weights.sum())


def macro_f1(columns: "np.ndarray", weights: "np.ndarray") -> float:
    """Returns the mean F1 of the labels that occur or are predicted, as scikit-learn does; for columns see `accuracy`.

    A label that is missing from a resample would otherwise count as one that is never predicted correctly.
    """
    import numpy as np  # not above: see Metric

    right, predicted = columns.T
    # Counted by label, because the size of a confusion matrix is the square of the number of labels.
    size = int(columns.max()) + 1
    hits = np.bincount(right, weights * (right == predicted), size)
    counts = np.bincount(right, weights, size) + np.bincount(predicted, weights, size)
    return 100 * float((2 * hits[counts > 0] / counts[counts > 0]).mean())


ACCURACY = Metric("accuracy", "%", accuracy, best=100)
MACRO_F1 = Metric("macro_f1", "%", macro_f1, best=100)
ROC_AUC = Metric("roc_auc", "%", best=100)
ECE = Metric("ece", "%", higher_is_better=False, best=0)
