"""What Transform runs on Beam's workers: words counted, texts turned into ids.

Comes in: shards of Examples. Goes out: word counts, then shards of TransformedExamples.
Read next: models/tokenizer.py for the ids, models/dataset.py for what reads them.
"""

import collections
import itertools
import os
import typing
from collections.abc import Iterable, Iterator

import apache_beam as beam
import numpy as np
import tensorflow as tf

from components.examples_io import read_batches
from models.tokenizer import load_tokenizer

if typing.TYPE_CHECKING:
    from components.transform import Limits


class CountWords(beam.DoFn):
    """Path of a shard -> the Counter of its words, those between white space, of all columns together.

    Args:
        columns: names of the text columns.
    """

    def __init__(self, columns: list[str]):
        self._columns = columns

    def process(self, path: str) -> Iterator[collections.Counter]:
        words = collections.Counter()
        for batch in read_batches(path, self._columns):
            for rows in batch.values():
                words.update(itertools.chain.from_iterable(values[0].decode().split() for values in rows if values))
        yield words


class CountLabels(beam.DoFn):
    """(split, path of a shard) -> (split, {label: rows}).

    Args:
        column: of the labels.
    """

    def __init__(self, column: str):
        self._column = column

    def process(self, element: tuple[str, str]) -> Iterator[tuple[str, dict[str, int]]]:
        split, path = element
        labels = collections.Counter()
        for batch in read_batches(path, [self._column]):
            labels.update(_label(values) for values in batch[self._column])
        yield split, dict(labels)


def _label(values: list[bytes]) -> str:
    return values[0].decode() if values else ""


class AddCounters(beam.CombineFn):
    """Adds up Counters. One worker holds them all in the end, as SentencePiece must, too."""

    def create_accumulator(self) -> collections.Counter:
        return collections.Counter()

    def add_input(self, accumulator: collections.Counter, counter: collections.Counter) -> collections.Counter:
        accumulator.update(counter)
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[collections.Counter]) -> collections.Counter:
        result = collections.Counter()
        for accumulator in accumulators:
            result.update(accumulator)
        return result

    def extract_output(self, accumulator: collections.Counter) -> collections.Counter:
        return accumulator


class WriteIds(beam.DoFn):
    """(path of a shard, path to write) -> the shard with ids for texts, in the same order; yields its counts.

    Args:
        limits: columns and their lengths. Column `c` becomes the feature `c_ids`, of a label with one number.
        tokenizer_uri: folder of the Tokenizer artifact.
    """

    def __init__(self, limits: "Limits", tokenizer_uri: str):
        self._limits = limits
        self._tokenizer_uri = tokenizer_uri

    def setup(self) -> None:
        self._tokenizer = load_tokenizer(self._tokenizer_uri)
        self._label_ids = {
            column: {label: number for number, label in enumerate(labels)}
            for column, labels in self._limits.labels.items()
        }

    def process(self, element: tuple[str, str, str]) -> Iterator[dict]:
        """Yields {"split", "num_examples", "num_dropped", "num_truncated" {column: n}, "lengths" {column: {n: n}}}."""
        split, source, target = element
        counts = _Counts(self._limits.columns)
        with tf.io.TFRecordWriter(target) as writer:
            for batch in read_batches(source, [*self._limits.columns, *self._limits.labels]):
                texts = [self._tokenize(batch[column]) for column in self._limits.columns]
                labels = [[ids[_label(v)] for v in batch[column]] for column, ids in self._label_ids.items()]
                self._count_lengths(texts, counts)
                for row in zip(*texts, *labels, strict=True):
                    self._write(row, writer, counts)
        yield {"split": split, **vars(counts)}

    def _tokenize(self, rows: list[list[bytes]]) -> list[np.ndarray]:
        ids = self._tokenizer.tokenize(tf.constant([values[0] if values else b"" for values in rows], tf.string))
        return np.split(ids.flat_values.numpy(), ids.row_splits.numpy()[1:-1])

    def _count_lengths(self, texts: list[list[np.ndarray]], counts: "_Counts") -> None:
        for column, rows in zip(self._limits.columns, texts, strict=True):
            counts.lengths[column].update(map(len, rows))

    def _write(self, row: tuple[np.ndarray | int, ...], writer: tf.io.TFRecordWriter, counts: "_Counts") -> None:
        example, limits = tf.train.Example(), self._limits
        texts, labels = row[: len(limits.columns)], row[len(limits.columns) :]
        too_long = [column for column, ids in zip(limits.columns, texts, strict=True) if len(ids) > limits.max_length]
        if too_long and limits.too_long == "drop":
            counts.num_dropped += 1
            return
        counts.num_truncated.update(too_long)
        counts.num_examples += 1
        features = example.features.feature
        for column, label in zip(limits.labels, labels, strict=True):
            features[f"{column}_ids"].int64_list.value.append(label)
        for column, ids in zip(limits.columns, texts, strict=True):
            features[f"{column}_ids"].int64_list.value.extend(ids[: limits.max_length].tolist())
        writer.write(example.SerializeToString(deterministic=True))


class _Counts:
    """What is counted of a shard."""

    def __init__(self, columns: tuple[str, ...]):
        self.num_examples = self.num_dropped = 0
        self.num_truncated = collections.Counter(dict.fromkeys(columns, 0))
        self.lengths = {column: collections.Counter() for column in columns}


def transformed_path(uri: str, source: str) -> str:
    """Returns where the ids of a shard of Examples go: the same split, number and total."""
    folder, name = os.path.split(source)
    return os.path.join(uri, os.path.basename(folder), name.replace("data_tfrecord", "transformed_examples"))
