"""The baselines of classification: the majority label, a random label, and TF-IDF with logistic regression."""

import random
from collections import Counter
from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from seq2serve.components.base.progress import note
from seq2serve.components.tasks.data import Answers, Baseline, Row

SEED = 1  # of random labels, and of the rows for TF-IDF
MAX_ROWS = 200_000  # that TF-IDF is trained on: about a minute
MAX_WEIGHTS = 10_000_000  # words times labels; the optimizer keeps some 20 copies of them
# With scikit-learn's default, C=1, the baseline of the demo is two points worse. Baselines should be strong.
INVERSE_REGULARISATION = 4.0


def baselines(train: Sequence[Row], rows: Sequence[Row]) -> dict[str, Baseline]:
    """Returns the baselines by name.

    No constant or random answer has a higher accuracy than the majority label. A label that is drawn with the
    frequencies of the train split has a higher macro F1: one over the number of labels.

    Args:
        train: the rows of the train split.
        rows: the rows to answer.
    """
    counts = Counter(row["label"] for row in train)
    labels = sorted(counts)
    shares = [counts[label] / counts.total() for label in labels]
    drawn = np.random.default_rng(SEED).choice(len(labels), len(rows), p=shares)
    probabilities = {"majority label": [shares] * len(rows), "random label": np.eye(len(labels))[drawn].tolist()}
    answers = {
        name: Baseline({"labels": [labels] * len(rows), "probabilities": values}, is_trivial=True)
        for name, values in probabilities.items()
    }
    if tf_idf := _tf_idf(train, rows):
        answers["TF-IDF, logistic regression"] = Baseline(tf_idf)
    return answers


def _tf_idf(train: Sequence[Row], rows: Sequence[Row]) -> Answers | None:
    """Returns None if there is nothing to learn: one label, or no words; in scikit-learn a word has two characters."""
    sample = random.Random(SEED).sample(train, min(MAX_ROWS, len(train)))
    texts, labels = ([row[column] for row in sample] for column in ("text", "label"))
    words = TfidfVectorizer(max_features=MAX_WEIGHTS // len(set(labels)))
    if len(set(labels)) < 2 or not any(map(words.build_analyzer(), texts)):
        return None
    if len(sample) < len(train):
        note(f"Evaluator: TF-IDF is trained on {len(sample):,} of {len(train):,} rows")
    model = make_pipeline(words, LogisticRegression(C=INVERSE_REGULARISATION, max_iter=1000))
    model.fit(texts, labels)
    probabilities = model.predict_proba([row["text"] for row in rows]).tolist()
    return {"labels": [model.classes_.tolist()] * len(rows), "probabilities": probabilities}
