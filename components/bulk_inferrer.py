"""BulkInferrer: a pushed SavedModel and any examples -> predictions, on Beam (TFX: BulkInferrer).

Comes in: Examples and a PushedModel. Goes out: an InferenceResult, each prediction with the key of its row.
Read next: bulk_inferrer_beam.py for what runs on the workers, models/runtime.py for what answers.
"""

from components.artifact import Examples, InferenceResult, PushedModel
from components.component import BeamContext, Input, Output, component
from components.errors import ComponentError


@component
def BulkInferrer(
    examples: Input[Examples],
    pushed_model: Input[PushedModel],
    inference_result: Output[InferenceResult],
    task: str,
    split: str,
    num_examples: int,
    context: BeamContext,
) -> None:
    """Asks the pushed model for an answer to every example of a split.

    Args:
        examples: what is asked; of each row what the task makes of its first column.
        pushed_model: its version is read where the model server reads it.
        inference_result: see artifact.InferenceResult.
        task: name of a Task.
        split: which split.
        num_examples: rows of each shard that are asked, the first ones; 0 for all.
        context: Beam options.
    Raises:
        ComponentError: not one row could be answered; gives the first reason.
        ValueError: there is no SavedModel where it was pushed to.
    Source: https://www.tensorflow.org/tfx/guide/bulkinferrer
    """
    import apache_beam as beam

    from components.beam_runner import WriteJsonLines, beam_pipeline, read_json_lines
    from components.bulk_inferrer_beam import InferShards
    from components.shards import shard_paths

    shards = list(enumerate(shard_paths(examples, split)))
    counts_path = inference_result.path("counts.jsonl")
    with beam_pipeline(context) as pipeline:
        (
            pipeline
            | beam.Create(shards)
            | InferShards(
                saved_model=pushed_model.properties["pushed_destination"],
                task=task,
                num_examples=num_examples,
                target=inference_result.uri,
                num_shards=len(shards),
            )
            | WriteJsonLines(counts_path)
        )
    counts = read_json_lines(counts_path)
    totals = {name: sum(count[name] for count in counts) for name in ("num_predictions", "num_failures")}
    if totals["num_failures"] and not totals["num_predictions"]:
        raise ComponentError(f"no row of split {split!r} could be answered: {counts[0]['first_failure']}")
    inference_result.properties.update(totals)
