"""The reader of a text file that is one document, such as a book: its parts are rows, in order."""

from seq2serve.components.example_gen.encodings import BYTE_ORDER_MARK
from seq2serve.components.example_gen.readers.base import (
    LineReader,
    Row,
    Rows,
    Scans,
    decode_line,
    read_lines_past_end,
    require_text,
    scan_before,
)
from seq2serve.components.example_gen.text_files import MAX_LINE_BYTES, Segment

# A part is this long, or a share of a short document, so that a held-out share of a few percent has several parts.
PART_BYTES = 4096
MIN_PARTS = 160
# A part that is longer than this many times its share ends within a paragraph, at the end of a line.
_MAX_RATIO, _MIN_LONG_BYTES = 4, 512


class DocumentReader(LineReader):
    """Plain text that is one document. A row is a part: paragraphs in order, with their line ends and empty lines.

    A part begins with the first paragraph that begins in the next PART_BYTES of the file. Without empty lines, it ends
    at the end of a line. A row's position in the document decides its split, not a hash.
    """

    note = (
        "read as one document: paragraphs stay in order, and the parts at its end are held out for eval and test; to "
        "split paragraphs by a hash instead, set data.unit=paragraph"
    )

    splits_by_position = True

    def __init__(self, column: str):
        self._column = column

    def to_scan(self, segments: list[Segment]) -> list[Segment]:
        return segments  # all of them: a position is a share of the whole document

    def parse(self, line: bytes) -> dict[str, str]:
        return require_text({self._column: decode_line(line, _MAX_RATIO * PART_BYTES + MAX_LINE_BYTES)})

    def read(self, segment: Segment, scans: Scans) -> Rows:
        before = scan_before(segment, scans)
        total = sum(scan.text_bytes for other, scan in scans.items() if other.path == segment.path)
        grid = max(1, min(PART_BYTES, total // MIN_PARTS))
        longest, part = max(_MAX_RATIO * grid, _MIN_LONG_BYTES), list[bytes]()
        first, start, size, position = 0, 0, 0, before.text_bytes
        # Otherwise the first lines continue a paragraph of an earlier segment, whose reader yields it.
        after_blank = in_own_paragraph = before.ends_blank
        for number, (line, in_segment) in enumerate(read_lines_past_end(segment), start=before.lines + 1):
            text = line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line
            is_blank = not text.strip()
            begins = after_blank and not is_blank
            if not in_segment and (begins or not part):
                break
            in_own_paragraph = in_own_paragraph or begins
            if part and ((begins and position // grid > start // grid) or size > longest):
                yield self._part(first, part, start / total)
                part = []
            if in_own_paragraph and (part or not is_blank):
                first, start, size = (first, start, size) if part else (number, position, 0)
                part.append(text)
                size += len(text) + 1
            position, after_blank = position + len(line) + 1, is_blank
        if part:
            yield self._part(first, part, start / total)

    def _part(self, first: int, lines: list[bytes], position: float) -> Row:
        while not lines[-1].strip():
            lines.pop()
        if any(len(line) > MAX_LINE_BYTES for line in lines):
            return Row(first, b"\n".join(lines), {}, f"a line is longer than {MAX_LINE_BYTES} bytes", position=position)
        return self.row(first, b"\n".join(lines))._replace(position=position)
