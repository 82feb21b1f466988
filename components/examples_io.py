"""Split-*/ folders of TFRecord shards, read in batches.

Comes in: Examples (or TransformedExamples). Goes out: paths of shards, batches of columns.
Read next: statistics_gen_beam.py and transform_beam.py, whose workers read with these.
"""

from collections.abc import Iterator

import tensorflow as tf

from components.artifact import Artifact
from components.errors import UserError

# Rows handled at once: many enough that Beam's and TensorFlow's cost a call does not count, few enough for memory.
BATCH_ROWS = 1024

Batch = dict[str, list[list[bytes]]]


def shard_paths(artifact: Artifact, split: str) -> list[str]:
    """Returns the paths of a split's shards, in order.

    Raises:
        UserError: the split has none.
    """
    paths = sorted(tf.io.gfile.glob(artifact.path(f"Split-{split}", "*-of-*")))
    if not paths:
        raise UserError(f"{artifact.path(f'Split-{split}')}: no examples are there; run the pipeline again")
    return paths


def read_batches(path: str, columns: list[str]) -> Iterator[Batch]:
    """Reads a shard of Examples.

    Args:
        path: a TFRecord of tf.Example.
        columns: names of bytes features.
    Yields:
        column -> for each of up to BATCH_ROWS rows, its values: one, or none where the row lacks the column.
    """
    features = {column: tf.io.RaggedFeature(tf.string) for column in columns}
    for records in tf.data.TFRecordDataset(path).batch(BATCH_ROWS):
        yield {column: values.to_list() for column, values in tf.io.parse_example(records, features).items()}


def read_texts(path: str, columns: list[str]) -> Iterator[dict[str, tf.Tensor]]:
    """Reads a shard of Examples without taking the texts out of TensorFlow, which is twice as fast.

    Args:
        path: a TFRecord of tf.Example.
        columns: names of bytes features, of one value at most.
    Yields:
        column -> tf.string [rows], empty where a row lacks the column; up to BATCH_ROWS rows.
    """
    features = {column: tf.io.FixedLenFeature([], tf.string, default_value="") for column in columns}
    for records in tf.data.TFRecordDataset(path).batch(BATCH_ROWS):
        yield tf.io.parse_example(records, features)
