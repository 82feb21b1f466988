"""The label counts of all splits together; reads only properties, so that it needs no protos."""

import collections

from seq2serve.components.base.artifact import Artifact


def label_totals(statistics: Artifact) -> dict[str, dict[str, int]]:
    """Returns label column -> label -> number of rows in all splits, the most frequent first."""
    totals = {}
    for column, splits in statistics.properties.get("label_counts", {}).items():
        counts: collections.Counter = collections.Counter()
        for split_counts in splits.values():
            counts.update(split_counts)
        totals[column] = dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
    return {column: counts for column, counts in totals.items() if counts}
