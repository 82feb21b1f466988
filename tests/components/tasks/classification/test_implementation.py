"""Baselines of classification."""

from seq2serve.components.tasks.classification.task import CLASSIFICATION


def test_texts_without_words_have_no_tf_idf_baseline():
    """In scikit-learn a word has at least two characters."""
    rows = [{"text": f"{mood} 好", "label": mood} for mood in "日月"] * 3
    assert list(CLASSIFICATION.implementation().baselines(lambda: rows, rows, dict)) == ["majority label"]
