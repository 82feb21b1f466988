"""Bits per character on the eval split, during training."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from seq2serve.components.tasks.bootstrap import SufficientStatistics
from seq2serve.components.tasks.evaluation import READABLE_TOKENS, Evaluation, Findings, query_in_batches, ratio_error
from seq2serve.components.tasks.language_model.metrics import BITS_PER_CHARACTER
from seq2serve.models.decoding.attention_maps import of_text


class LanguageModelEvaluation(Evaluation):
    """Computes the bits per character of a language model on packed text.

    Args:
        model, batches: see Evaluation; the batches contain every token of the split.
        serving_module: a models.export.language_model.LanguageModelServingModule of the model.
        prompts: beginnings of texts, to show with their completions.
        characters: number of characters in all texts of the split.
    """

    metric = BITS_PER_CHARACTER
    metrics = (*Evaluation.metrics, BITS_PER_CHARACTER)

    def __init__(
        self,
        model: keras.Model,
        batches: Sequence[tuple],
        serving_module: Any,
        prompts: Sequence[str],
        characters: int,
    ):
        super().__init__(model, batches)
        self._serving_module, self._prompts, self._characters = serving_module, prompts, characters

    def run(self) -> Findings:
        """Evaluates the model with its current weights."""
        self._serving_module.refresh()
        answers = query_in_batches(self._serving_module, self._prompts, "completion")
        texts = [{"text": text, "completion": answer} for text, answer in zip(self._prompts, answers, strict=True)]
        maps = []
        if self._prompts:
            maps = of_text(self._model, self._serving_module.tokenizer, self._prompts[0], READABLE_TOKENS)
        return super().run()._replace(texts=texts, maps=maps)

    def sums(self, labels: tf.Tensor, logits: tf.Tensor) -> dict[str, tf.Tensor]:
        """Adds the cross-entropy of a batch in nats, without label smoothing."""
        nats = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)  # [B, T]
        return {**super().sums(labels, logits), "nats": tf.reduce_sum(tf.where(labels == 0, 0.0, nats))}

    def values(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Computes the metrics, by name, from the sums over all batches."""
        counts = np.array([[float(sums["nats"]) / math.log(2), self._characters, float(sums["labels"])]])
        bits = SufficientStatistics(counts, (BITS_PER_CHARACTER,)).total()
        return {**super().values(sums), **bits}

    def standard_error(self, sums: Sequence[Mapping[str, np.ndarray]]) -> float:
        """Returns that of the bits per character; a batch has as many characters as its share of the labels."""
        num_labels = sum(float(batch["labels"]) for batch in sums)
        shares = [self._characters * float(batch["labels"]) / num_labels for batch in sums]
        return ratio_error([batch["nats"] for batch in sums], shares) / math.log(2) if self._characters else 0.0
