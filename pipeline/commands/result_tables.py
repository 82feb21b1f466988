"""Tables of an evaluation that fit a terminal; the report has all of their rows and columns."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

NUM_ROWS = 15  # of a table that is too long
NUM_PAIRS = 10  # of a confusion matrix that is too wide
MAX_CELL_WIDTH = 28  # of a long label; two of them and the numbers fit 80 columns
_IN_REPORT = "the report has all"


def result_tables(tables: Sequence[Mapping[str, Any]], console: Console) -> Iterator[Table]:
    """Yields tables that are no longer than NUM_ROWS and no wider than a console.

    Args:
        tables: ResultTables of components/tasks/implementation.py, as JSON. A matrix that does not fit becomes a list
            of its most frequent errors; of any other table that is too long, the rows with the lowest last column
            remain.
        console: whose width counts; without a terminal it is 80 columns, or the environment variable COLUMNS.
    """
    for table in tables:
        title, header, rows = table["title"], table["header"], table["rows"]
        if table.get("is_matrix"):
            whole = make_table(title, header, rows)
            is_wide = Measurement.get(console, console.options.update(max_width=10_000), whole).maximum > console.width
            yield _worst_pairs(title, header, rows) if is_wide or len(rows) > NUM_ROWS else whole
        elif len(rows) > NUM_ROWS:
            shown = sorted(rows, key=lambda row: _number(row[-1]))[:NUM_ROWS]
            title = f"{title}: the {NUM_ROWS} lowest in {header[-1]} of {len(rows)}; {_IN_REPORT}"
            yield make_table(title, header, shown)
        else:
            yield make_table(title, header, rows)


def make_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Returns a table in which long cells take several lines, so that the numbers after them keep their room."""
    table = Table(title=Text(title), title_justify="left")
    for name in header:
        table.add_column(Text(name), overflow="fold", max_width=MAX_CELL_WIDTH)
    for row in rows:
        # A label with control characters would change the terminal's state.
        table.add_row(*(Text(cell if cell.isprintable() else repr(cell)) for cell in row))
    return table


def _worst_pairs(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Returns the most frequent errors of a confusion matrix, each with its share of the rows of the right label."""
    totals = {row[0]: sum(map(int, row[1:])) for row in rows}
    pairs = [
        (int(count), row[0], name)
        for row in rows
        for name, count in zip(header[1:], row[1:], strict=True)
        if name != row[0] and int(count)
    ]
    worst = sorted(pairs, key=lambda pair: (-pair[0], pair[1:]))[:NUM_PAIRS]
    cells = [(right, wrong, f"{count:,}", f"{count / totals[right]:.0%}") for count, right, wrong in worst]
    shown = f"the {len(worst)} most frequent of {len(pairs):,} pairs with errors; {_IN_REPORT}"
    return make_table(f"{title.partition(':')[0]}: {shown}", ("right label", "predicted label", "rows", "share"), cells)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0  # a column without numbers keeps its order
