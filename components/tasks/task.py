"""Task: a value with everything that distinguishes one application of the Transformer from another.

A new task is a folder like translation/: `task.py` declares it without slow imports, so that a pipeline can be built
without TensorFlow; `implementation.py` contains its model, batches, metrics and baselines.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from seq2serve.components.base.component import Code
from seq2serve.components.tasks.data import Row

if TYPE_CHECKING:
    from seq2serve.components.tasks.implementation import TaskImplementation


@dataclasses.dataclass(frozen=True)
class Headline:
    """The metric that decides about a model.

    Args:
        metric: its name.
        reason: why it is not the task's usual one; empty if it is.
    """

    metric: str
    reason: str = ""


def unchanged(text: str) -> str:
    """Returns the text unchanged."""
    return text


@dataclasses.dataclass(frozen=True)
class Task(Code):
    """An application of the Transformer.

    Args:
        name: name on the command line.
        text_columns: text columns of an example, in the order of the model's inputs; the first is the input of the
            served model.
        output: name of the answer among the outputs of `serving_default`.
        headline: the metric that usually decides the blessing and ranks checkpoints, see `headline_for`.
        unit: unit of the headline, plural, such as points of accuracy.
        implementation: imports TensorFlow and returns the TaskImplementation.
        reference: (row, prompt) -> the text to compare the answer with.
        purpose: a sentence for the model card, with {column} for the name of a column in the file, and {labels}.
        parts: those of "encoder" and "decoder" that its model has.
        example: a verb and a text for the example command that a run prints at the end.
        label_columns: columns with one of a few labels, which are converted to ids.
        higher_is_better: whether a higher headline is better.
        judged: the signature that the Evaluator queries, with `text` as its only input.
        prompt: text -> the part of a held-out text that is sent to `serving_default` for an example answer.
        decimals: digits to show after the decimal point of the metrics.
        choose_headline: (label -> rows of the train split) -> the headline for such data; None if it never changes.
        keeps_whitespace: whether line ends and indentation may be part of the text (`tokenizer.whitespace=keep`).
    """

    name: str
    text_columns: tuple[str, ...]
    output: str
    headline: str
    unit: str
    implementation: "Callable[[], TaskImplementation]"
    reference: Callable[[Row, str], str]
    example: tuple[str, str]
    purpose: str
    parts: tuple[str, ...]
    label_columns: tuple[str, ...] = ()
    higher_is_better: bool = True
    judged: str = "serving_default"
    prompt: Callable[[str], str] = unchanged
    decimals: int = 1
    keeps_whitespace: bool = False
    choose_headline: Callable[[Mapping[str, int]], Headline] | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Returns every column of an example: the served input first, the answer last."""
        return self.text_columns + self.label_columns

    def headline_for(self, label_counts: Mapping[str, int]) -> Headline:
        """Returns the metric that decides about a model of such data.

        Args:
            label_counts: label -> number of its rows in the train split; empty without labels.
        """
        return self.choose_headline(label_counts) if self.choose_headline else Headline(self.headline)

    def judge(self, lowercase: bool) -> "TaskImplementation":
        """Returns the implementation that measures answers without regard to case if `lowercase`."""
        implementation = self.implementation()
        implementation.lowercase = lowercase
        return implementation

    def answer_name(self, output: str) -> str:
        """Returns the key of an output in a row of predictions: its name, unless a column has that name."""
        return f"predicted_{output}" if output in self.columns else output
