"""The columns of a file: their positions in its header, or one clear error."""

import difflib
from collections.abc import Iterable

from seq2serve.components.base.errors import UserError
from seq2serve.components.example_gen.formats import encoding_hint
from seq2serve.components.example_gen.readers.base import BYTE_ORDER_MARK, Layout
from seq2serve.components.example_gen.text_files import read_first_lines

_MAX_LISTED_NAMES, _MAX_LISTED_CHARACTERS = 30, 60


def find_columns(path: str, header: list[str], columns: dict[str, str], delimiter: str) -> Layout:
    """Finds columns in the first row of a file.

    Args:
        path: of the file, for error messages.
        header: the cells of its first row.
        columns: example column -> column of the file: a name, or a number from 1 if the file has no header.
        delimiter: between the cells, for error messages.
    Raises:
        UserError: the file is empty, or a column is missing or there twice.
    """
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
            raise column_missing(f"{path}, line 1", name, column, header, path=path, line=1)
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
                f"{path}, line 1: no column {number}; separated by {delimiter}, the line has {len(header)}. "
                f"{_correction('number', number, column)}",
                code="column-missing",
                path=path,
                line=1,
                column=number,
            )
    return Layout({column: int(number) - 1 for column, number in columns.items()}, len(header), has_header=False)


def has_column(header: list[str], name: str, columns: dict[str, str]) -> bool:
    """Returns whether a header has a column, by name or by number."""
    return name in header or (_are_numbers(columns) and int(name) <= len(header))


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


def read_header_text(path: str, number: int) -> str:
    """Returns the first `number` lines of a file; only line 1 must be UTF-8.

    Raises:
        UserError: line 1 is not UTF-8.
    """
    first, *rest = read_first_lines(path, number) or [b""]
    try:
        text = first.removeprefix(BYTE_ORDER_MARK).decode()
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}, line 1: not valid UTF-8; {encoding_hint(first)}", code="encoding-invalid", path=path, line=1
        ) from error
    return "\n".join([text, *(line.decode(errors="replace") for line in rest)])
