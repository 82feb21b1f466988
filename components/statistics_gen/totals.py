"""Label counts and mean lengths of all splits together; reads only properties, so that it needs no protos."""

import collections
from collections.abc import Iterable, Mapping
from typing import Any

from seq2serve.components.base.artifact import Artifact


def label_totals(statistics: Artifact) -> dict[str, dict[str, int]]:
    """Returns label column -> label -> number of rows in all splits, the most frequent first."""
    columns = statistics.properties.get("label_counts", {})
    totals = {column: _total(splits.values()) for column, splits in columns.items()}
    return {column: counts for column, counts in totals.items() if counts}


def label_totals_of(by_split: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Returns the same for a corpus; `by_split` as for `mean_lengths`."""
    columns = next(iter(by_split.values()))["labels"]
    return {column: _total(split["labels"][column] for split in by_split.values()) for column in columns}


def _total(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    counts: collections.Counter = collections.Counter()
    for part in parts:
        counts.update(part)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def mean_lengths(by_split: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Returns text column -> mean number of characters in all splits.

    Args:
        by_split: those of a corpus, see artifact.ExampleStatistics.
    """
    rows = sum(split["rows"] for split in by_split.values())
    columns = next(iter(by_split.values()))["mean_characters"]
    return {
        column: sum(split["rows"] * split["mean_characters"][column] for split in by_split.values()) / max(rows, 1)
        for column in columns
    }
