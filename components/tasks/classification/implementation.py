"""The implementation of classification: an encoder with a head, judged by accuracy against the majority label."""

import importlib.util
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import keras
import tensorflow as tf

from seq2serve.components.tasks.bootstrap import SufficientStatistics
from seq2serve.components.tasks.classification import metrics
from seq2serve.components.tasks.classification.evaluation import ClassificationEvaluation
from seq2serve.components.tasks.data import Answers, DataSpec, Row, sample_evenly
from seq2serve.components.tasks.evaluation import Evaluation
from seq2serve.components.tasks.implementation import Measurement, TaskImplementation
from seq2serve.models.config import ModelConfig, Recipe, TrainingConfig
from seq2serve.models.export.classification import ClassificationServingModule
from seq2serve.models.export.export import export
from seq2serve.models.tokenizers.base import Tokenizer
from seq2serve.models.training.batches import class_batches
from seq2serve.models.training.loss import MaskedCrossEntropy, balanced_weights
from seq2serve.models.transformer.models import EncoderClassifier

NO_PADDING = -1  # a padding id that no label has, so every row counts


class ClassificationImplementation(TaskImplementation):
    """Classification of `text` into one of the values of `label`."""

    def make_model(self, config: ModelConfig, data: DataSpec) -> keras.Model:
        model = EncoderClassifier(config, data.vocab_size, len(data.label_counts))
        model.build()
        return model

    def make_loss(self, config: TrainingConfig, data: DataSpec) -> MaskedCrossEntropy:
        counts = list(data.label_counts.values())
        weights = balanced_weights(counts) if config.label_weights == "balanced" else ()
        return MaskedCrossEntropy(config.label_smoothing, NO_PADDING, weights)

    def make_batches(self, files: Sequence[str], recipe: Recipe, start: int, epochs: int | None) -> tf.data.Dataset:
        config = recipe.training
        dropout = config.token_dropout if epochs is None else 0.0
        return class_batches(files, config.batch_tokens, config.seed, start, epochs, dropout)

    def make_evaluation(
        self,
        model: keras.Model,
        tokenizers: Mapping[str, Tokenizer],
        data: DataSpec,
        recipe: Recipe,
        batches: Sequence[tuple],
        rows: Sequence[Row],
    ) -> Evaluation:
        serving_module = _serving_module(model, tokenizers, data)
        sample = sample_evenly(rows, recipe.training.eval_examples)
        return ClassificationEvaluation(model, batches, serving_module, sample)

    def export(
        self,
        model: keras.Model,
        tokenizers: Mapping[str, Tokenizer],
        data: DataSpec,
        recipe: Recipe,
        directory: str,
        samples: list[str],
    ) -> None:
        export(_serving_module(model, tokenizers, data), directory, samples)

    def measure(self, answers: Answers, rows: Sequence[Row]) -> Measurement:
        return metrics.measure(answers["labels"][0], answers["probabilities"], [row["label"] for row in rows])

    def statistics(self, answers: Answers, rows: Sequence[Row]) -> SufficientStatistics:
        return metrics.statistics(answers["label"], [row["label"] for row in rows])

    def baselines(
        self, train: Callable[[], list[Row]], rows: Sequence[Row], tokenizers: Callable[[], Mapping[str, Tokenizer]]
    ) -> dict[str, Answers]:
        """Returns the label frequencies and, if scikit-learn is installed, TF-IDF with logistic regression."""
        train_rows = train()
        counts = Counter(row["label"] for row in train_rows)
        labels = sorted(counts)
        shares = [counts[label] / counts.total() for label in labels]
        majority: Answers = {"labels": [labels] * len(rows), "probabilities": [shares] * len(rows)}
        answers = {"majority label": majority}
        if importlib.util.find_spec("sklearn") and (tf_idf := _tf_idf(train_rows, rows)):
            answers["TF-IDF, logistic regression"] = tf_idf
        return answers


def _serving_module(
    model: keras.Model, tokenizers: Mapping[str, Tokenizer], data: DataSpec
) -> ClassificationServingModule:
    return ClassificationServingModule(model, tokenizers["text"], list(data.label_counts), data.max_length)


def _tf_idf(train: list[Row], rows: Sequence[Row]) -> Answers | None:
    """Returns None if no text has a word; a word has at least two characters in scikit-learn."""
    # Imported here because scikit-learn is an optional dependency.
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    words = TfidfVectorizer()
    if not any(map(words.build_analyzer(), (row["text"] for row in train))):
        return None
    # With scikit-learn's default, C=1, the baseline of the demo is two points worse. Baselines should be strong.
    model = make_pipeline(words, LogisticRegression(C=4, max_iter=1000))
    model.fit([row["text"] for row in train], [row["label"] for row in train])
    probabilities = model.predict_proba([row["text"] for row in rows]).tolist()
    return {"labels": [model.classes_.tolist()] * len(rows), "probabilities": probabilities}
