"""The part of the workers' code that needs TensorFlow: counts words and labels, learns tokenizers, writes ids."""

import collections
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf

from seq2serve.components.base.artifact import CORPUS
from seq2serve.components.storage.examples_io import read_texts
from seq2serve.components.storage.files import filled_folder, local_copy
from seq2serve.components.storage.tf_records import ExampleEncoder, RecordWriter, pack_numbers
from seq2serve.components.transform.preprocessing import Preprocessing
from seq2serve.models.config import TokenizerConfig
from seq2serve.models.tokenizers.placeholders import make_placeholders
from seq2serve.models.tokenizers.tokenizer import learn_tokenizer, load_tokenizers
from seq2serve.models.tokenizers.vocabulary_fit import fit_vocabulary

_SPACES = re.compile(" {2,}")


def count_words(path: str, columns: Mapping[str, Sequence[str]], with_spaces: bool) -> dict[str, collections.Counter]:
    """Counts the words of a shard; words are separated by white space.

    Args:
        path: of a shard of Examples.
        columns: name of a tokenizer -> its columns.
        with_spaces: whether to count runs of spaces, too.
    Returns:
        Name of a tokenizer -> word -> number of occurrences in its columns.
    """
    words = {name: collections.Counter() for name in columns}
    for batch in read_texts(path, list(itertools.chain.from_iterable(columns.values()))):
        for name, tokenizer_columns in columns.items():
            for column in tokenizer_columns:
                # Joined texts are decoded and split in C; no text begins or ends inside a word.
                text = b"\n".join(batch[column].numpy().tolist()).decode()
                words[name].update(text.split())
                words[name].update(_SPACES.findall(text) if with_spaces else ())
    return words


def learn_from_words(words: Mapping[str, int], config: TokenizerConfig, folder: str) -> dict[str, int | str]:
    """Learns a tokenizer and writes it.

    Args:
        words: word -> number of occurrences.
        config: kind and size.
        folder: to write to, a path or a URL.
    Returns:
        `vocab_size`; `wanted`, that of the config; `error`, the reason if learning failed, else empty; `notice`, how
        the vocabulary differs from the config, else empty.
    """
    words, fitted, notice = fit_vocabulary(words, config)
    result = {"wanted": config.vocab_size, "notice": notice}
    try:
        with filled_folder(folder) as local_folder:
            return {"vocab_size": learn_tokenizer(words.items(), fitted, local_folder), "error": "", **result}
    except ValueError as error:
        return {"vocab_size": 0, "error": str(error), **result}


def count_labels(path: str, column: str) -> collections.Counter:
    """Counts the labels in a column of a shard of Examples."""
    labels = collections.Counter()
    for batch in read_texts(path, [column]):
        labels.update(label.decode() for label in batch[column].numpy().tolist())
    return labels


_UNKNOWN = -1  # the id of a label that training has not seen


