"""Batches of token ids for training: few shapes, little padding, and a deterministic order.

The order depends only on (seed, epoch), so interrupted training resumes at the exact batch by counting batches.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import tensorflow as tf

from seq2serve.models.tokenizers.base import BOS_ID, EOS_ID, PAD_ID, UNK_ID
from seq2serve.models.training.mixture import mixed_epochs
from seq2serve.models.training.pools import Pool, read_pools

SHAPE_MULTIPLE = 2  # lengths are padded to a multiple of this: half as many shapes for 1 % more padding

_Length = TypeVar("_Length", int, np.ndarray)


class BatchSpec(NamedTuple):
    """Which examples become batches, and in which order.

    Args:
        files: TFRecords with the ids of each column.
        batch_tokens: maximum number of tokens in a batch; see `plan_batches` and `packed_batches`.
        seed: seed of the order, which differs between epochs.
        start: number of batches to skip, to resume where an earlier run stopped.
        epochs: number of passes over the examples; None repeats forever.
        weights: of each corpus, to draw examples by weight (see mixture.py); empty to draw each once per epoch.
    """

    files: Sequence[str]
    batch_tokens: int
    seed: int
    start: int = 0
    epochs: int | None = None
    weights: Sequence[float] = ()


class Plan(NamedTuple):
    """The batches of a pool.

    Args:
        num_batches: number of batches.
        make: index of a batch -> the batch.
    """

    num_batches: int
    make: Callable[[int], Any]


def plan_batches(
    source: np.ndarray, target: np.ndarray, batch_tokens: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Groups examples of similar length until a batch reaches its budget of tokens.

    Args:
        source, target: number of tokens in each example, int [examples].
        batch_tokens: maximum number of target tokens (and of source tokens) in a batch, including padding. A batch of
            one example may exceed it.
        rng: shuffles examples of equal length, and the batches.
    Returns:
        A list of int arrays: the examples of each batch.
    """
    order = rng.permutation(len(target))
    # Sort by padded target length. Within one target length sort by source length, alternately up and down, so that a
    # batch that extends into the next target length continues with similar sources.
    width = _padded(target[order] + 1)
    zigzag = np.where(width // SHAPE_MULTIPLE % 2, source[order], -source[order])
    order = order[np.lexsort((zigzag, width))]
    longest = _padded(np.maximum(source, target)[order] + 1)  # with the end marker
    batches, first, batch_width = [], 0, 0
    for i, length in enumerate(longest):
        batch_width = max(batch_width, int(length))
        if i > first and (i + 1 - first) * batch_width > batch_tokens:
            batches.append(order[first:i])
            first, batch_width = i, int(length)
    batches.append(order[first:])
    rng.shuffle(batches)
    return batches


def pad(rows: list[np.ndarray], before: Sequence[int] = (), after: Sequence[int] = ()) -> np.ndarray:
    """Pads rows of ids with 0 to the same length.

    Args:
        rows: ids, int [length] each.
        before, after: markers that are added at the beginning and at the end of each row.
    Returns:
        int32 [B, longest length with markers].
    """
    extra = len(before) + len(after)
    batch = np.zeros((len(rows), _padded(max(len(row) for row in rows) + extra)), np.int32)
    for line, row in zip(batch, rows, strict=True):
        line[: len(row) + extra] = np.concatenate([before, row, after])
    return batch


def _padded(length: _Length) -> _Length:
    """Rounds up to a multiple of SHAPE_MULTIPLE."""
    return -(-length // SHAPE_MULTIPLE) * SHAPE_MULTIPLE


def pair_batches(spec: BatchSpec) -> tf.data.Dataset:
    """Makes training batches of pairs for a Transformer.

    Args:
        spec: its files have `source_ids` and `target_ids`.
    Returns:
        A dataset of ({"source" [B, S], "target" [B, T]}, labels [B, T]), int32. The source has an end marker, the
        target a begin marker, and the labels an end marker.
    """

    def plan(pool: Pool, rng: np.random.Generator, epoch: int) -> Plan:
        batches = plan_batches(pool.lengths("source"), pool.lengths("target"), spec.batch_tokens, rng)
        return Plan(len(batches), lambda index: _pair_batch(pool, batches[index]))

    ids = tf.TensorSpec([None, None], tf.int32)
    return _dataset(spec, ("source", "target"), plan, ({"source": ids, "target": ids}, ids))


def class_batches(spec: BatchSpec, token_dropout: float = 0.0) -> tf.data.Dataset:
    """Makes training batches of labelled texts for an EncoderClassifier.

    Args:
        spec: its files have `text_ids` and `label_ids`, one label per row.
        token_dropout: share of a text's tokens that are replaced by `<unk>`, drawn again in each epoch (word dropout,
            Iyyer et al. 2015). It keeps a classifier from memorising the texts of a small corpus by a word or two.
    Returns:
        A dataset of (text [B, S] with an end marker, label [B]), int32.
    """

    def plan(pool: Pool, rng: np.random.Generator, epoch: int) -> Plan:
        lengths = pool.lengths("text")
        batches = plan_batches(lengths, lengths, spec.batch_tokens, rng)
        first_seed = int(rng.integers(2**31))
        return Plan(len(batches), lambda index: class_batch(pool, batches[index], first_seed + index))

    def class_batch(pool: Pool, examples: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        text = pad(pool.rows("text", examples), after=[EOS_ID])
        dropped = np.random.default_rng(seed).random(text.shape) < token_dropout
        text[dropped & (text != PAD_ID) & (text != EOS_ID)] = UNK_ID
        return text, np.concatenate(pool.rows("label", examples))

    signature = (tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None], tf.int32))
    return _dataset(spec, ("text", "label"), plan, signature)


def packed_batches(spec: BatchSpec, context: int) -> tf.data.Dataset:
    """Makes training batches for a DecoderLanguageModel: documents are concatenated and cut into full rows.

    A row may hold several documents or a part of a long one. Each document begins with a begin marker, which the model
    uses to hide the documents before it.

    Args:
        spec: its files have `text_ids`, one document per row; weights count documents.
        context: T, number of tokens in a row. Only the last row of an epoch is padded.
    Returns:
        A dataset of (text [B, T], labels [B, T]), int32. A label is the next token, end markers included; begin markers
        are not predicted.
    """
    size = max(1, spec.batch_tokens // context)

    def plan(pool: Pool, rng: np.random.Generator, epoch: int) -> Plan:
        text, labels = pack(pool, rng, context, skip=int(rng.integers(context)) if epoch else 0)
        order = rng.permutation(len(text))
        batches = [order[first : first + size] for first in range(0, len(order), size)]
        return Plan(len(batches), lambda index: (text[batches[index]], labels[batches[index]]))

    ids = tf.TensorSpec([None, context], tf.int32)
    return _dataset(spec, ("text",), plan, (ids, ids))


def pack(pool: Pool, rng: np.random.Generator, context: int, skip: int) -> tuple[np.ndarray, np.ndarray]:
    """Concatenates documents in random order and cuts them into rows.

    Args:
        pool: has the column `text`.
        rng: decides the order.
        context: number of tokens in a row.
        skip: number of tokens to drop at the beginning, so that rows are cut at different positions in each epoch.
    Returns:
        Rows and the labels of their tokens, each int32 [rows, context].
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


def _dataset(
    spec: BatchSpec,
    columns: Sequence[str],
    plan: Callable[[Pool, np.random.Generator, int], Plan],
    signature: Any,
) -> tf.data.Dataset:
    """Makes a dataset of planned batches. Skipping the first `start` batches costs no more than planning them."""

    def batches() -> Iterator[Any]:
        to_skip = spec.start
        for epoch, pools in enumerate(_epochs(spec, columns)):
            for number, pool in enumerate(pools):
                planned = plan(pool, np.random.default_rng([spec.seed, epoch, number]), epoch)
                yield from map(planned.make, range(to_skip, planned.num_batches))
                to_skip = max(0, to_skip - planned.num_batches)

    return tf.data.Dataset.from_generator(batches, output_signature=signature).prefetch(8)


def _epochs(spec: BatchSpec, columns: Sequence[str]) -> Iterator[Iterable[Pool]]:
    """Yields the pools of each epoch. A corpus of one pool is read once and stays in memory."""
    if spec.weights:
        yield from itertools.islice(mixed_epochs(spec.files, columns, spec.weights, spec.seed), spec.epochs)
        return
    first_pools = list(itertools.islice(read_pools(spec.files, columns), 2))
    if not first_pools:
        raise ValueError(f"there are no examples in {', '.join(spec.files)}")
    for _ in itertools.count() if spec.epochs is None else range(spec.epochs):
        yield first_pools if len(first_pools) == 1 else read_pools(spec.files, columns)


def _pair_batch(pool: Pool, examples: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    target = pool.rows("target", examples)
    source = pad(pool.rows("source", examples), after=[EOS_ID])
    return {"source": source, "target": pad(target, before=[BOS_ID])}, pad(target, after=[EOS_ID])
