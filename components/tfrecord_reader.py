"""The reader of TFRecords of tf.Example, apart from the others because it needs TensorFlow.

Comes in: segments of such files. Goes out: rows, or the reason there is none.
Read next: record_readers.py, the reader of Parquet; layouts.py, which picks a file's reader.
"""

from collections.abc import Iterator
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError

from components.record_readers import record_row
from components.row_readers import Row, RowReader, Scans
from components.text_files import DamagedFileError, Segment, opened
from components.tf_records import read_records


class TFRecordReader(RowReader):
    """Features of tf.Examples; the file is read whole.

    Args:
        features: example column -> feature, one value each.
    """

    def __init__(self, features: dict[str, str]):
        self._features = features

    def read(self, segment: Segment, scans: Scans) -> Iterator[Row]:
        with opened(segment.path) as file:
            try:
                for number, record in enumerate(read_records(file), start=1):
                    yield self._parse(number, record)
            except ValueError as error:
                mend = "fetch or make the file again"
                raise DamagedFileError(f"{segment.path}: cut off or damaged: {error}; {mend}") from error

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
        return record_row(number, cells)
