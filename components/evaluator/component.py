"""Evaluator: Examples and a Model to a ModelEvaluation and a ModelBlessing (TFX: Evaluator)."""

from typing import Annotated

from seq2serve.components.base.artifact import Examples, Model, ModelBlessing, ModelEvaluation
from seq2serve.components.base.component import Input, Output, Splits, component
from seq2serve.components.tasks.task import Task


@component
def Evaluator(
    examples: Annotated[Input[Examples], Splits(("train", "test"))],
    model: Input[Model],
    evaluation: Output[ModelEvaluation],
    blessing: Output[ModelBlessing],
    task: Task,
    min_over_baseline: float,
    num_examples: int,
) -> None:
    """Measures the exported SavedModel on raw test text, exactly as a server would run it, and blesses it or not.

    A model is blessed if it is better than the baseline by a margin and not significantly worse than the last blessed
    model in the same pipeline root that answered enough of the same test rows.

    Args:
        examples: split `test`; baselines may also read split `train`.
        model: its SavedModel is evaluated.
        evaluation: metrics and predictions, see artifact.ModelEvaluation.
        blessing: the verdict, see artifact.ModelBlessing.
        task: the task of the model.
        min_over_baseline: required margin over the baseline, in the task's headline metric.
        num_examples: number of test examples to use, from the first one on; 0 for all.
    Source: https://www.tensorflow.org/tfx/guide/evaluator
    """
    from seq2serve.components.evaluator.executor import evaluate

    evaluate(examples, model, evaluation, blessing, task, min_over_baseline, num_examples)
