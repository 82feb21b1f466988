"""Readers of Examples: batches of columns from a shard, with TensorFlow. tf_records.py writes without it."""

from collections.abc import Iterator

import tensorflow as tf

from seq2serve.components.storage.files import local_file

# Large enough that the overhead per call in Beam and TensorFlow is negligible, small enough for memory.
BATCH_ROWS = 1024
_TENSOR_BATCH_ROWS = 4096  # for rows that stay tensors

# Autotuning and graph optimizations of tf.data cost more than they save on shards that are read in a second.
_OPTIONS = tf.data.Options()
_OPTIONS.autotune.enabled = False
_OPTIONS.experimental_optimization.apply_default_optimizations = False

Batch = dict[str, list[list[bytes]]]


def read_batches(path: str, columns: list[str]) -> Iterator[Batch]:
    """Reads a shard of Examples.

    Args:
        path: path or URL of a TFRecord file of tf.Example.
        columns: names of bytes features.
    Yields:
        column -> the values of each row, for up to BATCH_ROWS rows: one value, or none if the row lacks the column.
    """
    features = {column: tf.io.RaggedFeature(tf.string) for column in columns}
    with local_file(path) as file:
        for records in tf.data.TFRecordDataset(file).batch(BATCH_ROWS).with_options(_OPTIONS):
            yield {column: values.to_list() for column, values in tf.io.parse_example(records, features).items()}


def read_texts(path: str, columns: list[str]) -> Iterator[dict[str, tf.Tensor]]:
    """Reads a shard of Examples as tensors, which is twice as fast as `read_batches`.

    Args:
        path: path or URL of a TFRecord file of tf.Example.
        columns: names of bytes features with at most one value.
    Yields:
        column -> tf.string [rows], for up to _TENSOR_BATCH_ROWS rows; empty if a row lacks the column.
    """
    features = {column: tf.io.FixedLenFeature([], tf.string, default_value="") for column in columns}
    with local_file(path) as file:
        for records in tf.data.TFRecordDataset(file).batch(_TENSOR_BATCH_ROWS).with_options(_OPTIONS):
            yield tf.io.parse_example(records, features)
