"""Split-*/ folders of TFRecord shards, read in batches.

Comes in: shards of Examples. Goes out: batches of columns.
Read next: statistics_gen_beam.py and transform_beam.py, whose workers read with these.
"""

from collections.abc import Iterator

import tensorflow as tf

from components.remote_files import fetched_file

# Rows handled at once: many enough that Beam's and TensorFlow's cost a call does not count, few enough for memory.
BATCH_ROWS = 1024
_MANY_ROWS = 4096  # where they are not taken out of TensorFlow

# What tf.data would find out about its own pace costs more than it saves on shards that are read in a second.
_OPTIONS = tf.data.Options()
_OPTIONS.autotune.enabled = False
_OPTIONS.experimental_optimization.apply_default_optimizations = False

Batch = dict[str, list[list[bytes]]]


def read_batches(path: str, columns: list[str]) -> Iterator[Batch]:
    """Reads a shard of Examples.

    Args:
        path: of a TFRecord of tf.Example, or its URL.
        columns: names of bytes features.
    Yields:
        column -> for each of up to BATCH_ROWS rows, its values: one, or none where the row lacks the column.
    """
    features = {column: tf.io.RaggedFeature(tf.string) for column in columns}
    with fetched_file(path) as file:
        for records in tf.data.TFRecordDataset(file).batch(BATCH_ROWS).with_options(_OPTIONS):
            yield {column: values.to_list() for column, values in tf.io.parse_example(records, features).items()}


def read_texts(path: str, columns: list[str]) -> Iterator[dict[str, tf.Tensor]]:
    """Reads a shard of Examples without taking the texts out of TensorFlow, which is twice as fast.

    Args:
        path: of a TFRecord of tf.Example, or its URL.
        columns: names of bytes features, of one value at most.
    Yields:
        column -> tf.string [rows], empty where a row lacks the column; up to _MANY_ROWS rows.
    """
    features = {column: tf.io.FixedLenFeature([], tf.string, default_value="") for column in columns}
    with fetched_file(path) as file:
        for records in tf.data.TFRecordDataset(file).batch(_MANY_ROWS).with_options(_OPTIONS):
            yield tf.io.parse_example(records, features)
