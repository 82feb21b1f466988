"""The implementation of language modelling: a decoder, trained on packed text."""

from collections.abc import Mapping, Sequence

import keras
import tensorflow as tf

from seq2serve.components.tasks.data import DataSpec, Row, sample_evenly
from seq2serve.components.tasks.evaluation import Evaluation
from seq2serve.components.tasks.language_model.evaluation import LanguageModelEvaluation
from seq2serve.components.tasks.language_model.prompts import make_prompt
from seq2serve.components.tasks.task import TaskImplementation
from seq2serve.models.config import ModelConfig, Recipe
from seq2serve.models.export.language_model import LanguageModelServingModule
from seq2serve.models.tokenizers.base import Tokenizer
from seq2serve.models.training.batches import BatchSpec, packed_batches
from seq2serve.models.transformer.models import DecoderLanguageModel

NUM_COMPLETIONS = 5  # shown at each evaluation during training; the metric does not need them


class LanguageModelImplementation(TaskImplementation):
    """Language modelling of `text`."""

    def make_model(self, config: ModelConfig, data: DataSpec) -> keras.Model:
        model = DecoderLanguageModel(config, data.vocab_size)
        model.build()
        return model

    def make_batches(
        self, files: Sequence[str], recipe: Recipe, start: int, epochs: int | None, weights: Sequence[float] = ()
    ) -> tf.data.Dataset:
        training = recipe.training
        spec = BatchSpec(files, training.batch_tokens, training.seed, start, epochs, weights)
        return packed_batches(spec, recipe.model.max_positions)

    def make_evaluation(
        self,
        model: keras.Model,
        tokenizers: Mapping[str, Tokenizer],
        data: DataSpec,
        recipe: Recipe,
        batches: Sequence[tuple],
        rows: Sequence[Row],
    ) -> Evaluation:
        sample = sample_evenly(rows, min(NUM_COMPLETIONS, recipe.training.eval_examples))
        prompts = [make_prompt(row["text"]) for row in sample]
        serving_module = self.make_serving_module(model, tokenizers, data, recipe)
        characters = sum(len(row["text"]) for row in rows)
        return LanguageModelEvaluation(model, batches, serving_module, prompts, characters)

    def make_serving_module(
        self, model: keras.Model, tokenizers: Mapping[str, Tokenizer], data: DataSpec, recipe: Recipe
    ) -> LanguageModelServingModule:
        return LanguageModelServingModule(model, tokenizers["text"], recipe.decoding)
