"""The reader of CSV files, in which a row may span lines and a quotation mark may be a stray one.

Comes in: segments of CSV files, scans of those before them. Goes out: rows, or the reason there is none.
Read next: row_readers.py, the readers of formats in which a line is a row.
"""

import contextlib
import csv
import io
from collections.abc import Iterator

from components.row_readers import (
    BYTE_ORDER_MARK,
    Layout,
    LineReader,
    RejectedRowError,
    Row,
    Scan,
    Scans,
    decoded,
    onward_lines,
    scan_before,
)
from components.text_files import MAX_LINE_BYTES, Segment, read_lines

MAX_HEADER_LINES = 20
csv.field_size_limit(MAX_LINE_BYTES)


class CsvReader(LineReader):
    """Cells between delimiters, in quotation marks where they hold delimiters, marks (doubled) or line ends (RFC 4180).

    A row ends with the line up to which the file's quotation marks are even in number, which holds for every file that
    keeps to the RFC. Where that makes no row (a lone mark, as in `5" pipe`), each line is taken for a row, so a stray
    mark spoils its own line and no other.
    """

    def __init__(self, layout: Layout, delimiter: str):
        self._layout = layout
        self._delimiter = delimiter

    def scan(self, segment: Segment) -> Scan:
        lines, quotes = 0, 0
        for line in read_lines(segment):
            lines += 1
            quotes += line.count(b'"')
        return Scan(lines, quotes)

    def read(self, segment: Segment, scans: Scans) -> Iterator[Row]:
        for first, lines in self._groups(segment, scan_before(segment, scans)):
            if first == 1:
                lines[0] = lines[0].removeprefix(BYTE_ORDER_MARK)
            if first == 1 and self._layout.has_header:
                beginning = [line.decode(errors="replace") for line in lines[:MAX_HEADER_LINES]]
                _, taken = csv_header(beginning, self._delimiter)
                yield from (self._row(number, line) for number, line in enumerate(lines[taken:], start=1 + taken))
            elif len(lines) > 1 and not self._is_row(lines):
                yield from (self._row(number, line) for number, line in enumerate(lines, start=first))
            else:
                yield self._row(first, b"\n".join(lines))

    def parse(self, line: bytes) -> dict[str, str]:
        text = decoded(line)
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
        """Yields (number of the first line, lines that may be one row) of what begins in a segment."""
        is_open = before.quotes % 2 == 1
        mine = not is_open  # or the first lines belong to a row that begins in the segment before
        group, size = [], 0
        for number, (line, own) in enumerate(onward_lines(segment), start=before.lines + 1):
            if not (own or (mine and is_open)):
                return
            is_open ^= line.count(b'"') % 2 == 1
            if mine:
                group.append(line)
                size += len(line) + 1
                if not is_open:
                    yield number - len(group) + 1, group
                elif size > MAX_LINE_BYTES:  # no row is as long: a mark was never closed
                    yield from ((number - len(group) + 1 + place, [line]) for place, line in enumerate(group))
                if not is_open or size > MAX_LINE_BYTES:
                    group, size = [], 0
            mine = mine or not is_open
        if group:
            yield number - len(group) + 1, group


def csv_header(lines: list[str], delimiter: str) -> tuple[list[str], int]:
    """Reads the row that names the columns.

    Args:
        lines: of a file from its first on, MAX_HEADER_LINES or fewer.
        delimiter: between cells.
    Returns:
        Its cells, and how many lines it takes: one where a lone quotation mark would make it take rows too.
    """
    even = (end for end in range(1, len(lines) + 1) if "\n".join(lines[:end]).count('"') % 2 == 0)
    for end in (next(even, 1), 1):
        with contextlib.suppress(csv.Error):
            rows = csv_rows("\n".join(lines[:end]), delimiter) or [[""]]
            if end == 1 or len(rows) == 1:
                return rows[0], end
    return lines[0].split(delimiter), 1


def csv_rows(text: str, delimiter: str) -> list[list[str]]:
    """Returns the rows of a text; raises csv.Error where quotation marks break RFC 4180."""
    return list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
