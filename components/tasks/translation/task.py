"""Translation: one text into another (Vaswani et al. 2017), judged by BLEU and chrF."""

from typing import TYPE_CHECKING

from seq2serve.components.tasks.data import Row
from seq2serve.components.tasks.task import Task

if TYPE_CHECKING:
    from seq2serve.components.tasks.implementation import TaskImplementation


def _implementation() -> "TaskImplementation":
    from seq2serve.components.tasks.translation.implementation import TranslationImplementation

    return TranslationImplementation()


def _reference(row: Row, prompt: str) -> str:
    return row["target"]


TRANSLATION = Task(
    name="translation",
    text_columns=("source", "target"),
    output="translation",
    headline="bleu",
    unit="BLEU points",
    implementation=_implementation,
    reference=_reference,
    example=("Translate", "Turn on the light."),
    purpose="Translates texts like the training data, one at a time, from {source} into {target}.",
    parts=("encoder", "decoder"),
)
