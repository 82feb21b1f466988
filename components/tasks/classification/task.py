"""Classification: one of a few labels for a text, judged by accuracy or macro F1."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from seq2serve.components.tasks.classification.headline import choose_headline
from seq2serve.components.tasks.classification.metrics import ACCURACY, ECE, MACRO_F1, ROC_AUC
from seq2serve.components.tasks.data import Answers, Baseline, ReadRows, ReadTokenizers, Row
from seq2serve.components.tasks.task import Headline, Task, TaskImplementation

if TYPE_CHECKING:
    from seq2serve.components.tasks.bootstrap import SufficientStatistics
    from seq2serve.components.tasks.measurement import Measurement


class Classification(Task):
    """Classification of `text` into one of the values of `label`, compared with guessing and with TF-IDF."""

    name = "classification"
    text_columns = ("text",)
    label_columns = ("label",)
    output = "label"
    metrics = (ACCURACY, MACRO_F1, ROC_AUC, ECE)
    purpose = "Classifies texts like the training data as one of {labels}."
    parts = ("encoder",)
    example = ("Classify", "What a lovely day!")

    def headline(self, label_counts: Mapping[str, int]) -> Headline:
        return choose_headline(label_counts)

    def reference(self, row: Row, prompt: str) -> str:
        return row["label"]

    def implementation(self) -> TaskImplementation:
        from seq2serve.components.tasks.classification.implementation import ClassificationImplementation

        return ClassificationImplementation(self)

    def statistics(self, answers: Answers, rows: Sequence[Row], lowercase: bool = False) -> "SufficientStatistics":
        from seq2serve.components.tasks.classification import measurement

        return measurement.statistics(answers["label"], [row["label"] for row in rows])

    def measure(self, answers: Answers, rows: Sequence[Row], lowercase: bool = False) -> "Measurement":
        from seq2serve.components.tasks.classification import measurement

        return measurement.measure(answers["labels"][0], answers["probabilities"], [row["label"] for row in rows])

    def baselines(self, train: ReadRows, rows: Sequence[Row], tokenizers: ReadTokenizers) -> dict[str, Baseline]:
        from seq2serve.components.tasks.classification.baselines import baselines

        return baselines(train(), rows)
