"""The base of the row readers: rows, rejects, and scans of segments.

Workers that read neighbouring segments must agree on where a row begins, without reading each other's segment. If each
line is a row, they do; workers then count lines from the beginning of their segment, and the counts add up in the end.
If a row may span lines, it depends on whether a quotation or a paragraph is open, so a first pass scans the segments.
"""

import abc
import dataclasses
import json
from collections.abc import Generator, Iterator, Mapping
from typing import Any, NamedTuple

from seq2serve.components.example_gen.encodings import BYTE_ORDER_MARK, invalid_text
from seq2serve.components.example_gen.text_files import MAX_LINE_BYTES, Segment, read_lines

_CONTEXT_BYTES = 200  # before and after invalid UTF-8, from which the encoding is guessed


class RejectedRowError(ValueError):
    """A row that cannot become an example.

    Args:
        reason: the same for all rows with this problem, so that they can be counted.
        detail: specific to this row.
    """

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(reason)
        self.detail = detail


class Row(NamedTuple):
    """A row of a file.

    Args:
        number: from 1: of the row's first line, or of the row in files without lines. See RowReader.read.
        raw: the row's bytes in the file.
        cells: example column -> text; empty if the row is rejected.
        reason: why the row is rejected; empty if it is not.
        detail: specific to this row, unlike the reason.
        position: where the row begins, as a share of its document, 0 to 1, if that decides its split; else None.
    """

    number: int
    raw: bytes
    cells: dict[str, str]
    reason: str
    detail: str = ""
    position: float | None = None


Rows = Generator[Row, None, int | None]


@dataclasses.dataclass(frozen=True)
class Scan:
    """What later segments need to know about the lines that begin in a segment.

    Args:
        lines: their number.
        quotes: the number of quotation marks in them.
        ends_blank: whether the last line is blank.
        damage: an error message if the file is damaged; empty otherwise.
        text_bytes: their size in UTF-8.
    """

    lines: int = 0
    quotes: int = 0
    ends_blank: bool = True
    damage: str = ""
    text_bytes: int = 0


Scans = Mapping[Segment, Scan]


@dataclasses.dataclass(frozen=True)
class Layout:
    """The positions of a file's columns.

    Args:
        positions: example column -> 0-based position in the file's rows.
        num_columns: the number of cells of every row.
        has_header: whether the first row names the columns.
        optional: the columns that may be empty.
    """

    positions: dict[str, int]
    num_columns: int
    has_header: bool = True
    optional: tuple[str, ...] = ()

    def row(self, cells: list[str]) -> dict[str, str]:
        """Selects the columns from a row's cells.

        Raises:
            RejectedRowError: there are too few or too many cells, or a selected one is empty.
        """
        if len(cells) != self.num_columns:
            raise RejectedRowError("wrong number of columns", f"{len(cells)} instead of {self.num_columns}")
        return require_text({column: cells[position] for column, position in self.positions.items()}, self.optional)


def require_text(row: dict[str, str], optional: tuple[str, ...] = ()) -> dict[str, str]:
    """Returns the same row if every column has text.

    Args:
        row: column -> text.
        optional: the columns that may be blank; they become empty.
    Raises:
        RejectedRowError: another column is blank.
    """
    for column, text in row.items():
        if not text or text.isspace():
            if column not in optional:
                raise RejectedRowError(f"empty {column}")
            row[column] = ""
    return row


def decode_line(line: bytes, limit: int = MAX_LINE_BYTES) -> str:
    """Returns a line as text.

    Raises:
        RejectedRowError: the line is longer than `limit` bytes or not UTF-8.
    """
    if len(line) > limit:
        raise RejectedRowError(f"longer than {limit} bytes")
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        start = max(0, error.start - _CONTEXT_BYTES)
        surrounding = line[start : error.start + _CONTEXT_BYTES]
        raise RejectedRowError(*invalid_text(surrounding, error.start - start)) from error


