"""The reader of Parquet files, and the conversion of records to rows that TFRecords share."""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pyarrow
from apache_beam.io.filesystem import BeamIOError
from pyarrow import compute, parquet

from seq2serve.components.base.errors import UserError
from seq2serve.components.example_gen.config import InputConfig
from seq2serve.components.example_gen.formats import compression
from seq2serve.components.example_gen.readers.base import (
    RejectedRowError,
    Row,
    RowReader,
    Rows,
    Scans,
    as_text,
    require_text,
)
from seq2serve.components.example_gen.readers.layout import column_missing, find_name
from seq2serve.components.example_gen.text_files import DamagedFileError, Segment, TextFile, errors_as_damage
from seq2serve.components.storage.beam_files import open_file

_BATCH_ROWS = 1024
_TEXT_TYPES = tuple(
    getattr(pyarrow.types, f"is_{kind}")
    for kind in ("string", "large_string", "string_view", "binary", "large_binary", "integer", "floating", "boolean")
)


class ParquetReader(RowReader):
    """Columns of a Parquet file (https://parquet.apache.org); a row group belongs to the segment in which it begins.

    Args:
        columns: example column -> column of the file, or the dotted path of a nested field.
        optional: the columns that may be empty.
    """

    def __init__(self, columns: dict[str, str], optional: tuple[str, ...] = ()):
        self._columns = columns
        self._optional = optional

    def read(self, segment: Segment, scans: Scans) -> Rows:
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
        with errors_as_damage(path, OSError, pyarrow.ArrowException):
            for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=names):
                values = [_field(batch, name).to_pylist() for name in names]
                for row in zip(*values, strict=True):
                    number += 1
                    yield record_row(number, dict(zip(self._columns, row, strict=True)), self._optional)


@contextlib.contextmanager
def open_parquet(path: str) -> Iterator[parquet.ParquetFile]:
    """Opens a Parquet file on any of Beam's file systems.

    Raises:
        DamagedFileError: the file is not in this format.
    """
    with open_file(path) as file:
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


def record_row(number: int, values: dict[str, Any], optional: tuple[str, ...] = ()) -> Row:
    """Returns the row of a record: example column -> value of any type. `optional` columns may have none."""
    try:
        texts = {
            column: "" if value is None and column in optional else as_text(value, column)
            for column, value in values.items()
        }
        return Row(number, b"", require_text(texts, optional), "")
    except RejectedRowError as error:
        raw = json.dumps(values, ensure_ascii=False, default=repr).encode(errors="replace")
        return Row(number, raw, {}, str(error))


def make_reader(file: TextFile, columns: dict[str, str], input_config: InputConfig) -> ParquetReader:
    """Returns the reader of a file.

    Raises:
        UserError: the file cannot be read, a column is missing, or its values cannot become text.
    """
    path = file.path
    if compression(path):
        raise UserError(
            f"{path}: Parquet has its own compression; unpack the file", code="compression-unsupported", path=path
        )
    try:
        with open_parquet(path) as parquet_file:
            types = parquet_columns(parquet_file.schema_arrow)
    except (OSError, BeamIOError) as error:
        raise UserError(f"cannot read {path}: {error}", code="file-unreadable", path=path) from error
    columns = {column: _name_in_file(name, list(types)) for column, name in columns.items()}
    for column, name in columns.items():
        if name not in types:
            raise column_missing(path, name, column, types, path=path)
        value_type = types[name].value_type if pyarrow.types.is_dictionary(types[name]) else types[name]
        if not any(is_text_type(value_type) for is_text_type in _TEXT_TYPES):
            raise UserError(
                f"{path}: column {name!r} has type {value_type}, not text, number or boolean; name another with "
                f"--{column}",
                code="column-type-unsupported",
                path=path,
                column=name,
                type=str(value_type),
            )
    return ParquetReader(columns, input_config.optional)


def _name_in_file(name: str, names: list[str]) -> str:
    """Returns a name as it is in the file, where spaces may be around it."""
    positions = find_name(names, name)
    return names[positions[0]] if len(positions) == 1 else name
