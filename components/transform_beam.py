"""What Transform runs on Beam's workers: words counted, texts turned into ids.

Comes in: shards of Examples. Goes out: word counts, then shards of TransformedExamples.
Read next: models/tokenizer.py for the ids, models/dataset.py for what reads them.
"""

import collections
import itertools
import os
from collections.abc import Iterable, Iterator

import apache_beam as beam
import numpy as np
import tensorflow as tf

from components.examples_io import read_batches
from models.tokenizer import load_tokenizer


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
        columns: names of the text columns; column `c` becomes the feature `c_ids`.
        max_length: ids a text may have; the rest is cut off.
        tokenizer_uri: folder of the Tokenizer artifact.
        labels: label column -> its labels; column `c` becomes the feature `c_ids`, too, with one number.
    """

    def __init__(self, columns: list[str], max_length: int, tokenizer_uri: str, labels: dict[str, list[str]]):
        self._columns = columns
        self._max_length = max_length
        self._tokenizer_uri = tokenizer_uri
        self._labels = labels

    def setup(self) -> None:
        self._tokenizer = load_tokenizer(self._tokenizer_uri)

    def process(self, element: tuple[str, str, str]) -> Iterator[dict]:
        """Yields {"split", "num_examples", "num_truncated" {column: n}}."""
        split, source, target = element
        num_examples, num_truncated = 0, collections.Counter(dict.fromkeys(self._columns, 0))
        with tf.io.TFRecordWriter(target) as writer:
            for batch in read_batches(source, [*self._columns, *self._labels]):
                texts = [self._tokenize(batch[column]) for column in self._columns]
                labels = [[names.index(_label(v)) for v in batch[column]] for column, names in self._labels.items()]
                for row in zip(*texts, *labels, strict=True):
                    writer.write(self._example(row, num_truncated))
                    num_examples += 1
        yield {"split": split, "num_examples": num_examples, "num_truncated": dict(num_truncated)}

    def _tokenize(self, rows: list[list[bytes]]) -> list[np.ndarray]:
        ids = self._tokenizer.tokenize(tf.constant([values[0] if values else b"" for values in rows], tf.string))
        return np.split(ids.flat_values.numpy(), ids.row_splits.numpy()[1:-1])

    def _example(self, row: tuple[np.ndarray | int, ...], num_truncated: collections.Counter) -> bytes:
        example = tf.train.Example()
        texts, labels = row[: len(self._columns)], row[len(self._columns) :]
        for column, label in zip(self._labels, labels, strict=True):
            example.features.feature[f"{column}_ids"].int64_list.value.append(label)
        for column, ids in zip(self._columns, texts, strict=True):
            num_truncated[column] += len(ids) > self._max_length
            example.features.feature[f"{column}_ids"].int64_list.value.extend(ids[: self._max_length].tolist())
        return example.SerializeToString(deterministic=True)


def transformed_path(uri: str, source: str) -> str:
    """Returns where the ids of a shard of Examples go: the same split, number and total."""
    folder, name = os.path.split(source)
    return os.path.join(uri, os.path.basename(folder), name.replace("data_tfrecord", "transformed_examples"))
