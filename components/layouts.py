"""Tables: the user's files with the reader that suits each, its header looked up.

Comes in: files, grouped. Goes out: Tables, whose shards ExampleGen's workers read.
Read next: row_readers.py, the readers; example_gen.py, which puts the two together.
"""

import dataclasses
import difflib
import itertools

import pyarrow
from apache_beam.io.filesystem import BeamIOError

from components.csv_reader import MAX_HEADER_LINES, CsvReader, csv_header
from components.errors import UserError
from components.file_formats import Reading, compression, file_format, not_text, not_utf8
from components.parallel_reader import ParallelReader
from components.record_readers import ParquetReader, open_parquet, parquet_columns
from components.row_readers import (
    BYTE_ORDER_MARK,
    FileReader,
    JsonReader,
    Layout,
    ParagraphReader,
    RowReader,
    TextReader,
    TsvReader,
)
from components.text_files import DamagedFileError, TextFile, plan_shards, read_beginning, read_first_lines

_CSV_DELIMITERS = (",", ";", "\t", "|")
_SHOWN_NAMES, _SHOWN_CHARACTERS = 30, 60
_TEXT_TYPES = tuple(
    getattr(pyarrow.types, f"is_{kind}")
    for kind in ("string", "large_string", "string_view", "binary", "large_binary", "integer", "floating", "boolean")
)
_TEXT_READERS = {"line": TextReader, "paragraph": ParagraphReader, "file": FileReader}


@dataclasses.dataclass(frozen=True)
class Table:
    """A file of rows, or parallel files.

    Args:
        file: the file whose segments are read; of parallel files the first.
        split: where all rows go; empty for a hash to decide, as it does for training files, which give what no files
            were given for.
        reader: makes rows of the segments.
    """

    file: TextFile
    split: str
    reader: RowReader


def make_table(group: tuple[dict, ...], columns: dict[str, str], reading: Reading, shard_bytes: int) -> Table:
    """Finds out how a file, or a group of parallel files, is read.

    Args:
        group: of `file_formats.group_files`.
        columns: example column -> the file's column: a name, or where the files have no header a number from 1.
        reading: how files are read.
        shard_bytes: the size of the pieces that parallel files are cut into.
    Raises:
        UserError: a column is missing, or the file cannot be read or is no text.
    """
    path, size, split = group[0]["path"], group[0]["bytes"], group[0].get("split", "").replace("train", "")
    for file in group:
        if problem := not_text(read_beginning(file["path"], 4)):
            raise UserError(f"{file['path']}: {problem}")
    if group[0].get("column"):
        files = [TextFile(f["path"], f["bytes"], whole=any(compression(g["path"]) for g in group)) for f in group]
        segments = [s for file in files for s in itertools.chain(*plan_shards([file], shard_bytes))]
        paths = {file["column"]: file["path"] for file in group}
        return Table(files[0], split, ParallelReader(paths, segments))
    kind = file_format(path, reading, len(columns))
    whole = kind == "tfrecord" or (kind == "text" and reading.unit == "file")
    return Table(TextFile(path, size, whole), split, _reader(path, kind, columns, reading))


def _reader(path: str, kind: str, columns: dict[str, str], reading: Reading) -> RowReader:
    if kind == "text":
        if len(columns) > 1:
            raise UserError(
                f"{path}: plain text holds one column, and {' and '.join(columns)} are needed; give a file for each, "
                f"such as {','.join(f'{column}=train.{column}' for column in columns)}"
            )
        return _TEXT_READERS[reading.unit](*columns)
    if kind == "jsonl":
        return JsonReader(columns)
    if kind == "parquet":
        return _parquet_reader(path, columns)
    if kind == "tfrecord":
        if compression(path) not in ("", "gzip"):
            raise UserError(f"{path}: TFRecords are read plain or as .gz; unpack the file")
        from components.tfrecord_reader import TFRecordReader

        return TFRecordReader(columns)
    if kind == "csv":
        return CsvReader(*_csv_layout(path, columns, reading.delimiter))
    delimiter = reading.delimiter or "\t"
    header = _first_text(path, 1).split(delimiter)
    return TsvReader(_layout(path, header, columns, "tabs" if delimiter == "\t" else repr(delimiter)), delimiter)


