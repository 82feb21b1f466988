"""Tables: the user's files, each with the reader of its format and the columns from its header."""

import dataclasses
import difflib
import itertools
from collections.abc import Iterable

import pyarrow
from apache_beam.io.filesystem import BeamIOError

from seq2serve.components.base.errors import UserError
from seq2serve.components.example_gen.formats import (
    InputConfig,
    binary_format_hint,
    compression,
    encoding_hint,
    file_format,
)
from seq2serve.components.example_gen.readers.base import BYTE_ORDER_MARK, Layout, RowReader
from seq2serve.components.example_gen.readers.csv import MAX_HEADER_LINES, CsvReader, csv_header
from seq2serve.components.example_gen.readers.jsonl import JsonlReader
from seq2serve.components.example_gen.readers.parallel import ParallelReader
from seq2serve.components.example_gen.readers.parquet import ParquetReader, open_parquet, parquet_columns
from seq2serve.components.example_gen.readers.text import FileReader, ParagraphReader, TextReader
from seq2serve.components.example_gen.readers.tsv import TsvReader
from seq2serve.components.example_gen.text_files import (
    DamagedFileError,
    TextFile,
    plan_shards,
    read_beginning,
    read_first_lines,
)

_CSV_DELIMITERS = (",", ";", "\t", "|")
_MAX_LISTED_NAMES, _MAX_LISTED_CHARACTERS = 30, 60
_TEXT_TYPES = tuple(
    getattr(pyarrow.types, f"is_{kind}")
    for kind in ("string", "large_string", "string_view", "binary", "large_binary", "integer", "floating", "boolean")
)
_TEXT_READERS = {"line": TextReader, "paragraph": ParagraphReader, "file": FileReader}


@dataclasses.dataclass(frozen=True)
class Table:
    """A file of rows, or a group of parallel files.

    Args:
        file: the file whose segments are read; the first of parallel files.
        split: of all rows. Empty if a hash assigns the splits, as for training files, from which splits without files
            are taken.
        reader: reads the rows of a segment.
    """

    file: TextFile
    split: str
    reader: RowReader


def make_table(group: tuple[dict, ...], columns: dict[str, str], input_config: InputConfig, shard_bytes: int) -> Table:
    """Returns the table of a file, or of a group of parallel files.

    Args:
        group: one of those that `formats.group_files` returns.
        columns: example column -> column of the file: a name, or a number from 1 if the files have no header.
        input_config: how files are read.
        shard_bytes: the size of the segments that parallel files are cut into.
    Raises:
        UserError: a column is missing, or the file cannot be read or is not text.
    """
    path, size, split = group[0]["path"], group[0]["bytes"], group[0].get("split", "").replace("train", "")
    for file in group:
        if hint := binary_format_hint(read_beginning(file["path"], 4)):
            raise UserError(f"{file['path']} is {hint}", code="file-not-text", path=file["path"])
    if group[0].get("column"):
        files = [TextFile(f["path"], f["bytes"], whole=any(compression(g["path"]) for g in group)) for f in group]
        segments = [s for file in files for s in itertools.chain(*plan_shards([file], shard_bytes))]
        paths = {file["column"]: file["path"] for file in group}
        return Table(files[0], split, ParallelReader(paths, segments))
    kind = file_format(path, input_config, len(columns))
    whole = kind == "tfrecord" or (kind == "text" and input_config.unit == "file")
    return Table(TextFile(path, size, whole), split, _make_reader(path, kind, columns, input_config))


def _make_reader(path: str, kind: str, columns: dict[str, str], input_config: InputConfig) -> RowReader:
    if kind == "text":
        if len(columns) > 1:
            raise UserError(
                f"{path}: plain text has one column, but {' and '.join(columns)} are needed; name one file per column, "
                f"such as {','.join(f'{column}=train.{column}' for column in columns)}",
                code="text-columns-too-many",
                path=path,
                columns=list(columns),
            )
        return _TEXT_READERS[input_config.unit](*columns)
    if kind == "jsonl":
        return JsonlReader(columns)
    if kind == "parquet":
        return _parquet_reader(path, columns)
    if kind == "tfrecord":
        if compression(path) not in ("", "gzip"):
            raise UserError(
                f"{path}: TFRecords may be compressed only with gzip (.gz); unpack the file",
                code="compression-unsupported",
                path=path,
            )
        # Imports TensorFlow, which only this format needs.
        from seq2serve.components.example_gen.readers.tfrecord import TFRecordReader

        return TFRecordReader(columns)
    if kind == "csv":
        return CsvReader(*_csv_layout(path, columns, input_config.delimiter))
    delimiter = input_config.delimiter or "\t"
    header = _read_header_text(path, 1).split(delimiter)
    return TsvReader(_layout(path, header, columns, "tabs" if delimiter == "\t" else repr(delimiter)), delimiter)


