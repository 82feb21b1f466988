"""The reader of CSV files, in which a row may span lines and quotation marks may be unbalanced."""

import contextlib
import csv
import dataclasses
import io
from collections.abc import Iterator

from seq2serve.components.base.errors import UserError
from seq2serve.components.example_gen.config import InputConfig
from seq2serve.components.example_gen.encodings import BYTE_ORDER_MARK
from seq2serve.components.example_gen.readers.base import (
    Layout,
    LineReader,
    RejectedRowError,
    Rows,
    Scan,
    Scans,
    decode_line,
    read_lines_past_end,
    scan_before,
)
from seq2serve.components.example_gen.readers.layout import find_columns, has_column, read_header
from seq2serve.components.example_gen.text_files import MAX_LINE_BYTES, Segment, TextFile

MAX_HEADER_LINES = 20
_DELIMITERS = (",", ";", "\t", "|")
csv.field_size_limit(MAX_LINE_BYTES)


class CsvReader(LineReader):
    """Cells separated by delimiters. Cells with delimiters, line ends or (doubled) quotes are quoted (RFC 4180).

    A row ends at the first line end with an even number of quotation marks before it in the file, which is correct for
    every file that follows the RFC. If the result is not a row (an unbalanced mark, as in `5" pipe`), each line is read
    as a row. An unbalanced mark therefore damages only its own line.

    Args:
        layout: the positions of the columns.
        delimiter: one character.
        first_line: the number of the line with the header or, without one, with the first row.
        note: see RowReader.
    """

    spans_lines = True

    def __init__(self, layout: Layout, delimiter: str, first_line: int = 1, note: str = ""):
        self._layout = layout
        self._delimiter = delimiter
        self._first_line = first_line
        self.note = note

    def read(self, segment: Segment, scans: Scans) -> Rows:
        for first, lines in self._groups(segment, scan_before(segment, scans)):
            if first == 1:
                lines[0] = lines[0].removeprefix(BYTE_ORDER_MARK)
            if first < self._first_line:
                continue
            if first == self._first_line and self._layout.has_header:
                header_lines = [line.decode(errors="replace") for line in lines[:MAX_HEADER_LINES]]
                _, length = csv_header(header_lines, self._delimiter)
                yield from (self.row(number, line) for number, line in enumerate(lines[length:], start=first + length))
            elif len(lines) > 1 and not self._is_row(lines):
                yield from (self.row(number, line) for number, line in enumerate(lines, start=first))
            else:
                yield self.row(first, b"\n".join(lines))

    def parse(self, line: bytes) -> dict[str, str]:
        text = decode_line(line)
        if '"' not in text:
            return self._layout.row(text.split(self._delimiter))
        try:
            (cells,) = csv_rows(text, self._delimiter)
        except (csv.Error, ValueError) as error:
            raise RejectedRowError("not valid CSV") from error
        return self._layout.row(cells)

    def _is_row(self, lines: list[bytes]) -> bool:
        try:
            return len(csv_rows(b"\n".join(lines).decode(errors="replace"), self._delimiter)) == 1
        except csv.Error:
            return False

    def _groups(self, segment: Segment, before: Scan) -> Iterator[tuple[int, list[bytes]]]:
        """Yields (number of the first line, lines that may form one row) for each row that begins in a segment."""
        is_open = before.quotes % 2 == 1
        in_own_row = not is_open  # otherwise the first lines continue a row of an earlier segment
        group, size = [], 0
        for number, (line, in_segment) in enumerate(read_lines_past_end(segment), start=before.lines + 1):
            if not (in_segment or (in_own_row and is_open)):
                return
            is_open ^= line.count(b'"') % 2 == 1
            if in_own_row:
                group.append(line)
                size += len(line) + 1
                if not is_open:
                    yield number - len(group) + 1, group
                elif size > MAX_LINE_BYTES:  # too long for a row, so a quotation was never closed
                    yield from ((number - len(group) + 1 + index, [line]) for index, line in enumerate(group))
                if not is_open or size > MAX_LINE_BYTES:
                    group, size = [], 0
            in_own_row = in_own_row or not is_open
        if group:
            yield number - len(group) + 1, group


def csv_header(lines: list[str], delimiter: str) -> tuple[list[str], int]:
    """Reads the row that names the columns.

    Args:
        lines: the first lines of a file, at most MAX_HEADER_LINES.
        delimiter: between cells.
    Returns:
        The header's cells and its number of lines, which is 1 if an unbalanced quotation mark would extend it into the
        rows.
    """
    even = (end for end in range(1, len(lines) + 1) if "\n".join(lines[:end]).count('"') % 2 == 0)
    for end in (next(even, 1), 1):
        with contextlib.suppress(csv.Error):
            rows = csv_rows("\n".join(lines[:end]), delimiter) or [[""]]
            if end == 1 or len(rows) == 1:
                return rows[0], end
    return lines[0].split(delimiter), 1


def csv_rows(text: str, delimiter: str) -> list[list[str]]:
    """Returns the rows of a text; raises csv.Error if its quotation marks violate RFC 4180."""
    return list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))


def make_reader(file: TextFile, columns: dict[str, str], input_config: InputConfig) -> CsvReader:
    """Returns the reader of a file; its delimiter is detected if the config has none.

    Raises:
        UserError: the delimiter has more than one character, a column is missing, or quoting is off.
    """
    delimiter = input_config.delimiter
    check_delimiter(file.path, delimiter)
    if input_config.quoting == "none":
        raise UserError(
            f"{file.path}: setting data.quoting=none is for TSV; add --set data.format=tsv --set data.delimiter=,",
            code="settings-conflict",
            path=file.path,
            setting="data.quoting",
        )
    header = read_header(file, MAX_HEADER_LINES)
    delimiter = delimiter or header.separator
    candidates = [delimiter] if delimiter else list(_DELIMITERS)
    cells = {candidate: csv_header(header.lines, candidate)[0] for candidate in candidates}
    best = max(candidates, key=lambda one: sum(has_column(cells[one], name, columns) for name in columns.values()))
    layout = find_columns(header, cells[best], columns, repr(best))
    return CsvReader(dataclasses.replace(layout, optional=input_config.optional), best, header.first)


def check_delimiter(path: str, delimiter: str) -> None:
    """Raises a UserError if `delimiter` cannot separate cells that may be quoted."""
    if delimiter and (len(delimiter) > 1 or delimiter in '"\r\n'):
        raise UserError(
            f"{path}: setting data.delimiter must be one character for CSV, not a quotation mark or line end, but is "
            f"{delimiter!r}; for a longer one use --set data.format=tsv, which has no quoting",
            code="delimiter-invalid",
            path=path,
            setting="data.delimiter",
        )
