"""What Transform runs on Beam's workers: words counted, tokenizers learned, texts turned into ids.

Comes in: shards of Examples. Goes out: tokenizers, then shards of TransformedExamples.
Read next: models/tokenizer.py for the ids, models/dataset.py for what reads them.
"""

import collections
import itertools
import os
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence

import apache_beam as beam
import numpy as np
import tensorflow as tf

from components.examples_io import read_texts
from components.tf_records import ExampleEncoder, RecordWriter, pack_numbers
from models.config import TokenizerConfig
from models.tokenizer import learn_tokenizer, load_tokenizers

if typing.TYPE_CHECKING:
    from components.transform import Preprocessing

WordCounts = tuple[str, collections.Counter]  # of one tokenizer, by its name


class LearnTokenizers(beam.PTransform):
    """Paths of shards of the train split -> {"name", "vocab_size", "error"} of each tokenizer, learned and written.

    Args:
        columns: name of a tokenizer -> the columns it is learned from. The name is its folder, "" for `uri` itself.
        config: of each.
        uri: folder of the Tokenizer artifact.
    """

    def __init__(self, columns: Mapping[str, Sequence[str]], config: TokenizerConfig, uri: str):
        super().__init__()
        self._columns, self._config, self._uri = columns, config, uri

    def expand(self, paths: beam.PCollection) -> beam.PCollection:
        """Returns one element a tokenizer; its error is empty unless none could be learned."""
        return (
            paths
            | beam.Reshuffle()
            | beam.ParDo(CountWords(self._columns))
            | beam.CombinePerKey(AddCounters())
            | beam.ParDo(LearnTokenizer(self._config, self._uri))
        )


class CountWords(beam.DoFn):
    """Path of a shard -> for each tokenizer the Counter of its words, those between white space.

    Args:
        columns: as for LearnTokenizers.
    """

    def __init__(self, columns: Mapping[str, Sequence[str]]):
        self._columns = columns

    def process(self, path: str) -> Iterator[WordCounts]:
        words = {name: collections.Counter() for name in self._columns}
        wanted = list(itertools.chain.from_iterable(self._columns.values()))
        for batch in read_texts(path, wanted):
            for name, columns in self._columns.items():
                for column in columns:
                    # Joined, they are decoded and split at the speed of C; no text begins or ends inside a word.
                    words[name].update(b" ".join(batch[column].numpy().tolist()).decode().split())
        yield from words.items()


class LearnTokenizer(beam.DoFn):
    """(name of a tokenizer, its words) -> {"name", "vocab_size", "error"}; the tokenizer is written.

    Args:
        config, uri: as for LearnTokenizers.
    """

    def __init__(self, config: TokenizerConfig, uri: str):
        self._config, self._uri = config, uri

    def process(self, element: WordCounts) -> Iterator[dict]:
        name, words = element
        folder, size, reason = os.path.join(self._uri, name), 0, ""
        tf.io.gfile.makedirs(folder)
        try:
            size = learn_tokenizer(words.items(), self._config, folder)
        except ValueError as error:
            reason = str(error)
        yield {"name": name, "vocab_size": size, "error": reason}


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
    """(split, path of a shard, path to write) -> the shard with ids for texts, in the same order; yields its counts.

    Args:
        preprocessing: columns and their lengths. Column `c` becomes the feature `c_ids`, of a label with one number.
        labels: label column -> its labels, in the order of their ids.
        tokenizer_uri: folder of the Tokenizer artifact.
    """

    def __init__(self, preprocessing: "Preprocessing", labels: dict[str, list[str]], tokenizer_uri: str):
        self._preprocessing, self._labels = preprocessing, labels
        self._tokenizer_uri = tokenizer_uri

    def setup(self) -> None:
        # Loaded with the first shard, and then kept: a worker may be set up before the tokenizer has been learned.
        self._tokenizers = {}
        columns = self._preprocessing.columns
        self._encoder = ExampleEncoder([f"{column}_ids" for column in (*columns, *self._labels)], "int64")
        self._label_ids = {
            column: {label.encode(): number for number, label in enumerate(labels)}
            for column, labels in self._labels.items()
        }

    def process(self, element: tuple[str, str, str], learned: Sequence[dict] = ()) -> Iterator[dict]:
        """Writes one shard.

        Args:
            element: see above.
            learned: what LearnTokenizers returned; nothing is written if a tokenizer is missing.
        Yields:
            {"split", "num_examples", "num_dropped", "num_truncated" {column: n}, "lengths" {column: {tokens: texts}}}
        """
        split, source, target = element
        if any(found["error"] for found in learned):
            return
        columns = self._preprocessing.columns
        self._tokenizers = self._tokenizers or load_tokenizers(self._tokenizer_uri, columns)
        counts = _Counts(columns)
        with RecordWriter(target) as writer:
            for batch in read_texts(source, [*columns, *self._labels]):
                for row in self._rows(batch, counts):
                    writer.write(self._encoder.encode(row))
        yield {"split": split, **vars(counts)}

    def _rows(self, batch: dict[str, tf.Tensor], counts: "_Counts") -> Iterator[tuple[bytes, ...]]:
        """Returns the packed ids of each row that is not dropped, and counts."""
        columns, limit = self._preprocessing.columns, self._preprocessing.max_length
        ragged = {column: self._tokenizers[column].tokenize(batch[column]) for column in columns}
        ids = {column: (found.flat_values.numpy(), found.row_splits.numpy()) for column, found in ragged.items()}
        lengths = {column: np.diff(row_splits) for column, (_, row_splits) in ids.items()}
        is_long = {column: found > limit for column, found in lengths.items()}
        dropped = np.any(list(is_long.values()), 0) & (self._preprocessing.too_long == "drop")
        counts.add(lengths, is_long, dropped)
        packed = [pack_numbers(*_cut(*found, limit)) for found in ids.values()]
        for column, label_ids in self._label_ids.items():
            numbers = np.array([label_ids[label] for label in batch[column].numpy().tolist()])
            packed.append(pack_numbers(numbers, np.arange(len(numbers) + 1)))
        return itertools.compress(zip(*packed, strict=True), ~dropped)


def _cut(ids: np.ndarray, row_splits: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first `limit` ids of each row, in the same form."""
    lengths = np.diff(row_splits)
    if lengths.max(initial=0) <= limit:
        return ids, row_splits
    places = np.arange(len(ids)) - np.repeat(row_splits[:-1], lengths)
    return ids[places < limit], np.concatenate([[0], np.cumsum(np.minimum(lengths, limit))])


class _Counts:
    """What is counted of a shard."""

    def __init__(self, columns: tuple[str, ...]):
        self.num_examples = self.num_dropped = 0
        self.num_truncated = dict.fromkeys(columns, 0)
        self.lengths = {column: collections.Counter() for column in columns}

    def add(self, lengths: dict[str, np.ndarray], is_long: dict[str, np.ndarray], dropped: np.ndarray) -> None:
        """Counts a batch: for each column the tokens of each text and whether these are too many; rows left out."""
        self.num_dropped += int(dropped.sum())
        self.num_examples += int((~dropped).sum())
        for column, found in lengths.items():
            self.num_truncated[column] += int((is_long[column] & ~dropped).sum())
            values, numbers = np.unique(found, return_counts=True)
            self.lengths[column].update(dict(zip(values.tolist(), numbers.tolist(), strict=True)))


def transformed_path(uri: str, source: str) -> str:
    """Returns where the ids of a shard of Examples go: the same split, number and total."""
    folder, name = os.path.split(source)
    return os.path.join(uri, os.path.basename(folder), name.replace("data_tfrecord", "transformed_examples"))
