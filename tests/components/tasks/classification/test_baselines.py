"""Baselines of classification: the trivial ones always, TF-IDF where there is something to learn."""

import numpy as np
import pytest

from seq2serve.components.tasks.classification import baselines as module
from seq2serve.components.tasks.classification.baselines import baselines

TF_IDF = "TF-IDF, logistic regression"


def rows_of(pairs):
    return [{"text": text, "label": label} for text, label in pairs]


@pytest.mark.parametrize(
    "pairs",
    [[("日 好", "日"), ("月 好", "月")] * 3, [("good day", "good"), ("fine day", "good")] * 3],
    ids=["a word has two characters", "a single label"],
)
def test_without_words_or_labels_to_learn_there_is_no_tf_idf(pairs):
    rows = rows_of(pairs)
    assert list(baselines(rows, rows)) == ["majority label", "random label"]


def test_tf_idf_learns_words_and_ignores_labels_that_it_has_not_seen():
    train = rows_of([("a warm day", "good"), ("a cold day", "bad")] * 5)
    test = rows_of([("warm weather", "good"), ("cold weather", "bad"), ("cold", "other")])
    answers = baselines(train, test)[TF_IDF].answers
    predicted = [answers["labels"][0][int(np.argmax(values))] for values in answers["probabilities"]]
    assert predicted == ["good", "bad", "bad"]


def test_random_labels_have_the_frequencies_of_the_train_split():
    train = rows_of([("x", "a")] * 90 + [("x", "b")] * 10)
    answers = baselines(train, train * 20)["random label"].answers
    assert np.mean(answers["probabilities"], axis=0) == pytest.approx([0.9, 0.1], abs=0.03)


def test_many_labels_limit_the_number_of_words(monkeypatch):
    """The optimizer's memory is proportional to words times labels."""
    train = rows_of([("warm warm sun", "good"), ("cold cold rain", "bad")] * 5)
    test = rows_of([("sun", "good"), ("rain", "bad")])
    bad, good = baselines(train, test)[TF_IDF].answers["probabilities"][0]
    assert good > bad
    monkeypatch.setattr(module, "MAX_WEIGHTS", 4)  # two words: the most frequent ones
    bad, good = baselines(train, test)[TF_IDF].answers["probabilities"][0]
    assert good == pytest.approx(bad)


def test_tf_idf_says_on_how_many_of_very_many_rows_it_is_trained(monkeypatch, capfd):
    monkeypatch.setattr(module, "MAX_ROWS", 8)
    train = rows_of([("warm sun", "good"), ("cold rain", "bad"), ("warm sun", "good")] * 4)
    assert TF_IDF in baselines(train, train)
    assert "TF-IDF is trained on 8 of 12 rows" in capfd.readouterr().err
