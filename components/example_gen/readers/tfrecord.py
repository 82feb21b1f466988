"""The reader of TFRecords of tf.Example; a module of its own because it imports TensorFlow."""

from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError

from seq2serve.components.base.errors import UserError
from seq2serve.components.example_gen.config import InputConfig
from seq2serve.components.example_gen.formats import compression
from seq2serve.components.example_gen.readers.base import Row, RowReader, Rows, Scans
from seq2serve.components.example_gen.readers.parquet import record_row
from seq2serve.components.example_gen.text_files import Segment, TextFile, errors_as_damage, open_decompressed
from seq2serve.components.storage.tf_records import read_records


class TFRecordReader(RowReader):
    """Features of tf.Examples. The file is not cut into segments.

    Args:
        features: example column -> feature, which has one value.
        optional: the columns that may be empty.
    """

    is_cut = False

    def __init__(self, features: dict[str, str], optional: tuple[str, ...] = ()):
        self._features = features
        self._optional = optional

    def read(self, segment: Segment, scans: Scans) -> Rows:
        with open_decompressed(segment.path) as file, errors_as_damage(segment.path, ValueError):
            for number, record in enumerate(read_records(file), start=1):
                yield self._parse(number, record)

    def _parse(self, number: int, record: bytes) -> Row:
        try:
            features = tf.train.Example.FromString(record).features.feature
        except DecodeError:
            return Row(number, record, {}, "not a tf.Example")
        cells: dict[str, Any] = {}
        for column, name in self._features.items():
            kind = features[name].WhichOneof("kind") if name in features else None
            values = getattr(features[name], kind).value if kind else []
            if len(values) > 1:
                return Row(number, record, {}, f"feature {name!r} has several values")
            cells[column] = values[0] if values else None
        return record_row(number, cells, self._optional)


def make_reader(file: TextFile, columns: dict[str, str], input_config: InputConfig) -> TFRecordReader:
    """Returns the reader of a file.

    Raises:
        UserError: the file has a compression that TFRecords do not have.
    """
    path = file.path
    if compression(path) not in ("", "gzip"):
        raise UserError(
            f"{path}: TFRecords may be compressed only with gzip (.gz); unpack the file",
            code="compression-unsupported",
            path=path,
        )
    return TFRecordReader(columns, input_config.optional)
