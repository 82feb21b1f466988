"""The data's part of a report: where it came from, what was rejected, how long texts are, which labels, anomalies.

Comes in: a RunFacts. Goes out: values for report.html, as much as the run left.
Read next: report.html, "Data"; components/statistics_protos.py, which reads the statistics.
"""

import glob
import itertools
import json
from typing import Any

from pipeline import report_plots
from pipeline.report_run import RunFacts
from pipeline.root import reached

MAX_FILES = 8  # named one by one
MAX_REJECTS = 5


def describe_data(facts: RunFacts) -> dict[str, Any]:
    """Collects what a report says of the data.

    Args:
        facts: of a run.
    Returns:
        files, examples (properties of Examples, or None), rejects (a few), plots (title -> SVG), languages (see
        `languages`), warnings, tokens and tokenizer (properties of TransformedExamples and Tokenizer, or None).
    """
    examples, transformed = facts.output("ExampleGen", "examples"), _transformed(facts, "transformed_examples")
    anomalies = facts.output("ExampleValidator", "anomalies")
    files = facts.given["RawFiles"].properties["files"] if "RawFiles" in facts.given else []
    return {
        "files": files[:MAX_FILES],
        "num_files": len(files),
        "num_bytes": sum(file["bytes"] for file in files),
        "examples": examples.properties if examples else None,
        "rejects": _rejects(examples.uri) if examples else [],
        "plots": _plots(facts),
        "languages": languages(facts),
        "checked": anomalies is not None,
        "warnings": anomalies.properties["warnings"] if anomalies else [],
        "tokens": transformed.properties if transformed else None,
        "tokenizer": tokenizer.properties if (tokenizer := _transformed(facts, "tokenizer")) else None,
    }


def languages(facts: RunFacts) -> dict[str, tuple[str, float]]:
    """Returns column -> the commonest language (ISO 639-1) of its texts in training, and its share.

    The share is of a sample, of the texts whose language is beyond doubt; columns without such are left out.
    """
    statistics = facts.output("StatisticsGen", "statistics")
    if statistics is None:
        return {}
    from components.statistics_protos import features_by_name, ranked_counts, read_statistics

    found = {}
    for column, feature in features_by_name(read_statistics(statistics, "train")).items():
        counts = ranked_counts(feature, "languages")
        if counts:
            commonest = next(iter(counts))
            found[column] = commonest, counts[commonest] / sum(counts.values())
    return found


def _transformed(facts: RunFacts, key: str) -> Any:
    return facts.output("Transform", key) or facts.output("TransformByTokenizer", key)


def _rejects(uri: str) -> list[dict]:
    """Returns the first rejected rows."""
    with reached(f"{uri}/rejects") as folder:
        lines = itertools.chain.from_iterable(map(_lines, sorted(glob.glob(f"{glob.escape(folder)}/*.jsonl"))))
        return [json.loads(line) for line in itertools.islice(lines, MAX_REJECTS)]


def _lines(path: str) -> list[str]:
    with open(path, encoding="utf-8") as file:
        return list(itertools.islice(file, MAX_REJECTS))


def _plots(facts: RunFacts) -> dict[str, str]:
    """Returns title -> SVG: the lengths of each column of text, the shares of each column of labels."""
    statistics = facts.output("StatisticsGen", "statistics")
    if statistics is None:
        return {}
    from components.statistics_protos import ROW, features_by_name, label_counts, read_statistics

    splits = {split: features_by_name(read_statistics(statistics, split)) for split in statistics.properties["splits"]}
    plots = {}
    for column in next(iter(splits.values())):
        counts = {split: label_counts(features[column]) for split, features in splits.items()}
        if all(counts.values()):
            plots[f"Labels: {column}"] = report_plots.shares("share of the rows", counts)
        elif column != ROW:
            buckets = {split: _lengths(features[column]) for split, features in splits.items()}
            plots[f"Lengths: {column}"] = report_plots.lengths("characters", buckets)
    return plots


def _lengths(feature: Any) -> list[tuple[float, float, float]]:
    (histogram,) = (stat.histogram for stat in feature.custom_stats if stat.name == "characters")
    return [(bucket.low_value, bucket.high_value, bucket.sample_count) for bucket in histogram.buckets]
