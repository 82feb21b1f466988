"""StatisticsGen: Examples -> ExampleStatistics, for people to look at and for SchemaGen and ExampleValidator to read.

Comes in: Examples. Goes out: tensorflow_metadata statistics of every split.
Read next: text_counts.py for what is counted, schema_gen.py for what is inferred from it.
"""

from components.artifact import Examples, ExampleStatistics
from components.component import BeamContext, Input, Output, component


@component
def StatisticsGen(
    examples: Input[Examples],
    statistics: Output[ExampleStatistics],
    context: BeamContext,
    label_columns: tuple[str, ...] = (),
) -> None:
    """Counts rows, lengths, words, labels, repetitions and the overlap of splits (TFX: StatisticsGen).

    Args:
        examples: as ExampleGen wrote them.
        statistics: is filled; see statistics_protos.py for the names of the statistics.
        context: Beam options.
        label_columns: columns that hold labels, of which each is counted.
    """
    import apache_beam as beam

    from components.beam_runner import beam_pipeline
    from components.shards import shard_paths
    from components.statistics_gen_beam import CountShard, MergeCounts, WriteStatistics
    from components.statistics_protos import write_source

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
