"""Language modelling: the continuation of a text (Radford et al. 2018), judged by bits per character."""

from typing import TYPE_CHECKING

from seq2serve.components.tasks.data import Row
from seq2serve.components.tasks.language_model.prompts import make_prompt
from seq2serve.components.tasks.task import Task

if TYPE_CHECKING:
    from seq2serve.components.tasks.implementation import TaskImplementation

NUM_REFERENCE_CHARACTERS = 300


def _implementation() -> "TaskImplementation":
    from seq2serve.components.tasks.language_model.implementation import LanguageModelImplementation

    return LanguageModelImplementation()


def _reference(row: Row, prompt: str) -> str:
    return row["text"][len(prompt) :][:NUM_REFERENCE_CHARACTERS].lstrip()


LANGUAGE_MODEL = Task(
    name="language_model",
    text_columns=("text",),
    output="completion",
    headline="bits_per_character",
    unit="bits per character",
    higher_is_better=False,
    implementation=_implementation,
    judged="score",
    prompt=make_prompt,
    reference=_reference,
    example=("Complete", "The people of the United States"),
    purpose="Continues and scores texts like the training data.",
    parts=("decoder",),
    decimals=3,
    keeps_whitespace=True,
)
