"""The executor of StatisticsGen."""

from typing import Any

import apache_beam as beam

from seq2serve.components.base.artifact import Examples, ExampleStatistics
from seq2serve.components.base.component import Context
from seq2serve.components.statistics_gen.statistics_file import (
    features_by_name,
    label_counts,
    read_corpora,
    read_statistics,
)
from seq2serve.components.statistics_gen.workers import (
    CountShard,
    FindConflicts,
    MergeCounts,
    ReadConflicts,
    WriteStatistics,
)
from seq2serve.components.storage.beam_runner import WriteJsonLines, beam_pipeline, read_json_lines
from seq2serve.components.storage.shards import shard_paths


def compute_statistics(
    examples: Examples,
    statistics: ExampleStatistics,
    context: Context,
    label_columns: tuple[str, ...] = (),
) -> None:
    """Executes StatisticsGen; see component.py for the arguments."""
    splits, columns = examples.properties["splits"], examples.properties["columns"]
    corpora = tuple(examples.properties.get("corpora", ()))
    paths = [(split, path) for split in splits for path in shard_paths(examples, split)]
    conflicts_path = statistics.path("conflicts.jsonl")
    with beam_pipeline(context) as pipeline:
        shards = pipeline | beam.Create(paths) | beam.Reshuffle()
        counts = (
            shards
            | beam.ParDo(CountShard(columns, label_columns, corpora))
            | beam.CombinePerKey(MergeCounts())
            | beam.combiners.ToDict()
        )
        counts | beam.ParDo(WriteStatistics(statistics.uri, corpora))
        if label_columns:
            conflicts = counts | beam.ParDo(FindConflicts())
            rows = shards | beam.ParDo(ReadConflicts(columns, label_columns), beam.pvalue.AsList(conflicts))
            # Flink flattens only collections of the same coder, and Beam has one of its own for key-value pairs.
            rows = rows | beam.CombinePerKey(sum) | "AsLists" >> beam.Map(list)
            (conflicts, rows) | beam.Flatten() | WriteJsonLines(conflicts_path)
    statistics.properties.update(splits=splits, source=examples.properties.get("source", ""))
    if corpora:
        statistics.properties["corpora"] = _corpora(statistics, columns, label_columns)
    if label_columns:
        statistics.properties["label_counts"] = _label_counts(statistics, label_columns)
        statistics.properties["label_conflicts"] = _label_conflicts(read_json_lines(conflicts_path))


def _label_counts(statistics: ExampleStatistics, columns: tuple[str, ...]) -> dict[str, dict[str, dict[str, int]]]:
    """Returns label column -> split -> label -> number of rows."""
    splits = statistics.properties["splits"]
    features = {split: features_by_name(read_statistics(statistics, split)) for split in splits}
    return {
        column: {
            split: {label: int(number) for label, number in label_counts(features[split][column]).items()}
            for split in splits
        }
        for column in columns
    }


def _corpora(
    statistics: ExampleStatistics, columns: list[str], label_columns: tuple[str, ...]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Returns corpus -> split -> rows, mean lengths and labels; see artifact.ExampleStatistics."""
    result: dict[str, dict[str, dict[str, Any]]] = {}
    for split in statistics.properties["splits"]:
        for corpus, dataset in read_corpora(statistics, split).items():
            features = features_by_name(dataset)
            result.setdefault(corpus, {})[split] = {
                "rows": dataset.num_examples,
                "mean_characters": {
                    column: features[column].string_stats.avg_length
                    for column in columns
                    if column not in label_columns
                },
                "labels": {
                    column: {label: int(number) for label, number in label_counts(features[column]).items()}
                    for column in label_columns
                },
            }
    return result


def _label_conflicts(lines: list[list]) -> dict[str, dict[str, Any]]:
    """Returns label column -> {"num_texts", "examples" {text: {label: rows}}}; only columns with conflicts."""
    result = {line[0]: {"num_texts": line[1], "examples": {}} for line in lines if len(line) == 3}
    for (column, text, label), number in sorted(line for line in lines if len(line) == 2):
        result[column]["examples"].setdefault(text, {})[label] = number
    return result
