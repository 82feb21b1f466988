"""The implementation of translation: a Transformer."""

from collections.abc import Mapping, Sequence

import keras
import tensorflow as tf

from seq2serve.components.base.errors import UserError
from seq2serve.components.tasks.data import DataSpec, Row, sample_evenly
from seq2serve.components.tasks.evaluation import Evaluation
from seq2serve.components.tasks.task import TaskImplementation
from seq2serve.components.tasks.translation.evaluation import TranslationEvaluation
from seq2serve.models.config import ModelConfig, Recipe
from seq2serve.models.export.translation import TranslationServingModule
from seq2serve.models.tokenizers.base import Tokenizer
from seq2serve.models.training.batches import BatchSpec, pair_batches
from seq2serve.models.transformer.models import Transformer


class TranslationImplementation(TaskImplementation):
    """Translation of `source` into `target`."""

    def make_model(self, config: ModelConfig, data: DataSpec) -> keras.Model:
        if data.source_vocab_size and config.tie_embeddings:
            raise UserError(
                "source and target have separate tokenizers, so they cannot share one embedding matrix; add "
                "--set model.tie_embeddings=false",
                code="settings-conflict",
                setting="model.tie_embeddings",
            )
        model = Transformer(config, data.vocab_size, data.source_vocab_size)
        model.build()
        return model

    def make_batches(
        self, files: Sequence[str], recipe: Recipe, start: int, epochs: int | None, weights: Sequence[float] = ()
    ) -> tf.data.Dataset:
        training = recipe.training
        return pair_batches(BatchSpec(files, training.batch_tokens, training.seed, start, epochs, weights))

    def make_evaluation(
        self,
        model: keras.Model,
        tokenizers: Mapping[str, Tokenizer],
        data: DataSpec,
        recipe: Recipe,
        batches: Sequence[tuple],
        rows: Sequence[Row],
    ) -> Evaluation:
        sample = sample_evenly(rows, recipe.training.eval_examples)
        if not sample:
            return Evaluation(model, batches)
        greedy = recipe.with_values({"decoding.beam_size": 1})
        serving_module = self.make_serving_module(model, tokenizers, data, greedy)
        return TranslationEvaluation(model, batches, serving_module, sample, self.task)

    def make_serving_module(
        self, model: keras.Model, tokenizers: Mapping[str, Tokenizer], data: DataSpec, recipe: Recipe
    ) -> TranslationServingModule:
        source, target = tokenizers["source"], tokenizers["target"]
        return TranslationServingModule(model, target, recipe.decoding, data.max_length, source)
