"""Classification: one of a few labels for a text.

Comes in: texts with a label each. Goes out: the Task of them, judged by accuracy and how well it knows what it knows.
Read next: task.py for what each part is; classification_metrics.py for the metrics.
"""

import importlib.util
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from components.task import Answers, Features, Measurement, Recipe, Row, Task, spread
from models.config import ModelConfig, TrainingConfig

if TYPE_CHECKING:
    from components.bootstrap import Tally

NO_PADDING = -1  # no label has this id: every row counts


def _make_model(config: ModelConfig, features: Features):
    from models.transformer import EncoderClassifier

    model = EncoderClassifier(config, features.vocab_size, len(features.label_counts))
    model.build()
    return model


def _make_loss(config: TrainingConfig, features: Features):
    from models.training import MaskedCrossEntropy, balanced_weights

    counts = list(features.label_counts.values())
    weights = balanced_weights(counts) if config.label_weights == "balanced" else ()
    return MaskedCrossEntropy(config.label_smoothing, NO_PADDING, weights)


def _make_batches(files: Sequence[str], recipe: Recipe, start: int, epochs: int | None):
    from models.dataset import class_batches

    config = recipe.training
    dropout = config.token_dropout if epochs is None else 0.0
    return class_batches(files, config.batch_tokens, config.seed, start, epochs, dropout)


def _make_evaluation(model, tokenizers, features: Features, recipe: Recipe, batches: Sequence[tuple], rows):
    from models.evaluation import ClassificationEvaluation
    from models.export_classification import ClassificationServer

    server = ClassificationServer(model, tokenizers["text"], list(features.label_counts), recipe.decoding)
    return ClassificationEvaluation(model, batches, server, spread(rows, recipe.training.eval_examples))


def _export(model, tokenizers, features: Features, recipe: Recipe, directory: str, samples: list[str]) -> None:
    from models.export import export
    from models.export_classification import ClassificationServer

    server = ClassificationServer(model, tokenizers["text"], list(features.label_counts), recipe.decoding)
    export(server, directory, samples)


def _measure(answers: Answers, rows: Sequence[Row]) -> Measurement:
    from components.classification_metrics import measure

    return measure(answers["labels"][0], answers["probabilities"], [row["label"] for row in rows])


def _tally(answers: Answers, rows: Sequence[Row]) -> "Tally":
    from components.classification_metrics import tally

    return tally(answers["label"], [row["label"] for row in rows])


def _baselines(train: Callable[[], list[Row]], rows: Sequence[Row]) -> dict[str, Answers]:
    """Answers with the shares of the labels, whatever the text; and, where scikit-learn is, by TF-IDF and a line."""
    rows_of_train = train()
    counts = Counter(row["label"] for row in rows_of_train)
    labels = sorted(counts)
    shares = [counts[label] / counts.total() for label in labels]
    answers = {"majority label": {"labels": [labels] * len(rows), "probabilities": [shares] * len(rows)}}
    if importlib.util.find_spec("sklearn") and (by_words := _tf_idf(rows_of_train, rows)):
        answers["TF-IDF, logistic regression"] = by_words
    return answers


def _tf_idf(train: list[Row], rows: Sequence[Row]) -> Answers | None:
    """Returns None where scikit-learn finds no word, which to it has two characters: it has nothing to go by."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    words = TfidfVectorizer()
    if not any(map(words.build_analyzer(), (row["text"] for row in train))):
        return None
    # C=4: with scikit-learn's 1 it is two points worse on the demo's text, and a baseline should be at its best.
    model = make_pipeline(words, LogisticRegression(C=4, max_iter=1000))
    model.fit([row["text"] for row in train], [row["label"] for row in train])
    probabilities = model.predict_proba([row["text"] for row in rows]).tolist()
    return {"labels": [model.classes_.tolist()] * len(rows), "probabilities": probabilities}


def _reference(row: Row, prompt: str) -> str:
    return row["label"]


CLASSIFICATION = Task(
    name="classification",
    text_columns=("text",),
    label_columns=("label",),
    output="label",
    headline="accuracy",
    make_model=_make_model,
    make_loss=_make_loss,
    make_batches=_make_batches,
    make_evaluation=_make_evaluation,
    export=_export,
    measure=_measure,
    tally=_tally,
    baselines=_baselines,
    reference=_reference,
    example=("Classify", "What a lovely day!"),
    unit="points of accuracy",
)
