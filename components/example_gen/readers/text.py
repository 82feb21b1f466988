"""The readers of plain text, in which a row is a line, a paragraph or a whole file; see also document.py."""

from seq2serve.components.base.errors import UserError
from seq2serve.components.example_gen.config import InputConfig
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
from seq2serve.components.example_gen.readers.document import DocumentReader
from seq2serve.components.example_gen.text_files import MAX_LINE_BYTES, Segment, TextFile, read_lines

# A whole file that is one row may be longer than a line.
MAX_FILE_BYTES = 16 << 20


class TextReader(LineReader):
    """Plain text, in which each line is a row. Empty lines are skipped."""

    skips_blank = True

    def __init__(self, column: str):
        self._column = column

    def parse(self, line: bytes) -> dict[str, str]:
        return require_text({self._column: decode_line(line)})


class ParagraphReader(TextReader):
    """Plain text, in which each paragraph is a row. Empty lines separate paragraphs."""

    spans_lines = True

    def read(self, segment: Segment, scans: Scans) -> Rows:
        before = scan_before(segment, scans)
        # Otherwise the first lines continue a paragraph of an earlier segment, whose reader yields it.
        in_own_paragraph = before.ends_blank
        paragraph, first, size = [], 0, 0
        for number, (line, in_segment) in enumerate(read_lines_past_end(segment), start=before.lines + 1):
            if not (in_segment or paragraph):
                return
            line = line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line
            if not line.strip():
                if paragraph:
                    yield self.row(first, b"\n".join(paragraph))
                in_own_paragraph, paragraph = True, []
            elif in_own_paragraph:
                first, size = (first, size) if paragraph else (number, 0)
                if size <= MAX_LINE_BYTES:  # longer paragraphs are rejected, so the rest is not buffered
                    paragraph.append(line)
                    size += len(line) + 1
        if paragraph:
            yield self.row(first, b"\n".join(paragraph))


class FileReader(TextReader):
    """Plain text, in which each file is one row."""

    is_cut = False

    def parse(self, line: bytes) -> dict[str, str]:
        return require_text({self._column: decode_line(line, MAX_FILE_BYTES)})

    def read(self, segment: Segment, scans: Scans) -> Rows:
        lines, size, is_complete = [], 0, True
        for line in read_lines(segment):
            if size <= MAX_FILE_BYTES:
                lines.append(line)
                size += len(line) + 1
            is_complete = is_complete and len(line) <= MAX_LINE_BYTES
        text = b"\n".join(lines).removeprefix(BYTE_ORDER_MARK)
        reason = f"a line is longer than {MAX_LINE_BYTES} bytes"
        yield self.row(1, text) if is_complete else Row(1, text, {}, reason)


_READERS = {"line": TextReader, "paragraph": ParagraphReader, "file": FileReader, "document": DocumentReader}


def make_reader(file: TextFile, columns: dict[str, str], input_config: InputConfig) -> TextReader:
    """Returns the reader of a file.

    Raises:
        UserError: more than one column is needed.
    """
    if len(columns) > 1:
        raise UserError(
            f"{file.path}: plain text has one column, but {' and '.join(columns)} are needed; name one file per "
            f"column, such as {','.join(f'{column}=train.{column}' for column in columns)}",
            code="text-columns-too-many",
            path=file.path,
            columns=list(columns),
        )
    return _READERS[input_config.unit](*columns)
