"""The data section of a report: files, rejected rows, text lengths, labels and anomalies."""

from typing import Any

from seq2serve.components.base.artifact import Artifact
from seq2serve.components.statistics_gen.statistics_file import (
    ROW,
    features_by_name,
    label_counts,
    languages_of,
    read_statistics,
)
from seq2serve.components.statistics_gen.totals import label_totals, label_totals_of, mean_lengths
from seq2serve.components.storage.shards import first_rejects
from seq2serve.pipeline.report import plots
from seq2serve.pipeline.report.facts import RunFacts

MAX_FILES = 8  # listed one by one
MAX_REJECTS = 5


def describe_data(facts: RunFacts) -> dict[str, Any]:
    """Collects the values of the data section.

    Args:
        facts: facts of a run.
    Returns:
        files (at most MAX_FILES), num_files, num_bytes, examples (properties of Examples, or None), rejects (at most
        MAX_REJECTS), labels (label column -> label -> number of rows), plots (title -> SVG), languages (see
        `languages`), corpora (one row each, if there are several: name, rows by split, lengths, labels), checked
        (whether the ExampleValidator finished), warnings, tokens and tokenizer (properties of TransformedExamples and
        Tokenizer, or None).
    """
    examples, anomalies = facts.output("ExampleGen", "examples"), facts.output("ExampleValidator", "anomalies")
    transformed, tokenizer = _transform_output(facts, "transformed_examples"), _transform_output(facts, "tokenizer")
    statistics, files = facts.output("StatisticsGen", "statistics"), facts.raw_files
    return {
        "files": files[:MAX_FILES],
        "num_files": len(files),
        "num_bytes": sum(file["bytes"] for file in files),
        "examples": examples.properties if examples else None,
        "rejects": first_rejects(examples.uri, MAX_REJECTS) if examples else [],
        "labels": label_totals(statistics) if statistics else {},
        "corpora": _corpora(statistics) if statistics else [],
        "plots": _plots(facts),
        "languages": languages(facts),
        "checked": anomalies is not None,
        "warnings": warnings(facts),
        "tokens": transformed.properties if transformed else None,
        "tokenizer": tokenizer.properties if tokenizer else None,
    }


def warnings(facts: RunFacts) -> list[str]:
    """Returns the warnings of ExampleGen and of ExampleValidator, as far as these have finished."""
    outputs = (facts.output("ExampleGen", "examples"), facts.output("ExampleValidator", "anomalies"))
    return [line for artifact in outputs if artifact for line in artifact.properties.get("warnings", [])]


def languages(facts: RunFacts) -> dict[str, tuple[str, float]]:
    """Returns column -> (most frequent language, ISO 639-1; its share) of the texts in the train split.

    The share is that among the sampled texts whose language was detected with confidence. Columns without any are
    omitted.
    """
    statistics = facts.output("StatisticsGen", "statistics")
    if statistics is None:
        return {}
    counts = languages_of(statistics)
    return {column: (next(iter(c)), next(iter(c.values())) / sum(c.values())) for column, c in counts.items()}


def _corpora(statistics: Artifact) -> list[dict[str, Any]]:
    """Returns the rows, the mean lengths and the labels of each corpus."""
    return [
        {
            "name": name,
            "rows": {split: numbers["rows"] for split, numbers in by_split.items()},
            "lengths": mean_lengths(by_split),
            "labels": label_totals_of(by_split),
        }
        for name, by_split in statistics.properties.get("corpora", {}).items()
    ]


def _transform_output(facts: RunFacts, key: str) -> Artifact | None:
    return facts.output("Transform", key) or facts.output("TransformByTokenizer", key)


def _plots(facts: RunFacts) -> dict[str, str]:
    """Returns title -> SVG: text lengths of each text column, shares of the labels of each label column."""
    statistics = facts.output("StatisticsGen", "statistics")
    if statistics is None:
        return {}
    splits = {split: features_by_name(read_statistics(statistics, split)) for split in statistics.properties["splits"]}
    svgs = {}
    for column in next(iter(splits.values())):
        counts = {split: label_counts(features[column]) for split, features in splits.items()}
        if all(counts.values()):
            svgs[f"Labels: {column}"] = plots.shares("share of the rows", counts)
        elif column != ROW:
            buckets = {split: _length_buckets(features[column]) for split, features in splits.items()}
            svgs[f"Lengths: {column}"] = plots.lengths("characters", buckets)
    return svgs


def _length_buckets(feature: Any) -> list[tuple[float, float, float]]:
    """Returns (shortest length, longest length, number of texts) of each bucket of a FeatureNameStatistics."""
    (histogram,) = (stat.histogram for stat in feature.custom_stats if stat.name == "characters")
    return [(bucket.low_value, bucket.high_value, bucket.sample_count) for bucket in histogram.buckets]
