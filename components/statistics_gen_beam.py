"""What StatisticsGen runs on Beam's workers: shards to counts, counts of all splits to protos.

Comes in: shards of Examples. Goes out: FeatureStats.pb for every split.
Read next: text_counts.py for what is counted, statistics_protos.py for what it becomes.
"""

import itertools
from collections.abc import Iterable, Iterator

import apache_beam as beam

from components.examples_io import read_batches
from components.statistics_protos import split_statistics, write_statistics
from components.text_counts import SplitCounts, count_batch, merge_counts, without_rare_words

# Parts that are kept before they are added up: merging two at a time would sort the samples over and over.
_MAX_PARTS = 64


class CountShard(beam.DoFn):
    """(split, path of a shard) -> (split, its counts).

    Args:
        columns: names of the bytes features to read.
        label_columns: of them, those that hold labels.
    """

    def __init__(self, columns: list[str], label_columns: tuple[str, ...]):
        self._columns, self._label_columns = columns, label_columns

    def process(self, element: tuple[str, str]) -> Iterator[tuple[str, SplitCounts]]:
        split, path = element
        parts = [count_batch({column: [] for column in self._columns}, self._label_columns)]
        for batch in read_batches(path, self._columns):
            parts.append(count_batch(batch, self._label_columns))
            if len(parts) >= _MAX_PARTS:
                # By the shard alone, not by what else a worker has seen, so that the result depends on no worker.
                parts = [without_rare_words(merge_counts(parts))]
        yield split, without_rare_words(merge_counts(parts))


class MergeCounts(beam.CombineFn):
    """Counts of shards -> counts of all. They are gathered in a list and merged when it has grown long."""

    def create_accumulator(self) -> list[SplitCounts]:
        return []

    def add_input(self, accumulator: list[SplitCounts], counts: SplitCounts) -> list[SplitCounts]:
        accumulator.append(counts)
        return self.compact(accumulator) if len(accumulator) >= _MAX_PARTS else accumulator

    def merge_accumulators(self, accumulators: Iterable[list[SplitCounts]]) -> list[SplitCounts]:
        return self.compact(list(itertools.chain.from_iterable(accumulators)))

    def compact(self, accumulator: list[SplitCounts]) -> list[SplitCounts]:
        return [merge_counts(accumulator)] if accumulator else []

    def extract_output(self, accumulator: list[SplitCounts]) -> SplitCounts:
        return merge_counts(accumulator)


class WriteStatistics(beam.DoFn):
    """The counts of all splits -> FeatureStats.pb of each.

    Args:
        uri: folder of the ExampleStatistics artifact.
    """

    def __init__(self, uri: str):
        self._uri = uri

    def process(self, counts: dict[str, SplitCounts]) -> None:
        for split in counts:
            write_statistics(self._uri, split, split_statistics(split, counts))
