"""Batches of token ids for training: few shapes, little padding, the same order for the same seed.

Comes in: TFRecords of tf.Example with int64 lists `<column>_ids`. Goes out: a tf.data.Dataset of padded batches.
Read next: components/trainer.py, which feeds them to Keras `fit`.

The order is a function of (seed, epoch) alone, so training that was stopped goes on at the exact batch by counting.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import tensorflow as tf

BOS_ID, EOS_ID = 2, 3
POOL_EXAMPLES = 500_000  # how many examples are sorted by length together: bounds memory, about 100 MB
READ_EXAMPLES = 4096  # how many are parsed by one call
SHAPE_MULTIPLE = 2  # lengths are padded up to a multiple of this: half the shapes for one per cent of padding


@dataclasses.dataclass(frozen=True)
class Pool:
    """Examples held in memory: for each column all ids in one array, and where each example starts.

    Args:
        ids: column -> int32 [total tokens].
        starts: column -> int64 [examples + 1].
    """

    ids: dict[str, np.ndarray]
    starts: dict[str, np.ndarray]

    def lengths(self, column: str) -> np.ndarray:
        """Returns the number of tokens of each example, int64 [examples]."""
        return np.diff(self.starts[column])

    def rows(self, column: str, examples: np.ndarray) -> list[np.ndarray]:
        """Returns the ids of some examples."""
        ids, starts = self.ids[column], self.starts[column]
        return [ids[starts[i] : starts[i + 1]] for i in examples]


def read_pools(files: Sequence[str], columns: Sequence[str]) -> Iterator[Pool]:
    """Reads TFRecords into pools of POOL_EXAMPLES.

    Args:
        files: paths, read in this order.
        columns: names without `_ids`.
    Returns:
        An iterator of pools; the last may be smaller.
    """
    features = {f"{c}_ids": tf.io.RaggedFeature(tf.int64, row_splits_dtype=tf.int64) for c in columns}
    records = tf.data.TFRecordDataset(list(files)).batch(READ_EXAMPLES)
    parsed = records.map(lambda batch: tf.io.parse_example(batch, features), num_parallel_calls=2).prefetch(2)
    chunks: list[dict] = []
    for chunk in parsed:
        chunks.append(chunk)
        if len(chunks) * READ_EXAMPLES >= POOL_EXAMPLES:
            yield _pool(chunks, columns)
            chunks = []
    if chunks:
        yield _pool(chunks, columns)


def _pool(chunks: list[dict], columns: Sequence[str]) -> Pool:
    ids, starts = {}, {}
    for column in columns:
        values = [chunk[f"{column}_ids"] for chunk in chunks]
        ids[column] = np.concatenate([v.values.numpy() for v in values]).astype(np.int32)
        lengths = np.concatenate([v.row_lengths().numpy() for v in values])
        starts[column] = np.concatenate([[0], np.cumsum(lengths)])
    return Pool(ids, starts)


def plan_batches(source: np.ndarray, target: np.ndarray, batch_tokens: int, rng: np.random.Generator) -> list:
    """Puts examples of like length together until a batch's padded tokens reach the budget.

    Args:
        source, target: tokens of each example, int [examples].
        batch_tokens: most target (and most source) tokens of a batch, padding included; one example may exceed it.
        rng: decides which of the equally long examples meet, and the order of the batches.
    Returns:
        A list of int arrays: the examples of each batch.
    """
    order = rng.permutation(len(target))
    order = order[np.lexsort((source[order], target[order]))]
    longest = _padded(np.maximum(source, target)[order] + 1)  # with the end marker
    batches, first, width = [], 0, 0
    for i, length in enumerate(longest):
        width = max(width, int(length))
        if i > first and (i + 1 - first) * width > batch_tokens:
            batches.append(order[first:i])
            first, width = i, int(length)
    batches.append(order[first:])
    rng.shuffle(batches)
    return batches


def pad(rows: list[np.ndarray], before: Sequence[int] = (), after: Sequence[int] = ()) -> np.ndarray:
    """Pads rows of ids with 0 to one length, with markers before and after each: int32 [B, length]."""
    extra = len(before) + len(after)
    batch = np.zeros((len(rows), _padded(max(len(row) for row in rows) + extra)), np.int32)
    for line, row in zip(batch, rows, strict=True):
        line[: len(row) + extra] = np.concatenate([before, row, after])
    return batch


def _padded(length):
    """Returns the next multiple of SHAPE_MULTIPLE, for a number or an array."""
    return -(-length // SHAPE_MULTIPLE) * SHAPE_MULTIPLE


def pair_batches(files: Sequence[str], batch_tokens: int, seed: int, start: int = 0) -> tf.data.Dataset:
    """Makes endless training batches of pairs for a Transformer.

    Args:
        files: TFRecords with `source_ids` and `target_ids`.
        batch_tokens: see `plan_batches`.
        seed: of the order; each epoch has an order of its own.
        start: how many batches to leave out, to go on where an earlier run stopped.
    Returns:
        A dataset of ({"source" [B, S], "target" [B, T]}, labels [B, T]), int32: source with an end marker, target with
        a begin marker, labels with an end marker.
    """
    spec = tf.TensorSpec([None, None], tf.int32)
    signature = ({"source": spec, "target": spec}, spec)
    dataset = tf.data.Dataset.from_generator(
        lambda: _pair_batches(files, batch_tokens, seed, start), output_signature=signature
    )
    return dataset.prefetch(8)


def _pair_batches(files, batch_tokens, seed, start) -> Iterator[tuple]:
    for epoch, pools in enumerate(_epochs(files, ("source", "target"))):
        for number, pool in enumerate(pools):
            rng = np.random.default_rng([seed, epoch, number])
            batches = plan_batches(pool.lengths("source"), pool.lengths("target"), batch_tokens, rng)
            for examples in batches[start:]:
                yield _pair_batch(pool, examples)
            start = max(0, start - len(batches))


def _epochs(files: Sequence[str], columns: Sequence[str]) -> Iterator[Iterable[Pool]]:
    """Yields the pools of each epoch without end; a corpus of one pool is read once and kept."""
    first = list(itertools.islice(read_pools(files, columns), 2))
    if not first:
        raise ValueError(f"there are no examples in {', '.join(files)}")
    while True:
        yield first if len(first) == 1 else read_pools(files, columns)


def _pair_batch(pool: Pool, examples: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    target = pool.rows("target", examples)
    source = pad(pool.rows("source", examples), after=[EOS_ID])
    return {"source": source, "target": pad(target, before=[BOS_ID])}, pad(target, after=[EOS_ID])