def _csv_layout(path: str, columns: dict[str, str], delimiter: str) -> tuple[Layout, str]:
    """Returns the layout and the delimiter, which is detected if `delimiter` is empty."""
    if delimiter and (len(delimiter) > 1 or delimiter in '"\r\n'):
        raise UserError(
            f"{path}: setting data.delimiter must be one character for CSV, not a quotation mark or line end, but is "
            f"{delimiter!r}; for a longer one use --set data.format=tsv, which has no quoting",
            code="delimiter-invalid",
            path=path,
            setting="data.delimiter",
        )
    lines = _read_header_text(path, MAX_HEADER_LINES).split("\n")
    candidates = [delimiter] if delimiter else list(_CSV_DELIMITERS)
    headers = {candidate: csv_header(lines, candidate)[0] for candidate in candidates}
    best = max(candidates, key=lambda one: sum(_has(headers[one], name, columns) for name in columns.values()))
    return _layout(path, headers[best], columns, repr(best)), best


def _has(header: list[str], name: str, columns: dict[str, str]) -> bool:
    return name in header or (_are_numbers(columns) and int(name) <= len(header))


def _are_numbers(columns: dict[str, str]) -> bool:
    return all(name.isdecimal() and int(name) > 0 for name in columns.values())


def _layout(path: str, header: list[str], columns: dict[str, str], delimiter: str) -> Layout:
    if header == [""]:
        raise UserError(
            f"{path} is empty; its first line must name the columns, separated by {delimiter}",
            code="file-empty",
            path=path,
        )
    if _are_numbers(columns) and not set(columns.values()) <= set(header):
        return _numbered_layout(path, header, columns, delimiter)
    for column, name in columns.items():
        if name not in header:
            raise _column_missing(f"{path}, line 1", name, column, header, path=path, line=1)
        if header.count(name) > 1:
            raise UserError(
                f"{path}, line 1: several columns {name!r}. The file has: {_listed(header)}. Rename all but one",
                code="column-ambiguous",
                path=path,
                line=1,
                column=name,
            )
    return Layout({column: header.index(name) for column, name in columns.items()}, len(header))


def _numbered_layout(path: str, header: list[str], columns: dict[str, str], delimiter: str) -> Layout:
    for column, number in columns.items():
        if int(number) > len(header):
            raise UserError(
                f"{path}, line 1: no column {number}; separated by {delimiter}, the line has {len(header)}. Pass the "
                f"right number with --{column}",
                code="column-missing",
                path=path,
                line=1,
                column=number,
            )
    return Layout({column: int(number) - 1 for column, number in columns.items()}, len(header), has_header=False)


def _column_missing(where: str, name: str, column: str, names: Iterable[str], **fields: str | int) -> UserError:
    """Returns the error that a file has no column `name`, with the most similar one of its column names."""
    nearest = difflib.get_close_matches(name, names, n=1)
    hint = f", did you mean {nearest[0]!r}?" if nearest else "."
    return UserError(
        f"{where}: no column {name!r}{hint} The file has: {_listed(names)}. Pass the right name with --{column}",
        code="column-missing",
        column=name,
        nearest=nearest[0] if nearest else "",
        **fields,
    )


def _listed(names: Iterable[str]) -> str:
    """Returns names as a readable list, shortened: if a file has no header, its first line may be long text."""
    limit = _MAX_LISTED_CHARACTERS
    quoted = [repr(f"{name[:limit]}..." if len(name) > limit else name) for name in names]
    num_more = len(quoted) - _MAX_LISTED_NAMES
    return ", ".join(quoted[:_MAX_LISTED_NAMES]) + (f" and {num_more} more" if num_more > 0 else "")


def _parquet_reader(path: str, columns: dict[str, str]) -> ParquetReader:
    """Returns the reader, after checking that every column exists and has a type that can become text."""
    if compression(path):
        raise UserError(
            f"{path}: Parquet has its own compression; unpack the file", code="compression-unsupported", path=path
        )
    try:
        with open_parquet(path) as file:
            types = parquet_columns(file.schema_arrow)
    except DamagedFileError as error:
        raise UserError(str(error), code=error.code, **error.fields) from error
    except (OSError, BeamIOError) as error:
        raise UserError(f"cannot read {path}: {error}", code="file-unreadable", path=path) from error
    for column, name in columns.items():
        if name not in types:
            raise _column_missing(path, name, column, types, path=path)
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
    return ParquetReader(columns)


def _read_header_text(path: str, number: int) -> str:
    """Returns the first `number` lines of a file; only line 1 must be UTF-8."""
    first, *rest = read_first_lines(path, number) or [b""]
    try:
        text = first.removeprefix(BYTE_ORDER_MARK).decode()
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}, line 1: not valid UTF-8; {encoding_hint(first)}", code="encoding-invalid", path=path, line=1
        ) from error
    return "\n".join([text, *(line.decode(errors="replace") for line in rest)])
