"""What Transform does with a shard: counts its words and labels, turns its texts into ids.

Comes in: paths of shards, a tokenizer. Goes out: counts; shards of ids.
Read next: transform_beam.py, whose workers call this; models/tokenizer.py for the ids.
"""

import collections
import itertools
import typing
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf

from components.examples_io import read_texts
from components.remote_files import fetched_folder
from components.tf_records import ExampleEncoder, RecordWriter, pack_numbers
from models.tokenizer import load_tokenizers

if typing.TYPE_CHECKING:
    from components.transform import Preprocessing


def count_words(path: str, columns: Mapping[str, Sequence[str]]) -> dict[str, collections.Counter]:
    """Counts words, which are what stands between white space.

    Args:
        path: of a shard of Examples.
        columns: name of a tokenizer -> its columns.
    Returns:
        Name of a tokenizer -> word -> how often it is in those.
    """
    words = {name: collections.Counter() for name in columns}
    for batch in read_texts(path, list(itertools.chain.from_iterable(columns.values()))):
        for name, mine in columns.items():
            for column in mine:
                # Joined, they are decoded and split at the speed of C; no text begins or ends inside a word.
                words[name].update(b" ".join(batch[column].numpy().tolist()).decode().split())
    return words


def count_labels(path: str, column: str) -> collections.Counter:
    """Counts the labels in a column of a shard of Examples."""
    labels = collections.Counter()
    for batch in read_texts(path, [column]):
        labels.update(label.decode() for label in batch[column].numpy().tolist())
    return labels


class IdWriter:
    """Turns shards of Examples into shards of ids.

    Args:
        preprocessing: columns and their lengths. Column `c` becomes the feature `c_ids`, of a label with one number.
        labels: label column -> its labels, in the order of their ids.
        tokenizer_uri: folder of the Tokenizer artifact, or its URL.
    """

    def __init__(self, preprocessing: "Preprocessing", labels: Mapping[str, Sequence[str]], tokenizer_uri: str):
        self._preprocessing = preprocessing
        with fetched_folder(tokenizer_uri) as folder:
            self._tokenizers = load_tokenizers(folder, preprocessing.columns)
        self._encoder = ExampleEncoder([f"{column}_ids" for column in (*preprocessing.columns, *labels)], "int64")
        self._label_ids = {
            column: {label.encode(): number for number, label in enumerate(names)} for column, names in labels.items()
        }

    def write(self, source: str, target: str) -> dict:
        """Writes the ids of a shard, in the same order.

        Args:
            source: path of the shard.
            target: path to write.
        Returns:
            {"num_examples", "num_dropped", "num_truncated" {column: n}, "lengths" {column: {tokens: texts}}}
        """
        columns = self._preprocessing.columns
        counts = _Counts(columns)
        with RecordWriter(target) as writer:
            for batch in read_texts(source, [*columns, *self._label_ids]):
                for row in self._rows(batch, counts):
                    writer.write(self._encoder.encode(row))
        return vars(counts)

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
