"""Translation: one text into another (Vaswani et al. 2017), judged by BLEU and chrF."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from seq2serve.components.tasks.data import Answers, Baseline, ReadRows, ReadTokenizers, Row
from seq2serve.components.tasks.task import Task, TaskImplementation
from seq2serve.components.tasks.translation.metrics import BLEU, CHRF

if TYPE_CHECKING:
    from seq2serve.components.tasks.bootstrap import SufficientStatistics
    from seq2serve.components.tasks.measurement import Measurement


class Translation(Task):
    """Translation of `source` into `target`, compared with copying the source."""

    name = "translation"
    text_columns = ("source", "target")
    output = "translation"
    metrics = (BLEU, CHRF)
    purpose = "Translates texts like the training data, one at a time, from {source} into {target}."
    parts = ("encoder", "decoder")
    example = ("Translate", "Turn on the light.")

    def reference(self, row: Row, prompt: str) -> str:
        return row["target"]

    def implementation(self) -> TaskImplementation:
        from seq2serve.components.tasks.translation.implementation import TranslationImplementation

        return TranslationImplementation(self)

    def statistics(self, answers: Answers, rows: Sequence[Row], lowercase: bool = False) -> "SufficientStatistics":
        from seq2serve.components.tasks.translation import measurement

        return measurement.statistics(answers["translation"], [row["target"] for row in rows], lowercase)

    def measure(self, answers: Answers, rows: Sequence[Row], lowercase: bool = False) -> "Measurement":
        from seq2serve.components.tasks.translation import measurement

        return measurement.measure(answers["translation"], [row["target"] for row in rows], lowercase)

    def baselines(self, train: ReadRows, rows: Sequence[Row], tokenizers: ReadTokenizers) -> dict[str, Baseline]:
        return {"source copied": Baseline({"translation": [row["source"] for row in rows]}, is_trivial=True)}
