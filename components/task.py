"""A Task as a value: all that differs between one application of the Transformer and another.

Comes in: what an application wants of each component. Goes out: a frozen value that components ask, never by name.
Read next: task_translation.py for an example of one; tasks.py, which lists them; trainer.py and evaluator.py, who ask.

A new task is a new value: its columns, a model with its loss and batches, a server, a measure and a baseline. Nothing
of it may import TensorFlow before it is called.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from models.config import DecodingConfig, ModelConfig, TrainingConfig

if TYPE_CHECKING:
    import numpy as np

    from components.bootstrap import Tally

Row = Mapping[str, str]  # column -> text, of an example
Answers = dict[str, list]  # output of a signature -> its values, one a row


@dataclasses.dataclass(frozen=True)
class Recipe:
    """All that makes one trained model differ from another, but for its data."""

    model: ModelConfig
    training: TrainingConfig
    decoding: DecodingConfig


@dataclasses.dataclass(frozen=True)
class Features:
    """What the data decides of a model.

    Args:
        vocab_size: pieces of the tokenizer, of the last text column where columns have tokenizers of their own.
        label_counts: label -> its rows in the train split, in the order of the labels' ids; empty without labels.
        source_vocab_size: pieces of the first text column's tokenizer, if that is one of its own.
    """

    vocab_size: int
    label_counts: Mapping[str, int] = dataclasses.field(default_factory=dict)
    source_vocab_size: int | None = None


@dataclasses.dataclass(frozen=True)
class Table:
    """What a person should see of an evaluation beside its metrics: cells of text.

    Args:
        title: what it shows.
        header: of each column.
        rows: of cells.
        is_matrix: whether the cells, but for the first of each row, are counts to be compared by the eye.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    is_matrix: bool = False


@dataclasses.dataclass(frozen=True)
class Measurement:
    """How good some answers are.

    Args:
        metrics: name -> value.
        tally: the answers counted, for those of the metrics that any choice of rows has.
        quality: how good each answer is, float64 [rows]; better in the direction of the task's headline.
        quality_name: what that is.
        signature: metric -> how it was computed, of those for which that needs saying.
        tables: for people.
    """

    metrics: dict[str, float]
    tally: "Tally"
    quality: "np.ndarray"
    quality_name: str
    signature: dict[str, str] = dataclasses.field(default_factory=dict)
    tables: tuple[Table, ...] = ()


def spread(rows: Sequence[Row], number: int) -> Sequence[Row]:
    """Returns so many rows, taken from all over, or all that there are."""
    return [rows[i * len(rows) // number] for i in range(number)] if number < len(rows) else rows


def unchanged(text: str) -> str:
    """Returns the text."""
    return text


def token_loss(config: TrainingConfig, features: Features) -> Any:
    """Returns the models.training.MaskedCrossEntropy of a model that predicts tokens."""
    from models.training import MaskedCrossEntropy

    return MaskedCrossEntropy(config.label_smoothing)


@dataclasses.dataclass(frozen=True)
class Task:
    """An application of the Transformer.

    Args:
        name: as on the command line.
        text_columns: of an example, in the order of the model's inputs; the first is what is served.
        output: name of the answer among the outputs of `serving_default`.
        headline: the metric that the blessing looks at.
        make_model: (ModelConfig, Features) -> built keras.Model.
        make_batches: (files, Recipe, start, epochs) -> tf.data.Dataset of (inputs, labels), from batch `start` on;
            endless, with what makes training harder, where `epochs` is None, and without it for so many epochs.
        make_evaluation: (model, {text column: tokenizer}, Features, Recipe, batches of the eval split, its rows) -> a
            models.evaluation.Evaluation, asked while the model learns.
        export: (model, {text column: tokenizer}, Features, Recipe, folder, sample texts) -> None, writes a SavedModel.
        measure: (answers, rows) -> Measurement.
        tally: (answers, rows) -> Tally with the headline among its metrics; of the answers only `output` is there, or
            where `judged` has no such output, everything.
        baselines: (function that returns the rows of the train split, rows) -> {name: answers} that cost little, in the
            form of the model's; the model is blessed when it is better than the first.
        make_loss: (TrainingConfig, Features) -> a models.training.MaskedCrossEntropy; of tokens, unless it is said.
        label_columns: columns that hold one of a few labels, each turned into its id.
        higher_is_better: of the headline.
        judged: the signature that the Evaluator asks, with `text` alone.
        prompt: what of a held-out text is sent to `serving_default` for a person to look at.
        reference: (row, prompt) -> what a person compares the answer with.
        example: what asking the model is called, and a text to ask.
        decimals: digits after the point that matter in the metrics.
        unit: of the headline, plural, such as points of accuracy.
    """

    name: str
    text_columns: tuple[str, ...]
    output: str
    headline: str
    unit: str
    make_model: Callable[[ModelConfig, Features], Any]
    make_batches: Callable[[Sequence[str], Recipe, int, int | None], Any]
    make_evaluation: Callable[[Any, Any, Features, Recipe, Sequence[tuple], Sequence[Row]], Any]
    export: Callable[[Any, Mapping[str, Any], Features, Recipe, str, list[str]], None]
    measure: Callable[[Answers, Sequence[Row]], Measurement]
    tally: Callable[[Answers, Sequence[Row]], "Tally"]
    baselines: Callable[[Callable[[], list[Row]], Sequence[Row]], dict[str, Answers]]
    reference: Callable[[Row, str], str]
    example: tuple[str, str]
    make_loss: Callable[[TrainingConfig, Features], Any] = token_loss
    label_columns: tuple[str, ...] = ()
    higher_is_better: bool = True
    judged: str = "serving_default"
    prompt: Callable[[str], str] = unchanged
    decimals: int = 1

    @property
    def columns(self) -> tuple[str, ...]:
        """Returns every column of an example, what is served first and the answer last."""
        return self.text_columns + self.label_columns

    def answer_name(self, output: str) -> str:
        """Returns what an output is called beside the columns, one of which may have its name."""
        return f"predicted_{output}" if output in self.columns else output
