"""Task and TaskImplementation: everything that distinguishes one application of the Transformer from another.

A new task is a folder like translation/: `task.py` declares it without slow imports, so that a pipeline can be built
without TensorFlow; `implementation.py` has its model, batches, evaluation during training and export.
"""

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from seq2serve.components.base.component import Code
from seq2serve.components.tasks.data import Answers, Baseline, DataSpec, ReadRows, ReadTokenizers, Row
from seq2serve.components.tasks.metric import LABEL_ACCURACY, LOSS, Metric

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from seq2serve.components.tasks.bootstrap import SufficientStatistics
    from seq2serve.components.tasks.evaluation import Evaluation
    from seq2serve.components.tasks.measurement import Measurement
    from seq2serve.models.config import ModelConfig, Recipe, TrainingConfig
    from seq2serve.models.export.export import ServingModule
    from seq2serve.models.tokenizers.base import Tokenizer
    from seq2serve.models.training.loss import MaskedCrossEntropy


@dataclasses.dataclass(frozen=True)
class Headline:
    """The metric that decides about a model.

    Args:
        metric: its name.
        reason: why it is not the task's usual one; empty if it is.
    """

    metric: str
    reason: str = ""


class Task(Code, abc.ABC):
    """An application of the Transformer. Instances have no state; a variant of a task is a subclass.

    Methods that compute import their libraries when they are called.

    Attributes:
        name: name on the command line.
        text_columns: text columns of an example, in the order of the model's inputs; the first is the input of the
            served model.
        label_columns: columns with one of a few labels, which are converted to ids.
        output: name of the answer among the outputs of `serving_default`.
        metrics: of answers; the first one usually decides, see `headline`.
        judged: the signature that the Evaluator queries, with `text` as its only input.
        purpose: a sentence for the model card, with {column} for the name of a column in the file, and {labels}.
        parts: those of "encoder" and "decoder" that its model has.
        example: a verb and a text for the example command that a run prints at the end.
        keeps_whitespace: whether line ends and indentation may be part of the text (`tokenizer.whitespace=keep`).
    """

    text_columns: ClassVar[tuple[str, ...]]
    label_columns: ClassVar[tuple[str, ...]] = ()
    output: ClassVar[str]
    metrics: ClassVar[tuple[Metric, ...]]
    judged: ClassVar[str] = "serving_default"
    purpose: ClassVar[str]
    parts: ClassVar[tuple[str, ...]]
    example: ClassVar[tuple[str, str]]
    keeps_whitespace: ClassVar[bool] = False

    @property
    def columns(self) -> tuple[str, ...]:
        """Returns every column of an example: the served input first, the answer last."""
        return self.text_columns + self.label_columns

    def metric(self, name: str) -> Metric:
        """Returns the metric of that name, of answers or of the evaluation during training."""
        return next(metric for metric in (*self.metrics, LOSS, LABEL_ACCURACY) if metric.name == name)

    def answer_name(self, output: str) -> str:
        """Returns the key of an output in a row of predictions: its name, unless a column has that name."""
        return f"predicted_{output}" if output in self.columns else output

    def headline(self, label_counts: Mapping[str, int]) -> Headline:
        """Returns the metric that decides about a model of such data, and ranks its checkpoints.

        Args:
            label_counts: label -> number of its rows in the train split; empty without labels.
        """
        return Headline(self.metrics[0].name)

    def prompt(self, text: str) -> str:
        """Returns the part of a held-out text that is sent to `serving_default` for an example answer."""
        return text

    @abc.abstractmethod
    def reference(self, row: Row, prompt: str) -> str:
        """Returns the text to compare the answer to a prompt with."""

    @abc.abstractmethod
    def implementation(self) -> "TaskImplementation":
        """Imports TensorFlow and returns the model's part of the task."""

    @abc.abstractmethod
    def statistics(self, answers: Answers, rows: Sequence[Row], lowercase: bool = False) -> "SufficientStatistics":
        """Returns sufficient statistics of answers, from which `metrics` follow.

        Args:
            answers: the task's `output` only; if the `judged` signature lacks that output, all of its outputs.
            rows: the rows that were answered.
            lowercase: whether the model writes lower case only; case is then ignored.
        """

    def measure(self, answers: Answers, rows: Sequence[Row], lowercase: bool = False) -> "Measurement":
        """Measures answers to the `judged` signature; by default by `statistics` alone.

        The quality of an answer is then the first metric of its row alone.
        """
        from seq2serve.components.tasks.measurement import measure_by

        return measure_by(self.statistics(answers, rows, lowercase))

    @abc.abstractmethod
    def baselines(self, train: ReadRows, rows: Sequence[Row], tokenizers: ReadTokenizers) -> dict[str, Baseline]:
        """Returns cheap baselines by name, at least one; see evaluator/verdict.py for their use.

        Args:
            train: returns the rows of the train split.
            rows: the rows to answer.
            tokenizers: returns the model's tokenizers, for a task that judges the model on normalised text.
        """


class TaskImplementation(abc.ABC):
    """The operations that Trainer needs from a task. Tokenizers are passed as {text column: tokenizer}.

    Args:
        task: the task, whose metrics also rank checkpoints.
    """

    def __init__(self, task: Task):
        self.task = task

    @abc.abstractmethod
    def make_model(self, config: "ModelConfig", data: DataSpec) -> "keras.Model":
        """Returns a built model.

        Raises:
            UserError: the configuration does not match the data.
        """

    def make_loss(self, config: "TrainingConfig", data: DataSpec) -> "MaskedCrossEntropy":
        """Returns the loss; the default is for a model that predicts tokens."""
        from seq2serve.models.training.loss import MaskedCrossEntropy

        return MaskedCrossEntropy(config.label_smoothing)

    @abc.abstractmethod
    def make_batches(
        self, files: Sequence[str], recipe: "Recipe", start: int, epochs: int | None, weights: Sequence[float] = ()
    ) -> "tf.data.Dataset":
        """Returns batches of shards of TransformedExamples.

        Args:
            files: paths of the shards.
            recipe: batch size, seed, regularisation.
            start: index of the first batch to return.
            epochs: None for endless batches with regularisation, such as token dropout; a number for that many epochs
                without regularisation.
            weights: of each corpus, by which rows are drawn; empty to draw each row once per epoch. See
                models/training/mixture.py.
        Returns:
            (inputs, labels) batches in the form that the model and its loss expect.
        """

    @abc.abstractmethod
    def make_evaluation(
        self,
        model: "keras.Model",
        tokenizers: "Mapping[str, Tokenizer]",
        data: DataSpec,
        recipe: "Recipe",
        batches: Sequence[tuple],
        rows: Sequence[Row],
    ) -> "Evaluation":
        """Returns the evaluation that runs during training, on the batches and rows of the eval split."""

    @abc.abstractmethod
    def make_serving_module(
        self, model: "keras.Model", tokenizers: "Mapping[str, Tokenizer]", data: DataSpec, recipe: "Recipe"
    ) -> "ServingModule":
        """Returns the signatures of the served model."""

    def export(
        self,
        model: "keras.Model",
        tokenizers: "Mapping[str, Tokenizer]",
        data: DataSpec,
        recipe: "Recipe",
        directory: str,
        samples: list[str],
    ) -> None:
        """Writes a SavedModel, with warm-up requests that are built from the sample texts."""
        from seq2serve.models.export.export import export

        module = self.make_serving_module(model, tokenizers, data, recipe)
        export(module, directory, [self.task.prompt(text) for text in samples])
