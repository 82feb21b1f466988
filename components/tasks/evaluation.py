"""Evaluation during training: loss and task metric on the eval split, sample answers and attention maps."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from seq2serve.components.tasks.metric import LABEL_ACCURACY, LOSS, Metric
from seq2serve.models.decoding.attention_maps import AttentionMap
from seq2serve.models.transformer.train_step import loss_sums

BATCH_TEXTS = 64  # texts per request
READABLE_CHARACTERS, READABLE_TOKENS = 40, 24  # of a text whose attention map is drawn


class Findings(NamedTuple):
    """Results of an evaluation.

    Args:
        metrics: name -> value; `loss` has label smoothing, and a text has one label per token.
        texts: rows to show, name -> text: the input, the reference and the answer.
        maps: attention maps of a sample text.
        standard_error: of the metric that ranks checkpoints, on the eval split; 0 if it is unknown.
    """

    metrics: dict[str, float]
    texts: list[dict[str, str]]
    maps: list[AttentionMap]
    standard_error: float = 0.0


class Evaluation:
    """Computes loss and accuracy under teacher forcing: the model sees the correct labels so far.

    A task with another metric has a subclass, which sets `metric`, by which checkpoints are ranked, and adds it to
    `metrics`.

    Args:
        model: compiled with a models.training.loss.MaskedCrossEntropy; its weights may change between two evaluations.
        batches: (inputs, labels) batches of the eval split.
    """

    metric: Metric = LOSS
    metrics: tuple[Metric, ...] = (LOSS, LABEL_ACCURACY)

    def __init__(self, model: keras.Model, batches: Sequence[tuple]):
        self._model, self._batches = model, batches
        # One graph for all shapes.
        any_shape = tf.nest.map_structure(lambda ids: tf.TensorSpec([None] * len(ids.shape), ids.dtype), batches[0])
        self._sums = tf.function(
            lambda inputs, labels: self.sums(labels, model(inputs, training=False)), any_shape, autograph=False
        )

    def prepare(self) -> None:
        """Fits what depends on the model's current weights and is not trained; here nothing."""

    def run(self) -> Findings:
        """Evaluates the model with its current weights."""
        sums = [tf.nest.map_structure(np.asarray, self._sums(inputs, labels)) for inputs, labels in self._batches]
        totals = {name: np.sum([batch[name] for batch in sums], axis=0) for name in sums[0]}
        return Findings(self.values(totals), [], [], self.standard_error(sums))

    def standard_error(self, sums: Sequence[Mapping[str, np.ndarray]]) -> float:
        """Returns the standard error of the metric, from the sums of each batch; here that of the loss."""
        return ratio_error([batch["loss"] for batch in sums], [batch["weight"] for batch in sums])

    def sums(self, labels: tf.Tensor, logits: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the sums of a batch from which `values` computes the metrics.

        Args:
            labels: int32 [B, T] or [B].
            logits: float32 [B, T, V] or [B, V].
        """
        return loss_sums(self._model.loss, labels, logits)._asdict()

    def values(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Computes the metrics, by name, from the sums over all batches."""
        return {
            LOSS.name: float(sums["loss"] / sums["weight"]),
            LABEL_ACCURACY.name: 100 * float(sums["right"] / sums["labels"]),
        }


def ratio_error(numerators: Sequence[Any], denominators: Sequence[Any]) -> float:
    """Returns the standard error of sum(numerators) / sum(denominators) over batches; 0 for a single batch."""
    above, below = np.array(numerators, float), np.array(denominators, float)
    if len(above) < 2:
        return 0.0
    residuals = above - above.sum() / below.sum() * below
    return float(np.sqrt(len(above) / (len(above) - 1) * np.square(residuals).sum()) / below.sum())


def readable_row(rows: Sequence[Mapping[str, str]], column: str) -> Mapping[str, str]:
    """Returns the row whose text is closest to a length at which the labels of an attention map are legible."""
    return min(rows, key=lambda row: abs(len(row[column]) - READABLE_CHARACTERS))


def query_in_batches(serving_module: Any, texts: Sequence[str], output: str) -> list[str]:
    """Returns an output of `serving_default` for each text, in order."""
    batches = [texts[first : first + BATCH_TEXTS] for first in range(0, len(texts), BATCH_TEXTS)]
    answers = [serving_module.serving_default(tf.constant(batch))[output].numpy() for batch in batches]
    return [answer.decode() for batch in answers for answer in batch]
