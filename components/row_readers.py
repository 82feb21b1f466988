"""Readers of rows: what each format of text makes of a file's lines, wherever the file is cut.

Comes in: segments of text files, and scans of the segments before them. Goes out: rows, or the reason there is none.
Read next: layouts.py, which picks a file's reader; example_gen_beam.py, which writes what comes out.

Two workers that read neighbouring segments must agree where a row begins without reading each other's. What decides
(the line number, whether a quotation is open, whether a paragraph is) adds up over segments, so a pass before this one
scans them all.
"""

import abc
import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from components.file_formats import not_utf8
from components.text_files import MAX_LINE_BYTES, Segment, count_lines, read_lines

# A whole file that is one row may be longer than a line.
MAX_FILE_BYTES = 16 << 20
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SEEN_BYTES = 200  # before and behind what is not UTF-8, by which its encoding is told
_QUOTED_TSV = (
    "TSV is read as having no quotation marks: where cells stand in them, read it as CSV with --set data.format=csv "
    "--set 'data.delimiter=\\t'"
)


class RejectedRowError(ValueError):
    """A row that cannot become an example.

    Args:
        reason: the message, the same for all rows of its kind, so that they can be counted.
        detail: what is known of this row beside it.
    """

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(reason)
        self.detail = detail


class Row(NamedTuple):
    """What stands at a place of a file.

    Args:
        number: of its first line, or of the row where a file has no lines; from 1.
        raw: the bytes that stand there.
        cells: example column -> text; empty if the row is rejected.
        reason: why it is rejected; empty if it is not.
        detail: what is known of this row beside the reason, which all of its kind share.
    """

    number: int
    raw: bytes
    cells: dict[str, str]
    reason: str
    detail: str = ""


@dataclasses.dataclass(frozen=True)
class Scan:
    """What the lines that begin in a segment mean for the segments after it.

    Args:
        lines: how many.
        quotes: quotation marks in them.
        ends_blank: whether the last is blank.
        damage: what is wrong with the file; empty if nothing is.
    """

    lines: int = 0
    quotes: int = 0
    ends_blank: bool = True
    damage: str = ""


Scans = Mapping[Segment, Scan]


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where a file's columns are.

    Args:
        positions: example column -> 0-based position in the file's rows.
        num_columns: cells that every row of the file has.
        has_header: whether the first row names the columns.
    """

    positions: dict[str, int]
    num_columns: int
    has_header: bool = True

    def row(self, cells: list[str]) -> dict[str, str]:
        """Takes the columns out of a row's cells.

        Raises:
            RejectedRowError: there are too few or too many cells, or an empty one.
        """
        if len(cells) != self.num_columns:
            raise RejectedRowError("wrong number of columns", f"{len(cells)} instead of {self.num_columns}")
        return checked({column: cells[position] for column, position in self.positions.items()})


def checked(row: dict[str, str]) -> dict[str, str]:
    """Returns a row in which every column has text.

    Raises:
        RejectedRowError: one has none.
    """
    for column, text in row.items():
        if not text or text.isspace():
            raise RejectedRowError(f"empty {column}")
    return row


def decoded(line: bytes, limit: int = MAX_LINE_BYTES) -> str:
    """Returns a line as text.

    Raises:
        RejectedRowError: it is longer than `limit` bytes or not UTF-8.
    """
    if len(line) > limit:
        raise RejectedRowError(f"longer than {limit} bytes")
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        around = line[max(0, error.start - _SEEN_BYTES) : error.start + _SEEN_BYTES]
        raise RejectedRowError("not valid UTF-8", not_utf8(around)) from error


def parse_row(line: bytes, layout: Layout, delimiter: str = "\t") -> dict[str, str]:
    """Takes the columns out of a line of tab-separated text.

    Args:
        line: without its end.
        layout: of the file it stands in.
        delimiter: between cells; there is no way to write it inside one.
    Returns:
        example column -> text, as it stands in the file.
    Raises:
        RejectedRowError: it is too long, not UTF-8, has too few or too many cells, or an empty one.
    """
    return layout.row(decoded(line).split(delimiter))


class RowReader(abc.ABC):
    """Reads the rows of one kind of files. It is sent to Beam's workers, so it holds nothing but settings."""

    def to_scan(self, segments: list[Segment]) -> list[Segment]:
        """Returns the segments that must be scanned before those of a file can be read."""
        return []

    def scan(self, segment: Segment) -> Scan:
        """Returns what the readers of later segments must know of one."""
        return Scan()

    @abc.abstractmethod
    def read(self, segment: Segment, scans: Scans) -> Iterator[Row]:
        """Yields the rows that begin in a segment.

        Args:
            segment: of a file.
            scans: of the segments before it, at least.
        Raises:
            DamagedFileError: the file cannot be read to its end.
        """


class LineReader(RowReader):
    """Reads files in which a line is a row; what a row is, `parse` says. Empty lines are rows."""

    skips_blank = False
    has_header = False

    def to_scan(self, segments: list[Segment]) -> list[Segment]:
        return [segment for segment in segments if segment.end is not None]

    def scan(self, segment: Segment) -> Scan:
        return Scan(count_lines(segment))

    @abc.abstractmethod
    def parse(self, line: bytes) -> dict[str, str]:
        """Returns a line's columns; raises RejectedRowError if it has none."""

    def read(self, segment: Segment, scans: Scans) -> Iterator[Row]:
        for number, line in enumerate(read_lines(segment), start=1 + scan_before(segment, scans).lines):
            if number == 1:
                if self.has_header:
                    continue
                line = line.removeprefix(BYTE_ORDER_MARK)
            if self.skips_blank and (not line or line.isspace()):
                continue
            yield self._row(number, line)

    def _row(self, number: int, raw: bytes) -> Row:
        try:
            return Row(number, raw, self.parse(raw), "")
        except RejectedRowError as error:
            return Row(number, raw, {}, str(error), error.detail)


