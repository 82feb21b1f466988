"""Whether the cells of a TSV file are quoted as in CSV, as pandas and Excel write them, or quotation marks are text."""

import contextlib
import dataclasses
import itertools
import re

from seq2serve.components.example_gen.text_files import DamagedFileError, Segment, TextFile, read_lines, sample_segments

# Larger files are sampled, evenly: this happens before the workers start, for one file after the other.
_SAMPLE_BYTES, _NUM_PIECES = 4 << 20, 8
_MAX_ROW_LINES = 100  # of a quoted row; an unbalanced mark is not searched for further
# A column is quoted throughout if this share of its cells is: damaged rows may not be.
_MIN_QUOTED_SHARE = 0.9
_MIN_COMMA_CELLS = 3


@dataclasses.dataclass
class _Evidence:
    """Counts over a sample.

    Args:
        quoted, unquoted: of each column, the cells that are (not) in quotation marks; empty ones are not counted.
        needed: rows with marks that CSV needs: around a delimiter, a line end or a doubled mark, or in the header.
        broken: rows with marks that CSV does not allow.
        commas: whether a cell is quoted and whether it has a comma -> cells. Excel quotes exactly those with a comma.
    """

    quoted: list[int]
    unquoted: list[int]
    needed: int = 0
    broken: int = 0
    commas: dict[tuple[bool, bool], int] = dataclasses.field(
        default_factory=lambda: dict.fromkeys(itertools.product((False, True), repeat=2), 0)
    )

    def is_csv(self) -> bool:
        """Returns whether the cells are quoted as in CSV."""
        columns = zip(self.quoted, self.unquoted, strict=True)
        if any(quoted and quoted >= _MIN_QUOTED_SHARE * (quoted + unquoted) for quoted, unquoted in columns):
            return True
        by_comma = self.commas[True, True] >= _MIN_COMMA_CELLS and not (
            self.commas[True, False] or self.commas[False, True]
        )
        return self.needed > self.broken or (by_comma and not self.broken)


def detect_quoting(file: TextFile, delimiter: str, names: list[str], first_row: int) -> tuple[bool, str]:
    """Detects whether quotation marks delimit the cells of a file. The result depends only on its content.

    Text may contain marks and begin with them: `"Go," he said.` Marks delimit cells in three cases:
    - CSV needs them (around a tab, a line end or a doubled mark) in more rows than have marks that CSV does not allow.
    - A whole column has them.
    - Exactly the cells with a comma have them.

    Args:
        file: a TSV file.
        delimiter: one character.
        names: the cells of its first row, split at delimiters.
        first_row: the number of its first line after the header.
    Returns:
        (whether they do, what the user should know about it or "").
    """
    pieces = [_sample(segment) for segment in sample_segments(file, _SAMPLE_BYTES, _NUM_PIECES)]
    if not any(b'"' in line for lines in pieces for line in lines):
        return False, ""
    evidence = _Evidence([0] * len(names), [0] * len(names))
    evidence.needed += first_row > 1 and any(map(_is_quoted, names))
    cell = re.compile(rf'(?:"(?:[^"]|"")*+"|[^"{re.escape(delimiter)}]*+)(?={re.escape(delimiter)}|\Z)')
    for index, lines in enumerate(pieces):
        rows = lines[0 if index else first_row - 1 :]
        _count([line.decode(errors="replace") for line in rows], cell, evidence)
    return _verdict(evidence)


def _sample(segment: Segment) -> list[bytes]:
    lines, size = [], 0
    with contextlib.suppress(DamagedFileError):  # it is reported when all rows are read
        for line in read_lines(segment):
            lines.append(line)
            size += len(line)
            if size > _SAMPLE_BYTES:
                break
    return lines


def _verdict(evidence: _Evidence) -> tuple[bool, str]:
    if not evidence.needed and not any(evidence.quoted):
        return False, ""
    broken = f" ({evidence.broken} rows have other quotation marks)" if evidence.broken else ""
    if evidence.is_csv():
        text = "cells are quoted, as pandas and Excel do it, and read without the quotation marks"
        return True, f"{text}{broken}; if the marks are text, use --set data.quoting=none"
    text = "quotation marks around some cells are read as text"
    return False, f"{text}{broken}; if they only delimit cells, use --set data.quoting=csv"


def _count(lines: list[str], cell: re.Pattern, evidence: _Evidence) -> None:
    """Counts the rows that some lines contain."""
    index = 0
    while index < len(lines):
        row, length = _row(lines, index)
        cells = _split(row, cell)
        if cells is not None and len(cells) == len(evidence.quoted):
            for column, text in enumerate(cells):
                is_quoted = _is_quoted(text)
                (evidence.quoted if is_quoted else evidence.unquoted)[column] += bool(text)
                evidence.commas[is_quoted, "," in text] += 1
            evidence.needed += any(_needs_quotes(cell_text, cell) for cell_text in cells)
        else:
            # Of a row with a wrong number of cells, quotation marks are not the cause if it has none.
            evidence.broken += '"' in lines[index]
            evidence.unquoted = [number + 1 for number in evidence.unquoted]
            length = 1
        index += length


def _row(lines: list[str], index: int) -> tuple[str, int]:
    """Returns the row that begins in a line, and its number of lines: up to an even number of quotation marks."""
    marks = lines[index].count('"')
    if not marks % 2:
        return lines[index], 1
    for end in range(index + 1, min(index + _MAX_ROW_LINES, len(lines))):
        marks += lines[end].count('"')
        if not marks % 2:
            return "\n".join(lines[index : end + 1]), end + 1 - index
    return lines[index], 1


def _split(row: str, cell: re.Pattern) -> list[str] | None:
    """Returns the cells of a row, with their marks; None if CSV does not allow its marks."""
    cells, position = [], 0
    while match := cell.match(row, position):
        cells.append(match[0])
        if match.end() == len(row):
            return cells
        position = match.end() + 1
    return None


def _is_quoted(text: str) -> bool:
    return len(text) > 1 and text[0] == text[-1] == '"'


def _needs_quotes(text: str, cell: re.Pattern) -> bool:
    """Returns whether a cell that may be quoted has a delimiter, a line end or a quotation mark inside."""
    if not _is_quoted(text):
        return False
    inner = text[1:-1]
    return '"' in inner or "\n" in inner or cell.fullmatch(inner) is None
