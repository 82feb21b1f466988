"""Tuner: the settings of model and training that are not made by a person (TFX: Tuner)."""

from seq2serve.components.base.artifact import HyperParameters, Tokenizer, TransformedExamples
from seq2serve.components.base.component import Input, Output, component
from seq2serve.components.tasks.task import Task
from seq2serve.models.config import Recipe


@component
def Tuner(
    transformed_examples: Input[TransformedExamples],
    tokenizer: Input[Tokenizer],
    best_hyperparameters: Output[HyperParameters],
    task: Task,
    recipe: Recipe,
    automatic: tuple[str, ...],
) -> None:
    """Chooses settings by the rules of tasks/sizing.py: the same data give the same settings on every machine.

    Args:
        transformed_examples: its counts and lengths; the test split is not among them.
        tokenizer: its size.
        best_hyperparameters: see artifact.HyperParameters.
        task: the application.
        recipe: the person's settings; the others are overwritten.
        automatic: the names of the settings to choose, of `[model]` and `[training]`.
    Source: https://www.tensorflow.org/tfx/guide/tuner
    """
    from seq2serve.components.tuner.executor import tune

    tune(transformed_examples, tokenizer, best_hyperparameters, task, recipe, automatic)
