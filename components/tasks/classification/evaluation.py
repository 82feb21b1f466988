"""Accuracy and macro F1 on the eval split, during training."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from seq2serve.components.tasks.bootstrap import standard_error
from seq2serve.components.tasks.classification.measurement import statistics_of
from seq2serve.components.tasks.classification.metrics import ACCURACY, MACRO_F1
from seq2serve.components.tasks.evaluation import (
    READABLE_TOKENS,
    Evaluation,
    Findings,
    query_in_batches,
    readable_row,
)
from seq2serve.components.tasks.metric import LOSS, Metric
from seq2serve.models.decoding.attention_maps import of_text
from seq2serve.models.training.experts import fit_mixture


class ClassificationEvaluation(Evaluation):
    """Computes accuracy and macro F1 from the confusion matrix.

    Args:
        model, batches: see Evaluation.
        serving_module: a models.export.classification.ClassificationServingModule of the model.
        rows: sample rows with `text` and `label`, to show with their answers.
        metric: ACCURACY or MACRO_F1, which ranks checkpoints.
    """

    metrics = (LOSS, ACCURACY, MACRO_F1)

    def __init__(
        self,
        model: keras.Model,
        batches: Sequence[tuple],
        serving_module: Any,
        rows: Sequence[Mapping[str, str]],
        metric: Metric = ACCURACY,
    ):
        super().__init__(model, batches)
        self._experts = tf.function(lambda inputs: tf.nn.log_softmax(model.experts(inputs)), reduce_retracing=True)
        self._serving_module, self._rows, self.metric = serving_module, rows, metric

    def run(self) -> Findings:
        """Evaluates the model with its current weights, after fitting how its two parts answer together."""
        self.prepare()
        answers = query_in_batches(self._serving_module, [row["text"] for row in self._rows], "label")
        texts = [{**row, "answer": answer} for row, answer in zip(self._rows, answers, strict=True)]
        maps = []
        if self._rows:
            text = readable_row(self._rows, "text")["text"]
            maps = of_text(self._model, self._serving_module.tokenizer, text, READABLE_TOKENS)
        return super().run()._replace(texts=texts, maps=maps)

    def prepare(self) -> None:
        """Fits how the two parts of the model answer together."""
        if self._model.ngrams:
            answers = np.concatenate([self._experts(inputs) for inputs, _ in self._batches])
            self._model.mixture.assign(fit_mixture(answers, np.concatenate([labels for _, labels in self._batches])))

    def sums(self, labels: tf.Tensor, logits: tf.Tensor) -> dict[str, tf.Tensor]:
        """Adds the confusion matrix of a batch: right labels down, predicted labels across, int32 [labels, labels]."""
        confusion = tf.math.confusion_matrix(labels, tf.argmax(logits, 1), logits.shape[1])
        return {**super().sums(labels, logits), "confusion": confusion}

    def values(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Computes the metrics, by name, from the sums over all batches."""
        return {**super().values(sums), **statistics_of(sums["confusion"]).total()}

    def standard_error(self, sums: Sequence[Mapping[str, np.ndarray]]) -> float:
        """Returns that of the metric; that of the accuracy is never 0 (Agresti and Coull 1998)."""
        if self.metric is not ACCURACY:
            return standard_error(statistics_of(np.sum([batch["confusion"] for batch in sums], axis=0)), self.metric)
        right, labels = (float(sum(batch[name] for batch in sums)) for name in ("right", "labels"))
        share = (right + 2) / (labels + 4)
        return 100 * math.sqrt(share * (1 - share) / (labels + 4))
