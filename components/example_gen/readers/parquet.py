"""The reader of Parquet files, and the conversion of records to rows that TFRecords share."""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pyarrow
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from pyarrow import compute, parquet

from seq2serve.components.example_gen.readers.base import RejectedRowError, Row, RowReader, Scans, as_text, require_text
from seq2serve.components.example_gen.text_files import DamagedFileError, Segment

_BATCH_ROWS = 1024


class ParquetReader(RowReader):
    """Columns of a Parquet file (https://parquet.apache.org); a row group belongs to the segment in which it begins.

    Args:
        columns: example column -> column of the file, or the dotted path of a nested field.
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
        """Yields the rows of a row group; `number` is the number of rows before it."""
        names = list(self._columns.values())
        try:
            for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=names):
                values = [_field(batch, name).to_pylist() for name in names]
                for row in zip(*values, strict=True):
                    number += 1
                    yield record_row(number, dict(zip(self._columns, row, strict=True)))
        except (OSError, pyarrow.ArrowException) as error:
            raise DamagedFileError(
                f"{path}: truncated or corrupt: {error}; download or create the file again", path=path
            ) from error


@contextlib.contextmanager
def open_parquet(path: str) -> Iterator[parquet.ParquetFile]:
    """Opens a Parquet file on any of Beam's file systems.

    Raises:
        DamagedFileError: the file is not in this format.
    """
    with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        try:
            parquet_file = parquet.ParquetFile(pyarrow.PythonFile(file, mode="r"))
        except (OSError, pyarrow.ArrowException) as error:
            raise DamagedFileError(f"{path}: not a Parquet file, or truncated: {error}", path=path) from error
        yield parquet_file


def parquet_columns(schema: pyarrow.Schema) -> dict[str, pyarrow.DataType]:
    """Returns name -> type of all columns, and dotted path -> type of all nested fields."""
    types: dict[str, pyarrow.DataType] = {}
    queue = [(field.name, field.type) for field in schema]
    while queue:
        name, data_type = queue.pop(0)
        types[name] = data_type
        if pyarrow.types.is_struct(data_type):
            queue += [(f"{name}.{field.name}", field.type) for field in data_type]
    return types


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
    """Returns the row of a record: example column -> value of any type."""
    try:
        return Row(number, b"", require_text({column: as_text(value, column) for column, value in values.items()}), "")
    except RejectedRowError as error:
        raw = json.dumps(values, ensure_ascii=False, default=repr).encode(errors="replace")
        return Row(number, raw, {}, str(error))
