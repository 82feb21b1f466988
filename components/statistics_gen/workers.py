"""The Beam transforms of StatisticsGen: shards to counts, counts of all splits to protos and to conflicting labels."""

import itertools
from collections.abc import Iterable, Iterator

import apache_beam as beam

from seq2serve.components.base.artifact import CORPUS
from seq2serve.components.statistics_gen.conflicts import LabelSample, count_conflicts
from seq2serve.components.statistics_gen.counts import (
    SplitCounts,
    count_batch,
    empty_like,
    merge_counts,
    without_rare_words,
)
from seq2serve.components.statistics_gen.protos import split_statistics
from seq2serve.components.statistics_gen.statistics_file import write_statistics
from seq2serve.components.storage.examples_io import Batch, read_batches

# Parts are collected up to this number and then merged, because each merge sorts all samples.
_MAX_PARTS = 64


class CountShard(beam.DoFn):
    """(split, path of a shard) -> ((split, corpus), counts of its rows in the shard); the corpus is "" if there is one.

    Args:
        columns: names of the bytes features to read.
        label_columns: those of the columns that contain labels.
        corpora: the names of the corpora; empty if there is only one.
    """

    def __init__(self, columns: list[str], label_columns: tuple[str, ...], corpora: tuple[str, ...] = ()):
        self._columns, self._label_columns, self._corpora = columns, label_columns, corpora

    def process(self, element: tuple[str, str]) -> Iterator[tuple[tuple[str, str], SplitCounts]]:
        split, path = element
        nothing = {column: [] for column in self._columns}
        parts = {corpus: [count_batch(nothing, self._label_columns)] for corpus in self._corpora or [""]}
        for batch in read_batches(path, [*self._columns, *([CORPUS] if self._corpora else [])]):
            for corpus, rows in _by_corpus(batch) if self._corpora else [("", batch)]:
                parts[corpus].append(count_batch(rows, self._label_columns))
                if len(parts[corpus]) >= _MAX_PARTS:
                    # Rare words are dropped per shard, not per worker, so the result does not depend on the workers.
                    parts[corpus] = [without_rare_words(merge_counts(parts[corpus]))]
        for corpus, corpus_parts in parts.items():
            yield (split, corpus), without_rare_words(merge_counts(corpus_parts))


def _by_corpus(batch: Batch) -> Iterator[tuple[str, Batch]]:
    """Yields (corpus, its rows) of a batch that has the column CORPUS."""
    rows: dict[bytes, list[int]] = {}
    for index, (corpus,) in enumerate(batch[CORPUS]):
        rows.setdefault(corpus, []).append(index)
    columns = [column for column in batch if column != CORPUS]
    for corpus, indices in rows.items():
        yield corpus.decode(), {column: [batch[column][index] for index in indices] for column in columns}


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


CorpusCounts = dict[tuple[str, str], SplitCounts]  # (split, corpus) -> counts


def _of_splits(counts: CorpusCounts) -> dict[str, SplitCounts]:
    """Returns split -> the counts of all its corpora."""
    parts: dict[str, list[SplitCounts]] = {}
    for (split, _), corpus_counts in sorted(counts.items(), key=lambda item: item[0]):
        parts.setdefault(split, []).append(corpus_counts)
    # `merge_counts` updates the first part; here, it is one that nothing else reads.
    return {split: merge_counts([empty_like(of[0]), *of]) if len(of) > 1 else of[0] for split, of in parts.items()}


class WriteStatistics(beam.DoFn):
    """Counts of all splits and corpora -> FeatureStats.pb of each split, which it writes.

    Args:
        uri: the folder of the ExampleStatistics artifact.
        corpora: as for CountShard.
    """

    def __init__(self, uri: str, corpora: tuple[str, ...] = ()):
        self._uri, self._corpora = uri, corpora

    def process(self, counts: CorpusCounts) -> None:
        by_split = _of_splits(counts)
        for split in by_split:
            slices = {corpus: counts[split, corpus] for corpus in self._corpora}
            write_statistics(self._uri, split, split_statistics(split, by_split, slices))


class FindConflicts(beam.DoFn):
    """Counts of splits and corpora -> (label column, number of texts with different labels, hashes of some of them)."""

    def process(self, counts: CorpusCounts) -> Iterator[tuple[str, int, list[int]]]:
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
