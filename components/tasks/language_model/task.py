"""Language modelling: the continuation of a text (Radford et al. 2018), judged by bits per character."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from seq2serve.components.tasks.data import Answers, Baseline, ReadRows, ReadTokenizers, Row
from seq2serve.components.tasks.language_model.metrics import BITS_PER_CHARACTER, PERPLEXITY
from seq2serve.components.tasks.language_model.prompts import make_prompt
from seq2serve.components.tasks.task import Task, TaskImplementation

if TYPE_CHECKING:
    from seq2serve.components.tasks.bootstrap import SufficientStatistics
    from seq2serve.components.tasks.measurement import Measurement

NUM_REFERENCE_CHARACTERS = 300


class LanguageModel(Task):
    """Language modelling of `text`, compared with n-grams of characters."""

    name = "language_model"
    text_columns = ("text",)
    output = "completion"
    metrics = (BITS_PER_CHARACTER, PERPLEXITY)
    judged = "score"
    purpose = "Continues and scores texts like the training data."
    parts = ("decoder",)
    example = ("Complete", "The people of the United States")
    keeps_whitespace = True

    def prompt(self, text: str) -> str:
        return make_prompt(text)

    def reference(self, row: Row, prompt: str) -> str:
        return row["text"][len(prompt) :][:NUM_REFERENCE_CHARACTERS].lstrip()

    def implementation(self) -> TaskImplementation:
        from seq2serve.components.tasks.language_model.implementation import LanguageModelImplementation

        return LanguageModelImplementation(self)

    def statistics(self, answers: Answers, rows: Sequence[Row], lowercase: bool = False) -> "SufficientStatistics":
        from seq2serve.components.tasks.language_model import measurement

        return measurement.statistics(answers)

    def measure(self, answers: Answers, rows: Sequence[Row], lowercase: bool = False) -> "Measurement":
        from seq2serve.components.tasks.language_model import measurement

        return measurement.measure(answers, lowercase)

    def baselines(self, train: ReadRows, rows: Sequence[Row], tokenizers: ReadTokenizers) -> dict[str, Baseline]:
        from seq2serve.components.tasks.language_model.baselines import baselines

        return baselines([row["text"] for row in train()], [row["text"] for row in rows], tokenizers()["text"])
