"""Classification: one of a few labels for a text, judged by accuracy."""

from typing import TYPE_CHECKING

from seq2serve.components.tasks.classification.headline import choose_headline
from seq2serve.components.tasks.data import Row
from seq2serve.components.tasks.task import Task

if TYPE_CHECKING:
    from seq2serve.components.tasks.implementation import TaskImplementation


def _implementation() -> "TaskImplementation":
    from seq2serve.components.tasks.classification.implementation import ClassificationImplementation

    return ClassificationImplementation()


def _reference(row: Row, prompt: str) -> str:
    return row["label"]


CLASSIFICATION = Task(
    name="classification",
    text_columns=("text",),
    label_columns=("label",),
    output="label",
    headline="accuracy",
    unit="points of accuracy",
    implementation=_implementation,
    reference=_reference,
    example=("Classify", "What a lovely day!"),
    purpose="Classifies texts like the training data as one of {labels}.",
    parts=("encoder",),
    choose_headline=choose_headline,
)
