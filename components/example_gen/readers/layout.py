"""The columns of a file: their positions in its header, or one clear error."""

import difflib
import re
from collections.abc import Iterable
from typing import NamedTuple

from seq2serve.components.base.errors import UserError
from seq2serve.components.example_gen.encodings import BYTE_ORDER_MARK, invalid_text
from seq2serve.components.example_gen.readers.base import Layout
from seq2serve.components.example_gen.text_files import TextFile, read_first_lines

_MAX_LISTED_NAMES, _MAX_LISTED_CHARACTERS = 30, 60
# Shorter than a segment, so that the line after it, the header, begins in a file's first segment.
_SEPARATOR_LINE = re.compile(r'"?sep=(.)\1{0,9}"?', re.IGNORECASE)
_INVISIBLE = "\ufeff\u200b\u2060"  # a byte order mark that became text, and spaces without a width


class Header(NamedTuple):
    """The beginning of a file of cells.

    Args:
        path: of the file, for error messages.
        lines: the first lines, without the line that names the separator.
        first: the number of the first of them, which names the columns.
        separator: that a first line `sep=;`, which Excel reads, names; empty without such a line.
    """

    path: str
    lines: list[str]
    first: int = 1
    separator: str = ""


def find_columns(header: Header, cells: list[str], columns: dict[str, str], delimiter: str) -> Layout:
    """Finds columns in the first row of a file.

    Args:
        header: the beginning of the file.
        cells: those of its first row.
        columns: example column -> column of the file: a name, or a number from 1 if the file has no header. Spaces
            around a name in the file have no meaning.
        delimiter: between the cells, for error messages.
    Raises:
        UserError: the file is empty, or a column is missing or there twice.
    """
    path, line = header.path, header.first
    if cells == [""]:
        raise UserError(
            f"{path} is empty; its first line must name the columns, separated by {delimiter}",
            code="file-empty",
            path=path,
        )
    positions = {column: find_name(cells, name) for column, name in columns.items()}
    if _are_numbers(columns) and not all(positions.values()):
        return _numbered_layout(header, cells, columns, delimiter)
    for column, name in columns.items():
        if not positions[column]:
            error = column_missing(f"{path}, line {line}", name, column, cells, path=path, line=line)
            raise error if any(positions.values()) else _without_header(error, columns)
        if len(positions[column]) > 1:
            raise UserError(
                f"{path}, line {line}: several columns {name!r}. The file has: {_listed(cells)}. Rename all but one",
                code="column-ambiguous",
                path=path,
                line=line,
                column=name,
            )
    return Layout({column: position for column, (position,) in positions.items()}, len(cells))


def _numbered_layout(header: Header, cells: list[str], columns: dict[str, str], delimiter: str) -> Layout:
    for column, number in columns.items():
        if int(number) > len(cells):
            raise UserError(
                f"{header.path}, line {header.first}: no column {number}; separated by {delimiter}, the line has "
                f"{len(cells)}. {_correction('number', number, column)}",
                code="column-missing",
                path=header.path,
                line=header.first,
                column=number,
            )
    return Layout({column: int(number) - 1 for column, number in columns.items()}, len(cells), has_header=False)


def find_name(names: Iterable[str], name: str) -> list[int]:
    """Returns the positions of a name among others; without it, of those that differ from it only by spaces around."""
    names = list(names)
    same = [index for index, other in enumerate(names) if other == name]
    return same or [index for index, other in enumerate(names) if _bare(other) == _bare(name)]


def _bare(name: str) -> str:
    return name.strip().strip(_INVISIBLE).strip()


def has_column(cells: list[str], name: str, columns: dict[str, str]) -> bool:
    """Returns whether a header has a column, by name or by number."""
    return bool(find_name(cells, name)) or (_are_numbers(columns) and int(name) <= len(cells))


def _are_numbers(columns: dict[str, str]) -> bool:
    return all(name.isdecimal() and int(name) > 0 for name in columns.values())


def column_missing(where: str, name: str, column: str, names: Iterable[str], **fields: str | int) -> UserError:
    """Returns the error that a file has no column `name`, with the most similar one of its column names."""
    nearest = difflib.get_close_matches(name, names, n=1)
    hint = f", did you mean {nearest[0]!r}?" if nearest else "."
    return UserError(
        f"{where}: no column {name!r}{hint} The file has: {_listed(names)}. {_correction('name', name, column)}",
        code="column-missing",
        column=name,
        nearest=nearest[0] if nearest else "",
        **fields,
    )


def _without_header(error: UserError, columns: dict[str, str]) -> UserError:
    """Returns the error that no column was found, with what to do if the first line is a row."""
    numbers = " ".join(f"--{column} {number}" for number, column in enumerate(columns, 1))
    return UserError(f"{error}. If the file has no header, pass numbers: {numbers}", code=error.code, **error.fields)


def _correction(kind: str, name: str, column: str) -> str:
    """Returns how to name the right column of the file."""
    if name == column and column not in ("source", "target", "text", "label"):  # it has no option of its own
        return f"Set the right {kind} in data.slices or data.split_key"
    return f"Pass the right {kind} with --{column}"


def _listed(names: Iterable[str]) -> str:
    """Returns names as a readable list, shortened: if a file has no header, its first line may be long text."""
    limit = _MAX_LISTED_CHARACTERS
    quoted = [repr(f"{name[:limit]}..." if len(name) > limit else name) for name in names]
    num_more = len(quoted) - _MAX_LISTED_NAMES
    return ", ".join(quoted[:_MAX_LISTED_NAMES]) + (f" and {num_more} more" if num_more > 0 else "")


def read_header(file: TextFile, number: int) -> Header:
    """Reads the first `number` lines of a file; only the line that names the columns must be valid text.

    Raises:
        UserError: it is not, or the lines end with carriage returns only.
    """
    first, *rest = read_first_lines(file.path, number + 1, file.encoding) or [b""]
    first = first.removeprefix(BYTE_ORDER_MARK)
    if not rest and b"\r" in first:
        raise UserError(
            f"{file.path}: the lines end with carriage returns, as on old Macs; convert them, for example with "
            "tr '\\r' '\\n' < OLD > NEW",
            code="line-ends-unsupported",
            path=file.path,
        )
    separator = _SEPARATOR_LINE.fullmatch(first.decode(errors="replace")) if rest else None
    lines = rest if separator else [first, *rest][:number]
    line = 2 if separator else 1
    try:
        names = lines[0].decode()
    except UnicodeDecodeError as error:
        reason, hint = invalid_text(lines[0], error.start)
        raise UserError(
            f"{file.path}, line {line}: {reason}; {hint}", code="encoding-invalid", path=file.path, line=line
        ) from error
    texts = [names, *(line.decode(errors="replace") for line in lines[1:])]
    return Header(file.path, texts, line, separator[1] if separator else "")
