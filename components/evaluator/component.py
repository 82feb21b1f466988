"""Evaluator: Examples and a Model to a ModelEvaluation and a ModelBlessing (TFX: Evaluator)."""

from typing import Annotated

from seq2serve.components.base.artifact import BaseModel, Examples, Model, ModelBlessing, ModelEvaluation
from seq2serve.components.base.component import History, Input, Output, Splits, component
from seq2serve.components.evaluator.bar import Bar
from seq2serve.components.tasks.task import Task


@component
def Evaluator(
    examples: Annotated[Input[Examples], Splits(("train", "test"))],
    model: Input[Model],
    evaluation: Output[ModelEvaluation],
    blessing: Output[ModelBlessing],
    task: Task,
    bar: Bar,
    num_examples: int,
    base_model: Input[BaseModel] | None = None,
    earlier_evaluations: History[ModelEvaluation] = (),
    earlier_blessings: History[ModelBlessing] = (),
) -> None:
    """Measures the exported SavedModel on raw test text, exactly as a server would run it, and blesses it or not.

    A model is blessed if it is significantly better than the trivial baselines, and not significantly worse than the
    strongest baseline and the last blessed model in the same pipeline root that answered enough of the same test rows.
    A model whose every answer is right is always blessed. If it was fine-tuned from a pretrained model that can answer
    without training, that model is a baseline, too.

    If the last blessed model answered some of the test rows and others are new, they are two slices: what was learned
    since, and what it cost.

    Args:
        examples: split `test`; baselines may also read split `train`.
        model: its SavedModel is evaluated.
        evaluation: metrics and predictions, see artifact.ModelEvaluation.
        blessing: the verdict, see artifact.ModelBlessing.
        task: the task of the model.
        bar: what the model must reach: "strongest" for the rule above; "trivial" without the strongest baseline;
            "none" blesses every model.
        num_examples: number of test examples to use, from the first one on; 0 for all.
        base_model: the model that training started from. If its SavedModel is beside its weights and is of the same
            task, it answers the new rows, too.
        earlier_evaluations, earlier_blessings: of earlier executions.
    Source: https://www.tensorflow.org/tfx/guide/evaluator
    """
    from seq2serve.components.evaluator.executor import evaluate

    blessed = (blessing.execution for blessing in earlier_blessings if blessing.artifact.properties["blessed"])
    by_execution = {earlier.execution: earlier for earlier in earlier_evaluations}
    earlier = [by_execution[execution] for execution in blessed if execution in by_execution]
    evaluate(examples, model, evaluation, blessing, task, bar, num_examples, base_model, earlier)
