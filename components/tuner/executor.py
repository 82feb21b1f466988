"""The executor of Tuner: a choice by rule."""

import json
from collections.abc import Collection
from pathlib import Path

from seq2serve.components.base.artifact import HyperParameters, Tokenizer, TransformedExamples
from seq2serve.components.base.progress import note
from seq2serve.components.tasks.sizing import TrainData, choose, describe
from seq2serve.components.tasks.task import Task
from seq2serve.models.config import Recipe


def tune(
    transformed_examples: TransformedExamples,
    tokenizer: Tokenizer,
    best_hyperparameters: HyperParameters,
    task: Task,
    recipe: Recipe,
    automatic: Collection[str],
) -> None:
    """Executes Tuner; see component.py for the arguments."""
    data = _train_data(transformed_examples, tokenizer, task)
    values = choose(task.parts, data, recipe, automatic)
    reason = describe(values, data)
    Path(best_hyperparameters.path("best_hyperparameters.json")).write_text(json.dumps(values, indent=1) + "\n")
    best_hyperparameters.properties.update(settings=values, reason=reason)
    note(f"Tuner chose {reason}")


def _train_data(examples: TransformedExamples, tokenizer: Tokenizer, task: Task) -> TrainData:
    """Returns the size of the train split."""
    properties, column, vocab_size = examples.properties, task.text_columns[-1], tokenizer.properties["vocab_size"]
    return TrainData(
        rows=properties["num_examples"]["train"],
        tokens=properties["num_tokens"]["train"][column],
        vocab_size=vocab_size[column] if isinstance(vocab_size, dict) else vocab_size,
        num_labels=sum(len(properties["label_counts"][name]) for name in task.label_columns),
    )
