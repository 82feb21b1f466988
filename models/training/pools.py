"""Pools: examples in memory, as token ids, from TFRecords that may hold more than fits into memory."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

POOL_EXAMPLES = 500_000  # examples that are sorted by length together; bounds memory to about 100 MB
READ_EXAMPLES = 4096  # examples that are parsed by one call
CORPUS = "corpus"  # the column with the number of an example's corpus


@dataclasses.dataclass(frozen=True)
class Pool:
    """Examples in memory: for each column, all ids in one array and the offset of each example.

    Args:
        ids: column -> int32 [total tokens].
        starts: column -> int64 [examples + 1].
    """

    ids: dict[str, np.ndarray]
    starts: dict[str, np.ndarray]

    def lengths(self, column: str) -> np.ndarray:
        """Returns the number of tokens in each example, int64 [examples]."""
        return np.diff(self.starts[column])

    @property
    def num_examples(self) -> int:
        """Returns the number of examples."""
        return len(next(iter(self.starts.values()))) - 1

    def take(self, examples: np.ndarray) -> "Pool":
        """Returns a pool of the selected examples, in that order."""
        ids = {column: np.concatenate([self.ids[column][:0], *self.rows(column, examples)]) for column in self.ids}
        return Pool(ids, {column: _starts(self.lengths(column)[examples]) for column in self.starts})

    def rows(self, column: str, examples: np.ndarray) -> list[np.ndarray]:
        """Returns the ids of the selected examples."""
        ids, starts = self.ids[column], self.starts[column]
        return [ids[starts[i] : starts[i + 1]] for i in examples]


def read_pools(
    files: Sequence[str], columns: Sequence[str], size: int | None = None, corpus: int | None = None
) -> Iterator[Pool]:
    """Reads TFRecords of tf.Example into pools.

    Args:
        files: paths, read in this order.
        columns: names of int64 lists, without the suffix `_ids`.
        size: examples in a pool, rounded up to what is read together; by default POOL_EXAMPLES.
        corpus: number of a corpus, to read only its examples, which have it in `corpus_ids`.
    Yields:
        Pools; the last may be smaller.
    """
    names = columns if corpus is None else [*columns, CORPUS]
    features = {f"{c}_ids": tf.io.RaggedFeature(tf.int64, row_splits_dtype=tf.int64) for c in names}

    def parse(batch: tf.Tensor) -> dict[str, tf.RaggedTensor]:
        parsed = tf.io.parse_example(batch, features)
        if corpus is None:
            return parsed
        is_member = parsed.pop(f"{CORPUS}_ids").values == corpus
        return {name: tf.ragged.boolean_mask(values, is_member) for name, values in parsed.items()}

    records = tf.data.TFRecordDataset(list(files)).batch(READ_EXAMPLES)
    chunks: list[dict[str, tf.RaggedTensor]] = []
    num_examples = 0
    for chunk in records.map(parse, num_parallel_calls=2).prefetch(2):
        chunks.append(chunk)
        num_examples += int(next(iter(chunk.values())).nrows())
        if num_examples >= (size or POOL_EXAMPLES):
            yield _pool(chunks, columns)
            chunks, num_examples = [], 0
    if num_examples:
        yield _pool(chunks, columns)


def count_examples(files: Sequence[str]) -> int:
    """Returns the number of records in TFRecords."""
    batches = tf.data.TFRecordDataset(list(files)).batch(READ_EXAMPLES)
    return int(batches.reduce(np.int64(0), lambda total, batch: total + tf.size(batch, tf.int64)))


def joined(pools: Sequence[Pool]) -> Pool:
    """Returns the examples of at least one pool in one."""
    columns = pools[0].ids
    lengths = {column: np.concatenate([pool.lengths(column) for pool in pools]) for column in columns}
    ids = {column: np.concatenate([pool.ids[column] for pool in pools]) for column in columns}
    return Pool(ids, {column: _starts(lengths[column]) for column in columns})


def _pool(chunks: list[dict[str, tf.RaggedTensor]], columns: Sequence[str]) -> Pool:
    ids, starts = {}, {}
    for column in columns:
        values = [chunk[f"{column}_ids"] for chunk in chunks]
        ids[column] = np.concatenate([v.values.numpy() for v in values]).astype(np.int32)
        starts[column] = _starts(np.concatenate([v.row_lengths().numpy() for v in values]))
    return Pool(ids, starts)


def _starts(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)])
