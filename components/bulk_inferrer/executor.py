"""The executor of BulkInferrer."""

import apache_beam as beam

from seq2serve.components.base.artifact import Examples, InferenceResult, PushedModel
from seq2serve.components.base.component import Context
from seq2serve.components.base.errors import ComponentError
from seq2serve.components.bulk_inferrer.workers import InferShards
from seq2serve.components.pusher.store import version_path
from seq2serve.components.storage.beam_runner import WriteJsonLines, beam_pipeline, read_json_lines
from seq2serve.components.storage.shards import shard_paths
from seq2serve.components.tasks.task import Task


def infer(
    examples: Examples,
    pushed_model: PushedModel,
    inference_result: InferenceResult,
    task: Task,
    split: str,
    num_examples: int,
    context: Context,
) -> None:
    """Executes BulkInferrer; see component.py for the arguments."""
    shards = list(enumerate(shard_paths(examples, split)))
    counts_path = inference_result.path("counts.jsonl")
    with beam_pipeline(context) as pipeline:
        (
            pipeline
            | beam.Create(shards)
            | InferShards(
                saved_model=version_path(pushed_model.properties["pushed_destination"]),
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
        reason = next(count["first_failure"] for count in counts if count["num_failures"])
        raise ComponentError(f"every row of split {split!r} failed: {reason}", code="rows-failed", split=split)
    inference_result.properties.update(totals)