def _csv_layout(path: str, columns: dict[str, str], delimiter: str) -> tuple[Layout, str]:
    """Returns the layout, and the delimiter that was given or found."""
    if delimiter and (len(delimiter) > 1 or delimiter in '"\r\n'):
        raise UserError(
            f"{path}: setting data.delimiter must be one character for CSV and no quotation mark or line end, got "
            f"{delimiter!r}; a longer one takes --set data.format=tsv, which has no quotation marks"
        )
    lines = _first_text(path, MAX_HEADER_LINES).split("\n")
    candidates = [delimiter] if delimiter else list(_CSV_DELIMITERS)
    headers = {candidate: csv_header(lines, candidate)[0] for candidate in candidates}
    chosen = max(candidates, key=lambda one: sum(_has(headers[one], name, columns) for name in columns.values()))
    return _layout(path, headers[chosen], columns, repr(chosen)), chosen


def _has(header: list[str], name: str, columns: dict[str, str]) -> bool:
    return name in header or (_are_numbers(columns) and int(name) <= len(header))


def _are_numbers(columns: dict[str, str]) -> bool:
    return all(name.isdecimal() and int(name) > 0 for name in columns.values())


def _layout(path: str, header: list[str], columns: dict[str, str], delimiter: str) -> Layout:
    if header == [""]:
        raise UserError(f"{path}: empty; its first line must name the columns, separated by {delimiter}")
    if _are_numbers(columns) and not set(columns.values()) <= set(header):
        for column, number in columns.items():
            if int(number) > len(header):
                raise UserError(
                    f"{path}, line 1: no column {number}; separated by {delimiter} it has {len(header)}. Give the "
                    f"right one with --{column}"
                )
        positions = {column: int(number) - 1 for column, number in columns.items()}
        return Layout(positions, len(header), has_header=False)
    for column, name in columns.items():
        if header.count(name) != 1:
            nearest = difflib.get_close_matches(name, header, n=1)
            hint = f", did you mean {nearest[0]!r}?" if nearest and name not in header else "."
            how = "several columns" if name in header else "no column"
            raise UserError(
                f"{path}, line 1: {how} {name!r}{hint} It has: {_listed(header)}. Name the right one with --{column}"
            )
    return Layout({column: header.index(name) for column, name in columns.items()}, len(header))


def _listed(names: list[str]) -> str:
    """Returns names as a person can read them: what is taken for a header may be a line of another kind, and long."""
    shown = [repr(f"{name[:_SHOWN_CHARACTERS]}..." if len(name) > _SHOWN_CHARACTERS else name) for name in names]
    return ", ".join(shown[:_SHOWN_NAMES]) + (f" and {len(shown) - _SHOWN_NAMES} more" if shown[_SHOWN_NAMES:] else "")


def _parquet_reader(path: str, columns: dict[str, str]) -> ParquetReader:
    """Checks that every column is there and holds what can be text."""
    if compression(path):
        raise UserError(f"{path}: Parquet is compressed in itself; unpack the file")
    try:
        with open_parquet(path) as file:
            found = parquet_columns(file.schema_arrow)
    except (OSError, BeamIOError, DamagedFileError) as error:
        raise UserError(str(error)) from error
    for column, name in columns.items():
        if name not in found:
            nearest = difflib.get_close_matches(name, found, n=1)
            hint = f", did you mean {nearest[0]!r}?" if nearest else "."
            raise UserError(f"{path}: no column {name!r}{hint} It has: {', '.join(found)}. Name it with --{column}")
        kind = found[name].value_type if pyarrow.types.is_dictionary(found[name]) else found[name]
        if not any(is_kind(kind) for is_kind in _TEXT_TYPES):
            raise UserError(f"{path}: column {name!r} holds {kind}, not text, numbers or truth values")
    return ParquetReader(columns)


def _first_text(path: str, number: int) -> str:
    """Returns the first lines of a file; only the first must be UTF-8."""
    first, *others = read_first_lines(path, number) or [b""]
    try:
        text = first.removeprefix(BYTE_ORDER_MARK).decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}, line 1: not valid UTF-8; {not_utf8(first)}") from error
    return "\n".join([text, *(line.decode(errors="replace") for line in others)])
