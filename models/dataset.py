"""Batches of token ids for training: few shapes, little padding, the same order for the same seed.

Comes in: TFRecords of tf.Example with int64 lists `<column>_ids`. Goes out: a tf.data.Dataset of padded batches.
Read next: components/trainer.py, which feeds them to Keras `fit`.

The order is a function of (seed, epoch) alone, so training that was stopped goes on at the exact batch by counting.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

PAD_ID, UNK_ID, BOS_ID, EOS_ID = 0, 1, 2, 3
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
    # By target, and where those are padded to one length by source, up and down in turn: a batch that goes on with the
    # next length then goes on with like sources.
    width = _padded(target[order] + 1)
    turned = np.where(width // SHAPE_MULTIPLE % 2, source[order], -source[order])
    order = order[np.lexsort((turned, width))]
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


def pair_batches(
    files: Sequence[str], batch_tokens: int, seed: int, start: int = 0, epochs: int | None = None
) -> tf.data.Dataset:
    """Makes training batches of pairs for a Transformer.

    Args:
        files: TFRecords with `source_ids` and `target_ids`.
        batch_tokens: see `plan_batches`.
        seed: of the order; each epoch has an order of its own.
        start: how many batches to leave out, to go on where an earlier run stopped.
        epochs: how often to go through the examples; None for no end.
    Returns:
        A dataset of ({"source" [B, S], "target" [B, T]}, labels [B, T]), int32: source with an end marker, target with
        a begin marker, labels with an end marker.
    """

    def plan(pool: Pool, rng: np.random.Generator, epoch: int) -> Plan:
        batches = plan_batches(pool.lengths("source"), pool.lengths("target"), batch_tokens, rng)
        return Plan(len(batches), lambda number: _pair_batch(pool, batches[number]))

    ids = tf.TensorSpec([None, None], tf.int32)
    epochs_of_pools = _epochs(files, ("source", "target"), epochs)
    return _dataset(epochs_of_pools, plan, seed, start, ({"source": ids, "target": ids}, ids))


def class_batches(
    files: Sequence[str],
    batch_tokens: int,
    seed: int,
    start: int = 0,
    epochs: int | None = None,
    token_dropout: float = 0.0,
) -> tf.data.Dataset:
    """Makes training batches of labelled texts for an EncoderClassifier.

    Args:
        files: TFRecords with `text_ids` and `label_ids`, the latter one number a row.
        batch_tokens, seed, start, epochs: as for `pair_batches`.
        token_dropout: share of a text's tokens that are made unknown, others in each epoch: a classifier that sees a
            small corpus often must not know its texts by a word or two (word dropout, Iyyer et al. 2015).
    Returns:
        A dataset of (text [B, S] with an end marker, label [B]), int32.
    """

    def plan(pool: Pool, rng: np.random.Generator, epoch: int) -> Plan:
        lengths = pool.lengths("text")
        batches = plan_batches(lengths, lengths, batch_tokens, rng)
        first = int(rng.integers(2**31))
        return Plan(len(batches), lambda number: class_batch(pool, batches[number], first + number))

    def class_batch(pool: Pool, examples: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        text = pad(pool.rows("text", examples), after=[EOS_ID])
        dropped = np.random.default_rng(seed).random(text.shape) < token_dropout
        text[dropped & (text != PAD_ID) & (text != EOS_ID)] = UNK_ID
        return text, np.concatenate(pool.rows("label", examples))

    signature = (tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None], tf.int32))
    return _dataset(_epochs(files, ("text", "label"), epochs), plan, seed, start, signature)


def packed_batches(
    files: Sequence[str], context: int, batch_tokens: int, seed: int, start: int = 0, epochs: int | None = None
) -> tf.data.Dataset:
    """Makes training batches for a DecoderLanguageModel: documents one after the other, cut into full rows.

    A row holds the end of one document and the beginning of the next, or a part of a long one. Where a document begins
    there is a begin marker, which `DecoderLanguageModel` takes as the bound of what may be seen.

    Args:
        files: TFRecords with `text_ids`, a document each.
        context: T, tokens of a row; only the last row of an epoch is padded.
        batch_tokens: tokens of a batch.
        seed, start, epochs: as for `pair_batches`.
    Returns:
        A dataset of (text [B, T], labels [B, T]), int32: the labels are the next tokens, end markers among them; a
        begin marker is not to be predicted.
    """
    size = max(1, batch_tokens // context)

    def plan(pool: Pool, rng: np.random.Generator, epoch: int) -> Plan:
        text, labels = pack(pool, rng, context, skip=int(rng.integers(context)) if epoch else 0)
        order = rng.permutation(len(text))
        batches = [order[first : first + size] for first in range(0, len(order), size)]
        return Plan(len(batches), lambda number: (text[batches[number]], labels[batches[number]]))

    ids = tf.TensorSpec([None, context], tf.int32)
    return _dataset(_epochs(files, ("text",), epochs), plan, seed, start, (ids, ids))


def pack(pool: Pool, rng: np.random.Generator, context: int, skip: int) -> tuple[np.ndarray, np.ndarray]:
    """Puts documents, in random order, one after the other and cuts them into rows.

    Args:
        pool: with the column `text`.
        rng: decides the order.
        context: tokens of a row.
        skip: tokens that are left out at the beginning, so that rows are cut elsewhere in each epoch.
    Returns:
        Rows and what comes after each of their tokens, int32 [rows, context].
    """
    documents = pool.rows("text", rng.permutation(len(pool.lengths("text"))))
    parts = [part for ids in documents for part in ((BOS_ID,), ids, (EOS_ID,))]
    stream = np.concatenate(parts, dtype=np.int32)
    stream = stream[min(skip, len(stream) - 2) :]
    rows = np.zeros((2, -(-(len(stream) - 1) // context) * context), np.int32)
    rows[0, : len(stream) - 1], rows[1, : len(stream) - 1] = stream[:-1], stream[1:]
    rows[1, rows[1] == BOS_ID] = PAD_ID
    text, labels = rows.reshape(2, -1, context)
    return text, labels


class Plan(NamedTuple):
    """The batches of a pool. `make`: number of a batch -> the batch."""

    num_batches: int
    make: Callable[[int], Any]


def _dataset(
    epochs: Callable[[], Iterable[Iterable[Pool]]],
    plan: Callable[[Pool, np.random.Generator, int], Plan],
    seed: int,
    start: int,
    signature: Any,
) -> tf.data.Dataset:
    """Makes a dataset of planned batches; to leave out the first `start` costs no more than to plan them."""

    def batches() -> Iterator[Any]:
        left_out = start
        for epoch, pools in enumerate(epochs()):
            for number, pool in enumerate(pools):
                planned = plan(pool, np.random.default_rng([seed, epoch, number]), epoch)
                yield from map(planned.make, range(left_out, planned.num_batches))
                left_out = max(0, left_out - planned.num_batches)

    return tf.data.Dataset.from_generator(batches, output_signature=signature).prefetch(8)


def _epochs(files: Sequence[str], columns: Sequence[str], epochs: int | None) -> Callable[[], Iterator[Iterable[Pool]]]:
    """Returns a function that yields the pools of each epoch; a corpus of one pool is read once and kept."""

    def read() -> Iterator[Iterable[Pool]]:
        first = list(itertools.islice(read_pools(files, columns), 2))
        if not first:
            raise ValueError(f"there are no examples in {', '.join(files)}")
        for _ in itertools.count() if epochs is None else range(epochs):
            yield first if len(first) == 1 else read_pools(files, columns)

    return read


def _pair_batch(pool: Pool, examples: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    target = pool.rows("target", examples)
    source = pad(pool.rows("source", examples), after=[EOS_ID])
    return {"source": source, "target": pad(target, before=[BOS_ID])}, pad(target, after=[EOS_ID])
