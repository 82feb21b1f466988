"""BulkInferrer: runs the pushed model on all examples of a split, on Beam (TFX: BulkInferrer)."""

from seq2serve.components.base.artifact import Examples, InferenceResult, PushedModel
from seq2serve.components.base.component import BeamContext, Input, Output, component
from seq2serve.components.tasks.task import Task


@component
def BulkInferrer(
    examples: Input[Examples],
    pushed_model: Input[PushedModel],
    inference_result: Output[InferenceResult],
    task: Task,
    split: str,
    num_examples: int,
    context: BeamContext,
) -> None:
    """Queries the pushed model for every example of a split.

    Args:
        examples: the rows; the task makes a prompt from each.
        pushed_model: the version to query, which is loaded from the serving folder.
        inference_result: see artifact.InferenceResult.
        task: the application.
        split: name of the split.
        num_examples: number of rows to read from the start of each shard; 0 for all.
        context: Beam options.
    Raises:
        ComponentError: every row failed; the message has the reason of the first failure.
        ValueError: the pushed version has no SavedModel.
    Source: https://www.tensorflow.org/tfx/guide/bulkinferrer
    """
    from seq2serve.components.bulk_inferrer.executor import infer

    infer(examples, pushed_model, inference_result, task, split, num_examples, context)
