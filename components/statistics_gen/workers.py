"""The Beam transforms of StatisticsGen: shards to counts, counts of all splits to protos and to conflicting labels."""

import itertools
from collections.abc import Iterable, Iterator

import apache_beam as beam

from seq2serve.components.statistics_gen.conflicts import LabelSample, count_conflicts
from seq2serve.components.statistics_gen.counts import SplitCounts, count_batch, merge_counts, without_rare_words
from seq2serve.components.statistics_gen.protos import split_statistics
from seq2serve.components.statistics_gen.statistics_file import write_statistics
from seq2serve.components.storage.examples_io import read_batches

# Parts are collected up to this number and then merged, because each merge sorts all samples.
_MAX_PARTS = 64


class CountShard(beam.DoFn):
    """(split, path of a shard) -> (split, counts of the shard).

    Args:
        columns: names of the bytes features to read.
        label_columns: those of the columns that contain labels.
    """

    def __init__(self, columns: list[str], label_columns: tuple[str, ...]):
        self._columns, self._label_columns = columns, label_columns

    def process(self, element: tuple[str, str]) -> Iterator[tuple[str, SplitCounts]]:
        split, path = element
        parts = [count_batch({column: [] for column in self._columns}, self._label_columns)]
        for batch in read_batches(path, self._columns):
            parts.append(count_batch(batch, self._label_columns))
            if len(parts) >= _MAX_PARTS:
                # Rare words are dropped per shard, not per worker, so the result does not depend on the workers.
                parts = [without_rare_words(merge_counts(parts))]
        yield split, without_rare_words(merge_counts(parts))


class MergeCounts(beam.CombineFn):
    """Counts of shards -> counts of the split. Accumulators are lists of counts, merged when they grow long."""

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
    """Counts of all splits -> FeatureStats.pb of each split, which it writes.

    Args:
        uri: the folder of the ExampleStatistics artifact.
    """

    def __init__(self, uri: str):
        self._uri = uri

    def process(self, counts: dict[str, SplitCounts]) -> None:
        for split in counts:
            write_statistics(self._uri, split, split_statistics(split, counts))


class FindConflicts(beam.DoFn):
    """Counts of all splits -> (label column, number of texts with different labels, hashes of some of them)."""

    def process(self, counts: dict[str, SplitCounts]) -> Iterator[tuple[str, int, list[int]]]:
        for column in next(iter(counts.values())).labels:
            sample = LabelSample.merged(split_counts.labels[column] for split_counts in counts.values())
            num_texts, hashes = sample.conflicts()
            if num_texts:
                yield column, num_texts, hashes


class ReadConflicts(beam.DoFn):
    """(split, path of a shard) -> ((label column, text, label), number of rows) of the texts that FindConflicts yields.

    Args:
        columns, label_columns: as for CountShard.
    """

    def __init__(self, columns: list[str], label_columns: tuple[str, ...]):
        self._columns, self._label_columns = columns, label_columns

    def process(
        self, element: tuple[str, str], conflicts: list[tuple[str, int, list[int]]]
    ) -> Iterator[tuple[tuple[str, str, str], int]]:
        for column, _, hashes in conflicts:  # usually none, and then the shard is not read
            for batch in read_batches(element[1], self._columns):
                for (text, label), number in count_conflicts(batch, column, self._label_columns, hashes).items():
                    yield (column, text, label), number