def as_text(value: Any, name: str) -> str:
    """Returns a value as text. Numbers and booleans, which labels often are, become their JSON form.

    Raises:
        RejectedRowError: the value has another type or is not valid Unicode; the reason names the column or field.
    """
    if value is None:
        raise RejectedRowError(f"no {name!r}")
    if isinstance(value, bytes):
        return decode_line(value)
    if not isinstance(value, str | int | float):
        raise RejectedRowError(f"{name!r} is not text")
    text = value if isinstance(value, str) else json.dumps(value)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RejectedRowError(f"{name!r} is not valid Unicode") from error
    return text


class RowReader(abc.ABC):
    """Reads the rows of files of one format. It is sent to Beam's workers, so it holds only settings."""

    splits_by_position = False  # whether a row's position decides its split, not a hash
    is_cut = True  # whether files are cut into segments, which several workers read
    spans_lines = False  # whether the beginning of a row depends on the lines before it
    note = ""  # what the user should know about how a file is read

    def to_scan(self, segments: list[Segment]) -> list[Segment]:
        """Returns the segments that must be scanned before a file's segments can be read."""
        return [segment for segment in segments if segment.end is not None] if self.spans_lines else []

    def scan(self, segment: Segment) -> Scan:
        """Returns what the readers of later segments need to know about a segment."""
        lines, quotes, text_bytes, line = 0, 0, 0, b""
        for line in read_lines(segment):
            lines += 1
            quotes += line.count(b'"')
            text_bytes += len(line) + 1
        return Scan(lines, quotes, not line.strip(), text_bytes=text_bytes)

    @abc.abstractmethod
    def read(self, segment: Segment, scans: Scans) -> Rows:
        """Yields the rows that begin in a segment.

        Args:
            segment: of a file.
            scans: of the segments that `to_scan` returns, at least those before this one.
        Returns:
            The number of lines that begin in the segment, if rows are numbered from its beginning; None if they are
            numbered from the beginning of the file.
        Raises:
            DamagedFileError: the file cannot be read to its end.
        """


class LineReader(RowReader):
    """Reads files in which each line is a row, which `parse` parses. Empty lines are rows unless `skips_blank`."""

    skips_blank = False
    first_row = 1  # number of the first line that is a row; those before it are a header, all in the first segment

    @abc.abstractmethod
    def parse(self, line: bytes) -> dict[str, str]:
        """Returns a line's columns; raises RejectedRowError if the line is invalid."""

    def read(self, segment: Segment, scans: Scans) -> Rows:
        number, first_row = 0, 1 if segment.start else self.first_row
        for number, line in enumerate(read_lines(segment), start=1):
            if number < first_row:
                continue
            if number == 1 and not segment.start:
                line = line.removeprefix(BYTE_ORDER_MARK)
            if self.skips_blank and (not line or line.isspace()):
                continue
            yield self.row(number, line)
        return number

    def row(self, number: int, raw: bytes) -> Row:
        """Returns the row, or the reject, of a line."""
        try:
            return Row(number, raw, self.parse(raw), "")
        except RejectedRowError as error:
            return Row(number, raw, {}, str(error), error.detail)


def scan_before(segment: Segment, scans: Scans) -> Scan:
    """Returns the combined scan of a file's segments before `segment`."""
    earlier = sorted((s for s in scans if s.path == segment.path and s.start < segment.start), key=lambda s: s.start)
    earlier_scans = [scans[s] for s in earlier]
    return Scan(
        sum(scan.lines for scan in earlier_scans),
        sum(scan.quotes for scan in earlier_scans),
        next((scan.ends_blank for scan in reversed(earlier_scans) if scan.lines), True),
        text_bytes=sum(scan.text_bytes for scan in earlier_scans),
    )


def read_lines_past_end(segment: Segment) -> Iterator[tuple[bytes, bool]]:
    """Yields (line, whether it is in the segment) to the end of the file, for a row that spans the segment's end."""
    for line in read_lines(segment):
        yield line, True
    if segment.end is not None:
        for line in read_lines(dataclasses.replace(segment, start=segment.end, end=None)):
            yield line, False
