"""The readers of JSON: Lines (https://jsonlines.org), or one array."""

import json
import re
from typing import Any

from seq2serve.components.base.errors import UserError
from seq2serve.components.example_gen.config import InputConfig
from seq2serve.components.example_gen.encodings import BYTE_ORDER_MARK, SAMPLE_BYTES
from seq2serve.components.example_gen.readers.base import (
    LineReader,
    RejectedRowError,
    RowReader,
    Rows,
    Scans,
    as_text,
    decode_line,
    require_text,
)
from seq2serve.components.example_gen.readers.json_array import read_array
from seq2serve.components.example_gen.text_files import Segment, TextFile, read_beginning

# An array of objects (lines may also be arrays, which are no rows), and an object that does not end in its line.
_ARRAY, _OBJECT = re.compile(rb"\s*\[\s*(\{|\]|$)"), re.compile(rb"\s*\{\s*\n")


class JsonlReader(LineReader):
    """Each line is a JSON object. Empty lines are skipped.

    Args:
        fields: example column -> a key, or a dotted path of keys into nested objects.
        optional: the columns that may be empty or missing.
    """

    skips_blank = True

    def __init__(self, fields: dict[str, str], optional: tuple[str, ...] = ()):
        self._fields = fields
        self._optional = optional

    def parse(self, line: bytes) -> dict[str, str]:
        text = decode_line(line)
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise RejectedRowError("not valid JSON") from error
        if not isinstance(record, dict):
            raise RejectedRowError("not a JSON object")
        values = {column: _value(record, field) for column, field in self._fields.items()}
        texts = {
            column: "" if value is None and column in self._optional else as_text(value, self._fields[column])
            for column, value in values.items()
        }
        return require_text(texts, self._optional)


class JsonArrayReader(RowReader):
    """The elements of a JSON array are the rows. The file is not cut into segments.

    Args:
        rows: selects the columns of an element.
    """

    is_cut = False

    def __init__(self, rows: JsonlReader):
        self._rows = rows

    def read(self, segment: Segment, scans: Scans) -> Rows:
        for index, (number, raw) in enumerate(read_array(segment), start=1):
            row, detail = self._rows.row(number, raw), f"element {index} of the array"
            yield row._replace(detail=f"{row.detail}; {detail}" if row.detail else detail) if row.reason else row


def _value(record: dict[str, Any], field: str) -> Any:
    value: Any = record
    for key in [field] if field in record else field.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def make_reader(file: TextFile, columns: dict[str, str], input_config: InputConfig) -> RowReader:
    """Returns the reader of a file: of its lines, or of the elements of its array.

    Raises:
        UserError: the file is an object over several lines.
    """
    reader = JsonlReader(columns, input_config.optional)
    beginning = read_beginning(file.path, SAMPLE_BYTES, file.encoding).removeprefix(BYTE_ORDER_MARK)
    if _ARRAY.match(beginning):
        return JsonArrayReader(reader)
    if _OBJECT.match(beginning):
        raise UserError(
            f"{file.path}: a JSON object over several lines; write one object per line, for example with "
            "jq -c . OLD > NEW, or the rows as one array",
            code="file-not-json-lines",
            path=file.path,
        )
    return reader
