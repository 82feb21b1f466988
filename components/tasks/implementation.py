"""TaskImplementation: the model, metrics and baselines of a task."""

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from seq2serve.components.tasks.bootstrap import SufficientStatistics
from seq2serve.components.tasks.data import Answers, Baseline, DataSpec, Row
from seq2serve.components.tasks.evaluation import Evaluation
from seq2serve.models.config import ModelConfig, Recipe, TrainingConfig
from seq2serve.models.tokenizers.base import Tokenizer
from seq2serve.models.training.loss import MaskedCrossEntropy


@dataclasses.dataclass(frozen=True)
class ResultTable:
    """A table that an evaluation shows in addition to its metrics.

    Args:
        title: title of the table.
        header: header of each column.
        rows: cells of each row.
        is_matrix: True if all cells except the first of each row are counts, which are shown as a heat map.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    is_matrix: bool = False


@dataclasses.dataclass(frozen=True)
class Measurement:
    """The quality of a set of answers.

    Args:
        metrics: name -> value.
        statistics: sufficient statistics of each row, from which the metrics of any subset of rows follow.
        quality: quality of each answer, float64 [rows]; higher is better if that holds for the task's headline.
        quality_name: name of the measure in `quality`.
        is_perfect: whether every answer is right, where that can be said.
        signature: metric -> how it was computed, for metrics that need an explanation.
        tables: tables to show with the metrics.
    """

    metrics: dict[str, float]
    statistics: SufficientStatistics
    quality: np.ndarray
    quality_name: str
    is_perfect: bool = False
    signature: dict[str, str] = dataclasses.field(default_factory=dict)
    tables: tuple[ResultTable, ...] = ()


class TaskImplementation(abc.ABC):
    """The operations that Trainer and Evaluator need from a task. Tokenizers are passed as {text column: tokenizer}.

    Args:
        lowercase: whether the model writes lower case only. Its answers and those of the baselines are then measured
            without regard to case, and the signatures of the metrics say so.
    """

    lowercase = False

    @abc.abstractmethod
    def make_model(self, config: ModelConfig, data: DataSpec) -> keras.Model:
        """Returns a built model.

        Raises:
            UserError: the configuration does not match the data.
        """

    def make_loss(self, config: TrainingConfig, data: DataSpec) -> MaskedCrossEntropy:
        """Returns the loss; the default is for a model that predicts tokens."""
        return MaskedCrossEntropy(config.label_smoothing)

    @abc.abstractmethod
    def make_batches(self, files: Sequence[str], recipe: Recipe, start: int, epochs: int | None) -> tf.data.Dataset:
        """Returns batches of shards of TransformedExamples.

        Args:
            files: paths of the shards.
            recipe: batch size, seed, regularisation.
            start: index of the first batch to return.
            epochs: None for endless batches with regularisation, such as token dropout; a number for that many epochs
                without regularisation.
        Returns:
            (inputs, labels) batches in the form that the model and its loss expect.
        """

    @abc.abstractmethod
    def make_evaluation(
        self,
        model: keras.Model,
        tokenizers: Mapping[str, Tokenizer],
        data: DataSpec,
        recipe: Recipe,
        batches: Sequence[tuple],
        rows: Sequence[Row],
    ) -> Evaluation:
        """Returns the evaluation that runs during training, on the batches and rows of the eval split."""

    @abc.abstractmethod
    def export(
        self,
        model: keras.Model,
        tokenizers: Mapping[str, Tokenizer],
        data: DataSpec,
        recipe: Recipe,
        directory: str,
        samples: list[str],
    ) -> None:
        """Writes a SavedModel, with warm-up requests that are built from the sample texts."""

    @abc.abstractmethod
    def measure(self, answers: Answers, rows: Sequence[Row]) -> Measurement:
        """Measures answers to the task's `judged` signature."""

    @abc.abstractmethod
    def statistics(self, answers: Answers, rows: Sequence[Row]) -> SufficientStatistics:
        """Returns sufficient statistics for the headline metric.

        Args:
            answers: the task's `output` only; if the `judged` signature lacks that output, all of its outputs.
            rows: the rows that were answered.
        """

    @abc.abstractmethod
    def baselines(
        self, train: Callable[[], list[Row]], rows: Sequence[Row], tokenizers: Callable[[], Mapping[str, Tokenizer]]
    ) -> dict[str, Baseline]:
        """Returns cheap baselines by name, at least one; see evaluator/verdict.py for their use.

        Args:
            train: returns the rows of the train split.
            rows: the rows to answer.
            tokenizers: returns the model's tokenizers, for a task that judges the model on normalised text.
        """
