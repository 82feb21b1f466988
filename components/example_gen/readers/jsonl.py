"""The reader of JSON Lines files (https://jsonlines.org)."""

import json
from typing import Any

from seq2serve.components.example_gen.formats import InputConfig
from seq2serve.components.example_gen.readers.base import (
    LineReader,
    RejectedRowError,
    as_text,
    decode_line,
    require_text,
)


class JsonlReader(LineReader):
    """Each line is a JSON object. Empty lines are skipped.

    Args:
        fields: example column -> a key, or a dotted path of keys into nested objects.
    """

    skips_blank = True

    def __init__(self, fields: dict[str, str]):
        self._fields = fields

    def parse(self, line: bytes) -> dict[str, str]:
        try:
            record = json.loads(decode_line(line))
        except RejectedRowError:
            raise
        except (ValueError, RecursionError) as error:
            raise RejectedRowError("not valid JSON") from error
        if not isinstance(record, dict):
            raise RejectedRowError("not a JSON object")
        return require_text({column: _field_text(record, field) for column, field in self._fields.items()})


def _field_text(record: dict[str, Any], field: str) -> str:
    value: Any = record
    for key in [field] if field in record else field.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return as_text(value, field)


def make_reader(path: str, columns: dict[str, str], input_config: InputConfig) -> JsonlReader:
    """Returns the reader of a file."""
    return JsonlReader(columns)
