"""The implementation of language modelling: a decoder, judged by bits per character against n-grams."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from seq2serve.components.tasks.bootstrap import Metrics, SufficientStatistics
from seq2serve.components.tasks.data import Answers, Baseline, DataSpec, Row, sample_evenly
from seq2serve.components.tasks.evaluation import Evaluation
from seq2serve.components.tasks.implementation import Measurement, TaskImplementation
from seq2serve.components.tasks.language_model.evaluation import LanguageModelEvaluation
from seq2serve.components.tasks.language_model.ngrams import NgramModel
from seq2serve.components.tasks.language_model.prompts import make_prompt
from seq2serve.models.config import ModelConfig, Recipe
from seq2serve.models.export.export import export
from seq2serve.models.export.language_model import LanguageModelServingModule
from seq2serve.models.tokenizers.base import Tokenizer
from seq2serve.models.training.batches import packed_batches
from seq2serve.models.transformer.models import DecoderLanguageModel

NUM_COMPLETIONS = 5  # shown at each evaluation during training; the metric does not need them
MAX_BASELINE_CHARACTERS = 50_000_000  # to train the baselines, which keep every n-gram in memory
BATCH_ROWS = 256  # of texts that a tokenizer normalises together
BASELINE_ORDERS = {"characters by frequency": 1, "Kneser-Ney 5-gram of characters": 5}


class LanguageModelImplementation(TaskImplementation):
    """Language modelling of `text`."""

    def make_model(self, config: ModelConfig, data: DataSpec) -> keras.Model:
        model = DecoderLanguageModel(config, data.vocab_size)
        model.build()
        return model

    def make_batches(self, files: Sequence[str], recipe: Recipe, start: int, epochs: int | None) -> tf.data.Dataset:
        config = recipe.training
        return packed_batches(files, recipe.model.max_positions, config.batch_tokens, config.seed, start, epochs)

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
        serving_module = LanguageModelServingModule(model, tokenizers["text"], recipe.decoding)
        characters = sum(len(row["text"]) for row in rows)
        return LanguageModelEvaluation(model, batches, serving_module, prompts, characters)

    def export(
        self,
        model: keras.Model,
        tokenizers: Mapping[str, Tokenizer],
        data: DataSpec,
        recipe: Recipe,
        directory: str,
        samples: list[str],
    ) -> None:
        serving_module = LanguageModelServingModule(model, tokenizers["text"], recipe.decoding)
        export(serving_module, directory, [make_prompt(text) for text in samples])

    def measure(self, answers: Answers, rows: Sequence[Row]) -> Measurement:
        """Computes the metrics over the sums of all documents, so long documents weigh more."""
        statistics = self.statistics(answers, rows)
        bits, characters, _ = statistics.columns.T
        signature = {
            "bits_per_character": f"of normalised{' lower-case' * self.lowercase} text, end of document included",
            "perplexity": "per token: pieces for the model, characters for the baselines",
        }
        return Measurement(
            statistics.total(), statistics, bits / characters.clip(1), "bits per character", signature=signature
        )

    def statistics(self, answers: Answers, rows: Sequence[Row]) -> SufficientStatistics:
        counts = [answers[name] for name in ("log_probability", "characters", "tokens")]
        return SufficientStatistics(np.array(counts, float).T / [-math.log(2), 1, 1], _bits)

    def baselines(
        self, train: Callable[[], list[Row]], rows: Sequence[Row], tokenizers: Callable[[], Mapping[str, Tokenizer]]
    ) -> dict[str, Baseline]:
        """Returns n-gram models' probabilities of the very text whose characters the model's `score` counts."""
        texts = [row["text"] for row in train()]
        ends = itertools.accumulate(map(len, texts))
        texts = [text for text, end in zip(texts, ends, strict=True) if end <= MAX_BASELINE_CHARACTERS] or texts[:1]
        tokenizer = tokenizers()["text"]
        texts, inputs = _normalized(texts, tokenizer), _normalized([row["text"] for row in rows], tokenizer)
        baselines: dict[str, Baseline] = {}
        for name, order in BASELINE_ORDERS.items():
            model = NgramModel(texts, order)
            answers: Answers = {
                "log_probability": [model.log_probability(text) for text in inputs],
                "characters": [len(text) for text in inputs],
                "tokens": [len(text) + 1 for text in inputs],
            }
            baselines[name] = Baseline(answers, is_trivial=order == 1)
        return baselines


def _normalized(texts: Sequence[str], tokenizer: Tokenizer) -> list[str]:
    """Returns texts with the white space, case and Unicode forms that the model reads."""
    normalized: list[str] = []
    for first in range(0, len(texts), BATCH_ROWS):
        ids = tokenizer.tokenize(tf.constant(texts[first : first + BATCH_ROWS]))
        normalized += [text.decode() for text in tokenizer.detokenize(ids).numpy()]
    return normalized


def _bits(columns: np.ndarray, weights: np.ndarray) -> Metrics:
    bits, characters, tokens = map(float, weights @ columns)
    return {"bits_per_character": bits / max(1, characters), "perplexity": 2 ** (bits / max(1, tokens))}
