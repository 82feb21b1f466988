"""The executor of StatisticsGen."""

import apache_beam as beam

from seq2serve.components.base.artifact import Examples, ExampleStatistics
from seq2serve.components.base.component import Context
from seq2serve.components.statistics_gen.statistics_file import write_source
from seq2serve.components.statistics_gen.workers import CountShard, MergeCounts, WriteStatistics
from seq2serve.components.storage.beam_runner import beam_pipeline
from seq2serve.components.storage.shards import shard_paths


def compute_statistics(
    examples: Examples,
    statistics: ExampleStatistics,
    context: Context,
    label_columns: tuple[str, ...] = (),
) -> None:
    """Executes StatisticsGen; see component.py for the arguments."""
    splits = examples.properties["splits"]
    shards = [(split, path) for split in splits for path in shard_paths(examples, split)]
    with beam_pipeline(context) as pipeline:
        (
            pipeline
            | beam.Create(shards)
            | beam.Reshuffle()
            | beam.ParDo(CountShard(examples.properties["columns"], label_columns))
            | beam.CombinePerKey(MergeCounts())
            | beam.combiners.ToDict()
            | beam.ParDo(WriteStatistics(statistics.uri))
        )
    write_source(statistics.uri, examples.properties.get("source", ""))
    statistics.properties["splits"] = splits
