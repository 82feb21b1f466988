"""Classification metrics agree with scikit-learn, and with results by hand where scikit-learn has none."""

import numpy as np
import pytest
from sklearn import metrics

from seq2serve.components.tasks.bootstrap import intervals
from seq2serve.components.tasks.classification.measurement import measure, roc_auc, statistics

LABELS = ["a", "b", "c"]


@pytest.fixture
def answers():
    rng = np.random.default_rng(3)
    right = rng.choice(LABELS, 200, p=[0.5, 0.3, 0.2])
    logits = rng.normal(size=(200, 3)).round(1) + 1.5 * (right[:, None] == np.array(LABELS))
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True), right.tolist()


def test_metrics_agree_with_scikit_learn(answers):
    probabilities, right = answers
    predicted = [LABELS[i] for i in probabilities.argmax(1)]
    measured = measure(LABELS, probabilities.tolist(), right).metrics
    assert measured["accuracy"] == pytest.approx(100 * metrics.accuracy_score(right, predicted))
    assert measured["macro_f1"] == pytest.approx(100 * metrics.f1_score(right, predicted, average="macro"))
    areas = [metrics.roc_auc_score(np.array(right) == label, probabilities[:, i]) for i, label in enumerate(LABELS)]
    assert measured["roc_auc"] == pytest.approx(100 * np.mean(areas))


def test_macro_f1_ignores_labels_that_do_not_occur():
    """A resample may lack a rare label; for a perfect model the interval is still a point."""
    perfect = measure(LABELS, np.eye(3)[[0, 0, 1, 1]].tolist(), ["a", "a", "b", "b"])
    assert perfect.metrics["macro_f1"] == 100
    assert statistics(["a", "a", "b", "b"], ["a", "a", "b", "b"]).total()["macro_f1"] == 100
    rare = measure(LABELS, np.eye(3)[[0] * 20 + [1] * 20 + [2]].tolist(), ["a"] * 20 + ["b"] * 20 + ["c"])
    assert intervals(rare.statistics)["macro_f1"] == (100, 100)


def test_ties_count_half():
    assert roc_auc(np.array([0.2, 0.5, 0.5, 0.9]), np.array([False, True, False, True])) == pytest.approx(3.5 / 4)


def test_calibration_error_by_hand():
    """Of two rows at 0.9 one is right, of two at 0.6 both are: |0.9 - 0.5| / 2 + |0.6 - 1| / 2."""
    probabilities = [[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6]]
    measured = measure(["a", "b"], probabilities, ["a", "b", "a", "b"])
    assert measured.metrics["ece"] == pytest.approx(40)


def test_tables_show_metrics_by_label_and_the_confusion_matrix():
    probabilities = [[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]]
    by_label, confusion, _ = measure(["a", "b"], probabilities, ["a", "b", "b"]).tables
    assert by_label.rows == (("a", "50.0", "100.0", "66.7"), ("b", "100.0", "50.0", "66.7"))
    assert confusion.header == ("", "a", "b")
    assert confusion.rows == (("a", "1", "0"), ("b", "1", "1"))


def test_a_label_that_is_missing_in_training_is_never_predicted():
    measured = measure(["a"], [[1.0], [1.0]], ["a", "new"])
    assert measured.metrics["accuracy"] == 50
    assert measured.metrics["roc_auc"] == 50


def test_labels_alone_have_the_same_accuracy_and_f1(answers):
    probabilities, right = answers
    predicted = [LABELS[i] for i in probabilities.argmax(1)]
    measured = measure(LABELS, probabilities.tolist(), right)
    assert statistics(predicted, right).total() == pytest.approx(measured.statistics.total())
    assert measured.quality[:5] == pytest.approx([100 * probabilities[i][LABELS.index(right[i])] for i in range(5)])