class TsvReader(LineReader):
    """Cells between tabs, or another delimiter; there are no quotation marks, so every line is a row."""

    def __init__(self, layout: Layout, delimiter: str):
        self._layout = layout
        self._delimiter = delimiter
        self.has_header = layout.has_header

    def parse(self, line: bytes) -> dict[str, str]:
        try:
            return parse_row(line, self._layout, self._delimiter)
        except RejectedRowError as error:
            if error.detail and any(cell.startswith(b'"') for cell in line.split(self._delimiter.encode())):
                raise RejectedRowError(str(error), f"{error.detail}; {_QUOTED_TSV}") from error
            raise


class JsonReader(LineReader):
    """An object a line (https://jsonlines.org). Empty lines are no rows.

    Args:
        fields: example column -> a key, or keys joined by dots where objects are nested.
    """

    skips_blank = True

    def __init__(self, fields: dict[str, str]):
        self._fields = fields

    def parse(self, line: bytes) -> dict[str, str]:
        try:
            record = json.loads(decoded(line))
        except RejectedRowError:
            raise
        except (ValueError, RecursionError) as error:
            raise RejectedRowError("not valid JSON") from error
        if not isinstance(record, dict):
            raise RejectedRowError("not a JSON object")
        return checked({column: _json_text(record, field) for column, field in self._fields.items()})


def _json_text(record: dict[str, Any], field: str) -> str:
    """Returns the text of a field."""
    value: Any = record
    for key in [field] if field in record else field.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return as_text(value, field)


def as_text(value: Any, name: str) -> str:
    """Returns the text of a value; numbers and truth values, as labels often are, as JSON writes them.

    Raises:
        RejectedRowError: it is none of these, or no valid Unicode; names the column or field.
    """
    if value is None:
        raise RejectedRowError(f"no {name!r}")
    if isinstance(value, bytes):
        return decoded(value)
    if not isinstance(value, str | int | float):
        raise RejectedRowError(f"{name!r} is no text")
    text = value if isinstance(value, str) else json.dumps(value)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RejectedRowError(f"{name!r} is not valid Unicode") from error
    return text


class TextReader(LineReader):
    """Plain text, a line a row. Empty lines are no rows."""

    skips_blank = True

    def __init__(self, column: str):
        self._column = column

    def parse(self, line: bytes) -> dict[str, str]:
        return checked({self._column: decoded(line)})


class ParagraphReader(TextReader):
    """Plain text, lines without an empty one between them a row."""

    def scan(self, segment: Segment) -> Scan:
        lines, line = 0, b""
        for line in read_lines(segment):  # noqa: B007
            lines += 1
        return Scan(lines, ends_blank=not line.strip())

    def read(self, segment: Segment, scans: Scans) -> Iterator[Row]:
        before = scan_before(segment, scans)
        mine = before.ends_blank  # or the first lines belong to a paragraph that begins in the segment before
        paragraph, first, size = [], 0, 0
        for number, (line, own) in enumerate(onward_lines(segment), start=before.lines + 1):
            if not (own or paragraph):
                return
            line = line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line
            if not line.strip():
                if paragraph:
                    yield self._row(first, b"\n".join(paragraph))
                mine, paragraph = True, []
            elif mine:
                first, size = (first, size) if paragraph else (number, 0)
                if size <= MAX_LINE_BYTES:  # what is longer is rejected, and need not be held
                    paragraph.append(line)
                    size += len(line) + 1
        if paragraph:
            yield self._row(first, b"\n".join(paragraph))


class FileReader(TextReader):
    """Plain text, a whole file a row."""

    def parse(self, line: bytes) -> dict[str, str]:
        return checked({self._column: decoded(line, MAX_FILE_BYTES)})

    def read(self, segment: Segment, scans: Scans) -> Iterator[Row]:
        lines, size, whole = [], 0, True
        for line in read_lines(segment):
            if size <= MAX_FILE_BYTES:
                lines.append(line)
                size += len(line) + 1
            whole = whole and len(line) <= MAX_LINE_BYTES
        text = b"\n".join(lines).removeprefix(BYTE_ORDER_MARK)
        reason = f"a line is longer than {MAX_LINE_BYTES} bytes"
        yield self._row(1, text) if whole else Row(1, text, {}, reason)


def scan_before(segment: Segment, scans: Scans) -> Scan:
    """Returns the scan of all that stands before a segment in its file."""
    earlier = [scans[s] for s in sorted(_earlier(segment, scans), key=lambda s: s.start)]
    return Scan(
        sum(scan.lines for scan in earlier),
        sum(scan.quotes for scan in earlier),
        next((scan.ends_blank for scan in reversed(earlier) if scan.lines), True),
    )


def _earlier(segment: Segment, scans: Scans) -> list[Segment]:
    return [s for s in scans if s.path == segment.path and s.start < segment.start]


def onward_lines(segment: Segment) -> Iterator[tuple[bytes, bool]]:
    """Yields a segment's lines with True, then those after it with False, for a row that goes on there."""
    for line in read_lines(segment):
        yield line, True
    if segment.end is not None:
        for line in read_lines(Segment(segment.path, segment.end, None)):
            yield line, False
