"""The reader of tab-separated files, which have no quoting."""

from seq2serve.components.example_gen.formats import InputConfig
from seq2serve.components.example_gen.readers.base import Layout, LineReader, RejectedRowError, decode_line
from seq2serve.components.example_gen.readers.layout import find_columns, read_header_text

_QUOTED_TSV_HINT = (
    "quotation marks have no meaning in TSV; if cells are quoted, read the file as CSV with --set data.format=csv "
    "--set 'data.delimiter=\\t'"
)


class TsvReader(LineReader):
    """Cells separated by tabs or another delimiter. There is no quoting, so every line is a row."""

    def __init__(self, layout: Layout, delimiter: str):
        self._layout = layout
        self._delimiter = delimiter
        self.has_header = layout.has_header

    def parse(self, line: bytes) -> dict[str, str]:
        try:
            return parse_row(line, self._layout, self._delimiter)
        except RejectedRowError as error:
            if error.detail and any(cell.startswith(b'"') for cell in line.split(self._delimiter.encode())):
                raise RejectedRowError(str(error), f"{error.detail}; {_QUOTED_TSV_HINT}") from error
            raise


def parse_row(line: bytes, layout: Layout, delimiter: str = "\t") -> dict[str, str]:
    """Selects the columns from a line of tab-separated text.

    Args:
        line: without its line end.
        layout: the positions of the file's columns.
        delimiter: between cells; it cannot occur in a cell.
    Returns:
        example column -> text, unchanged from the file.
    Raises:
        RejectedRowError: the line is too long or not UTF-8, has too few or too many cells, or a selected one is empty.
    """
    return layout.row(decode_line(line).split(delimiter))


def make_reader(path: str, columns: dict[str, str], input_config: InputConfig) -> TsvReader:
    """Returns the reader of a file.

    Raises:
        UserError: a column is missing.
    """
    delimiter = input_config.delimiter or "\t"
    header = read_header_text(path, 1).split(delimiter)
    return TsvReader(find_columns(path, header, columns, "tabs" if delimiter == "\t" else repr(delimiter)), delimiter)
