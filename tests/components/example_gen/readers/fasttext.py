"""A reader that is not in the package: fastText's lines, `__label__positive A good film` (https://fasttext.cc)."""

from seq2serve.components.example_gen.config import InputConfig
from seq2serve.components.example_gen.readers.base import LineReader, RejectedRowError, decode_line, require_text
from seq2serve.components.example_gen.text_files import TextFile

_PREFIX = "__label__"


class FastTextReader(LineReader):
    """Each line is a row: its label, and its text.

    Args:
        columns: example column -> `label` or `text`.
    """

    def __init__(self, columns: dict[str, str]):
        self._columns = columns

    def parse(self, line: bytes) -> dict[str, str]:
        label, _, text = decode_line(line).partition(" ")
        if not label.startswith(_PREFIX):
            raise RejectedRowError("no label")
        cells = {"label": label.removeprefix(_PREFIX), "text": text}
        return require_text({column: cells[name] for column, name in self._columns.items()})


def make_reader(file: TextFile, columns: dict[str, str], input_config: InputConfig) -> FastTextReader:
    """Returns the reader of a file."""
    return FastTextReader(columns)
