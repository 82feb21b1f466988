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
import tensorflow as tf

from components.examples_io import read_texts
from models.tokenizer import load_tokenizer

if typing.TYPE_CHECKING:
    from components.transform import Preprocessing


class CountWords(beam.DoFn):
    """Path of a shard -> the Counter of its words, those between white space, of all columns together.

    Args:
        columns: names of the text columns.
    """

    def __init__(self, columns: list[str]):
        self._columns = columns

    def process(self, path: str) -> Iterator[collections.Counter]:
        words = collections.Counter()
        for batch in read_texts(path, self._columns):
            for texts in batch.values():
                words.update(itertools.chain.from_iterable(text.decode().split() for text in texts.numpy().tolist()))
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
        for batch in read_texts(path, [self._column]):
            labels.update(label.decode() for label in batch[self._column].numpy().tolist())
        yield split, dict(labels)


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
        preprocessing: columns and their lengths. Column `c` becomes the feature `c_ids`, of a label with one number.
        labels: label column -> its labels, in the order of their ids.
        tokenizer_uri: folder of the Tokenizer artifact.
    """

    def __init__(self, preprocessing: "Preprocessing", labels: dict[str, list[str]], tokenizer_uri: str):
        self._preprocessing, self._labels = preprocessing, labels
        self._tokenizer_uri = tokenizer_uri

    def setup(self) -> None:
        self._tokenizer = load_tokenizer(self._tokenizer_uri)
        self._feature_names = [f"{column}_ids" for column in (*self._preprocessing.columns, *self._labels)]
        self._label_ids = {
            column: {label.encode(): number for number, label in enumerate(labels)}
            for column, labels in self._labels.items()
        }

    def process(self, element: tuple[str, str, str]) -> Iterator[dict]:
        """Yields {"split", "num_examples", "num_dropped", "num_truncated" {column: n}, "lengths" {column: {n: n}}}."""
        split, source, target = element
        columns = self._preprocessing.columns
        counts = _Counts(columns)
        with tf.io.TFRecordWriter(target) as writer:
            for batch in read_texts(source, [*columns, *self._labels]):
                texts = [self._tokenize(batch[column], counts.lengths[column]) for column in columns]
                labels = [[[ids[v]] for v in batch[column].numpy().tolist()] for column, ids in self._label_ids.items()]
                for row in zip(*texts, *labels, strict=True):
                    self._write(row, writer, counts)
        yield {"split": split, **vars(counts)}

    def _tokenize(self, texts: tf.Tensor, lengths: collections.Counter) -> list[list[int]]:
        """Returns the ids of each text and counts how many there are."""
        ragged = self._tokenizer.tokenize(texts)
        ids, ends = ragged.flat_values.numpy().tolist(), ragged.row_splits.numpy().tolist()
        found = [ids[start:end] for start, end in itertools.pairwise(ends)]
        lengths.update(map(len, found))
        return found

    def _write(self, row: tuple[list[int], ...], writer: tf.io.TFRecordWriter, counts: "_Counts") -> None:
        preprocessing = self._preprocessing
        texts, labels = row[: len(preprocessing.columns)], row[len(preprocessing.columns) :]
        if max(map(len, texts)) > preprocessing.max_length:
            if preprocessing.too_long == "drop":
                counts.num_dropped += 1
                return
            long = [len(ids) > preprocessing.max_length for ids in texts]
            counts.num_truncated.update(itertools.compress(preprocessing.columns, long))
            texts = [ids[: preprocessing.max_length] for ids in texts]
        counts.num_examples += 1
        example = tf.train.Example()
        features = example.features.feature
        for name, ids in zip(self._feature_names, (*texts, *labels), strict=True):
            features[name].int64_list.value.extend(ids)
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
