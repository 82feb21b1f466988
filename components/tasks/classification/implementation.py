"""The implementation of classification: an encoder with a head."""

from collections.abc import Mapping, Sequence

import keras
import tensorflow as tf

from seq2serve.components.tasks.classification.evaluation import ClassificationEvaluation
from seq2serve.components.tasks.data import DataSpec, Row, sample_evenly
from seq2serve.components.tasks.evaluation import Evaluation
from seq2serve.components.tasks.task import TaskImplementation
from seq2serve.models.config import ModelConfig, Recipe, TrainingConfig
from seq2serve.models.export.classification import ClassificationServingModule
from seq2serve.models.tokenizers.base import Tokenizer
from seq2serve.models.training.batches import BatchSpec, class_batches
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

    def make_batches(
        self, files: Sequence[str], recipe: Recipe, start: int, epochs: int | None, weights: Sequence[float] = ()
    ) -> tf.data.Dataset:
        training = recipe.training
        spec = BatchSpec(files, training.batch_tokens, training.seed, start, epochs, weights)
        return class_batches(spec, training.token_dropout if epochs is None else 0.0)

    def make_evaluation(
        self,
        model: keras.Model,
        tokenizers: Mapping[str, Tokenizer],
        data: DataSpec,
        recipe: Recipe,
        batches: Sequence[tuple],
        rows: Sequence[Row],
    ) -> Evaluation:
        serving_module = self.make_serving_module(model, tokenizers, data, recipe)
        sample = sample_evenly(rows, recipe.training.eval_examples)
        headline = self.task.metric(self.task.headline(data.label_counts).metric)
        return ClassificationEvaluation(model, batches, serving_module, sample, headline)

    def make_serving_module(
        self, model: keras.Model, tokenizers: Mapping[str, Tokenizer], data: DataSpec, recipe: Recipe
    ) -> ClassificationServingModule:
        return ClassificationServingModule(model, tokenizers["text"], list(data.label_counts), data.max_length)
