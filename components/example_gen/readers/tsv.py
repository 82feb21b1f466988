"""The reader of tab-separated files. Quotation marks are text, unless the file is written with quoted cells."""

import dataclasses

from seq2serve.components.example_gen.config import InputConfig
from seq2serve.components.example_gen.readers.base import Layout, LineReader, RejectedRowError, decode_line
from seq2serve.components.example_gen.readers.csv import MAX_HEADER_LINES, CsvReader, check_delimiter, csv_header
from seq2serve.components.example_gen.readers.layout import find_columns, read_header
from seq2serve.components.example_gen.readers.quoting import detect_quoting
from seq2serve.components.example_gen.text_files import TextFile

_QUOTED_TSV_HINT = "quotation marks are read as text; if they delimit cells, use --set data.quoting=csv"


class TsvReader(LineReader):
    """Cells separated by tabs or another delimiter. There is no quoting, so every line is a row.

    Args:
        layout: the positions of the columns.
        delimiter: of any length.
        first_row: the number of the first line that is a row.
        note: see RowReader.
    """

    def __init__(self, layout: Layout, delimiter: str, first_row: int, note: str):
        self._layout = layout
        self._delimiter = delimiter
        self.first_row = first_row
        self.note = note

    def parse(self, line: bytes) -> dict[str, str]:
        try:
            return self._layout.row(decode_line(line).split(self._delimiter))
        except RejectedRowError as error:
            if error.detail and any(cell.startswith(b'"') for cell in line.split(self._delimiter.encode())):
                raise RejectedRowError(str(error), f"{error.detail}; {_QUOTED_TSV_HINT}") from error
            raise


def make_reader(file: TextFile, columns: dict[str, str], input_config: InputConfig) -> TsvReader | CsvReader:
    """Returns the reader of a file: a CsvReader if its cells are quoted.

    Raises:
        UserError: a column is missing, or the delimiter has several characters and quoting is on.
    """
    header = read_header(file, MAX_HEADER_LINES)
    delimiter = input_config.delimiter or header.separator or "\t"
    named_delimiter = "tabs" if delimiter == "\t" else repr(delimiter)
    cells, quoting, note = header.lines[0].split(delimiter), input_config.quoting, ""
    if quoting == "csv":
        check_delimiter(file.path, delimiter)
    elif quoting == "auto" and len(delimiter) == 1 and delimiter != '"':
        is_numbered = all(name.isdecimal() and name not in cells for name in columns.values())
        is_csv, note = detect_quoting(file, delimiter, cells, header.first + (not is_numbered))
        quoting = "csv" if is_csv else "none"
    if quoting == "csv":
        cells, _ = csv_header(header.lines, delimiter)
    layout = find_columns(header, cells, columns, named_delimiter)
    layout = dataclasses.replace(layout, optional=input_config.optional)
    if quoting == "csv":
        return CsvReader(layout, delimiter, header.first, note)
    return TsvReader(layout, delimiter, header.first + layout.has_header, note)