class IdWriter:
    """Turns shards of Examples into shards of ids.

    Args:
        preprocessing: columns and length limit. Column `c` becomes the feature `c_ids`; a label is a single id.
        labels: label column -> its labels, in the order of their ids.
        tokenizer_uri: path or URL of the Tokenizer artifact.
    """

    def __init__(self, preprocessing: Preprocessing, labels: Mapping[str, Sequence[str]], tokenizer_uri: str):
        self._preprocessing = preprocessing
        with local_copy(tokenizer_uri) as folder:
            self._tokenizers = load_tokenizers(folder, preprocessing.columns)
        tokenizers = list(self._tokenizers.values())
        self._placeholders = make_placeholders(*tokenizers) if len(tokenizers) == 2 else None
        self._encoder = ExampleEncoder([f"{column}_ids" for column in (*preprocessing.columns, *labels)], "int64")
        self._label_ids = {
            column: {label.encode(): index for index, label in enumerate(names)} for column, names in labels.items()
        }

    def write(self, source: str, target: str) -> dict:
        """Writes the ids of a shard, rows in the same order.

        Args:
            source: path of the shard.
            target: path to write.
        Returns:
            {"num_examples": n, "num_dropped": n, "num_truncated": {column: n}, "num_long": {column: n}, "lengths":
            {column: {tokens: texts}}, "corpora": {number of the corpus: rows}}
        """
        columns = self._preprocessing.columns
        counts = _Counts(columns)
        with RecordWriter(target) as writer:
            for batch in read_texts(source, [*columns, *self._label_ids]):
                for row in self._rows(batch, counts):
                    writer.write(self._encoder.encode(row))
        return vars(counts)

    def _rows(self, batch: dict[str, tf.Tensor], counts: "_Counts") -> Iterator[tuple[bytes, ...]]:
        """Returns the encoded ids of each row that is not dropped, and updates the counts."""
        columns = self._preprocessing.columns
        limit = self._preprocessing.max_length or self._preprocessing.longest_limit
        texts = [batch[column] for column in columns]
        if self._placeholders:
            masked = self._placeholders.mask(texts[0])
            texts = [masked.text, self._placeholders.mask_target(texts[1], masked)]
        ragged = {c: self._tokenizers[c].tokenize(text) for c, text in zip(columns, texts, strict=True)}
        ids = {column: (tensor.flat_values.numpy(), tensor.row_splits.numpy()) for column, tensor in ragged.items()}
        lengths = {column: np.diff(row_splits) for column, (_, row_splits) in ids.items()}
        is_long = {column: num_tokens > limit for column, num_tokens in lengths.items()}
        dropped = np.any(list(is_long.values()), 0) & (self._preprocessing.too_long == "drop")
        packed = [pack_numbers(*_cut(*values_and_splits, limit)) for values_and_splits in ids.values()]
        for column, label_ids in self._label_ids.items():
            row_ids = np.array([label_ids.get(label, _UNKNOWN) for label in batch[column].numpy().tolist()])
            dropped |= row_ids == _UNKNOWN
            packed.append(pack_numbers(row_ids, np.arange(len(row_ids) + 1)))
            if column == CORPUS:
                counts.corpora.update(row_ids[~dropped].tolist())  # the last column, so that all drops are known
        counts.add(lengths, is_long, dropped)
        return itertools.compress(zip(*packed, strict=True), ~dropped)


def _cut(ids: np.ndarray, row_splits: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Truncates each row of a ragged array to `limit` ids; returns values and row splits."""
    lengths = np.diff(row_splits)
    if lengths.max(initial=0) <= limit:
        return ids, row_splits
    positions = np.arange(len(ids)) - np.repeat(row_splits[:-1], lengths)  # in the row
    return ids[positions < limit], np.concatenate([[0], np.cumsum(np.minimum(lengths, limit))])


class _Counts:
    """Counts of a shard; the attributes are the result of IdWriter.write."""

    def __init__(self, columns: tuple[str, ...]):
        self.num_examples = self.num_dropped = 0
        self.num_truncated, self.num_long = dict.fromkeys(columns, 0), dict.fromkeys(columns, 0)
        self.lengths = {column: collections.Counter() for column in columns}
        self.corpora: collections.Counter = collections.Counter()

    def add(self, lengths: dict[str, np.ndarray], is_long: dict[str, np.ndarray], dropped: np.ndarray) -> None:
        """Adds a batch.

        Args:
            lengths: column -> number of tokens of each text.
            is_long: column -> whether each text exceeds the limit.
            dropped: whether each row is dropped.
        """
        self.num_dropped += int(dropped.sum())
        self.num_examples += int((~dropped).sum())
        for column, num_tokens in lengths.items():
            self.num_truncated[column] += int((is_long[column] & ~dropped).sum())
            self.num_long[column] += int(is_long[column].sum())
            values, counts = np.unique(num_tokens, return_counts=True)
            self.lengths[column].update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
