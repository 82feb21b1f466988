"""The reader of Parquet files, and what every reader of records, not lines, needs.

Comes in: segments of such files. Goes out: rows, or the reason there is none.
Read next: tfrecord_reader.py, the other reader of records; layouts.py, which picks a file's reader.
"""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pyarrow
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from pyarrow import compute, parquet

from components.row_readers import RejectedRowError, Row, RowReader, Scans, as_text, checked
from components.text_files import DamagedFileError, Segment

_BATCH_ROWS = 1024


class ParquetReader(RowReader):
    """Columns of a Parquet file (https://parquet.apache.org); a row group belongs to the segment that it begins in.

    Args:
        columns: example column -> the file's, or the path to a field of nested ones, joined by dots.
    """

    def __init__(self, columns: dict[str, str]):
        self._columns = columns

    def read(self, segment: Segment, scans: Scans) -> Iterator[Row]:
        with open_parquet(segment.path) as file:
            number = 0
            for group in range(file.num_row_groups):
                metadata = file.metadata.row_group(group)
                if _begins_in(segment, metadata):
                    yield from self._read_group(file, group, number, segment.path)
                number += metadata.num_rows

    def _read_group(self, file: parquet.ParquetFile, group: int, number: int, path: str) -> Iterator[Row]:
        wanted = list(self._columns.values())
        try:
            for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=wanted):
                values = [_field(batch, name).to_pylist() for name in wanted]
                for row in zip(*values, strict=True):
                    number += 1
                    yield record_row(number, dict(zip(self._columns, row, strict=True)))
        except (OSError, pyarrow.ArrowException) as error:
            raise DamagedFileError(f"{path}: cut off or damaged: {error}; fetch or make the file again") from error


@contextlib.contextmanager
def open_parquet(path: str) -> Iterator[parquet.ParquetFile]:
    """Opens a Parquet file on any of Beam's file systems.

    Raises:
        DamagedFileError: it is none.
    """
    with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        try:
            opened = parquet.ParquetFile(pyarrow.PythonFile(file, mode="r"))
        except (OSError, pyarrow.ArrowException) as error:
            raise DamagedFileError(f"{path}: not a Parquet file, or cut off: {error}") from error
        yield opened


def parquet_columns(schema: pyarrow.Schema) -> dict[str, pyarrow.DataType]:
    """Returns the type of each column, and of each field of nested ones by its path."""
    found: dict[str, pyarrow.DataType] = {}
    waiting = [(field.name, field.type) for field in schema]
    while waiting:
        name, kind = waiting.pop(0)
        found[name] = kind
        if pyarrow.types.is_struct(kind):
            waiting += [(f"{name}.{field.name}", field.type) for field in kind]
    return found


def _begins_in(segment: Segment, group: parquet.RowGroupMetaData) -> bool:
    column = group.column(0)
    offset = min(column.data_page_offset, column.dictionary_page_offset or column.data_page_offset)
    return segment.start <= offset and (segment.end is None or offset < segment.end)


def _field(batch: pyarrow.RecordBatch, name: str) -> pyarrow.Array:
    if name in batch.schema.names:
        return batch.column(name)
    top, *path = name.split(".")
    return compute.struct_field(batch.column(top), path)


def record_row(number: int, values: dict[str, Any]) -> Row:
    """Returns the row of a record: example column -> its value, of any type."""
    try:
        return Row(number, b"", checked({column: as_text(value, column) for column, value in values.items()}), "")
    except RejectedRowError as error:
        return Row(
            number, json.dumps(values, ensure_ascii=False, default=repr).encode(errors="replace"), {}, str(error)
        )
