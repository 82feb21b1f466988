"""Parallel files: a column each, line by line.

Comes in: segments of the first file, scans of all. Goes out: rows, or the reason there is none.
Read next: row_readers.py, the readers of single files.
"""

import itertools
from collections.abc import Iterator

from components.row_readers import (
    BYTE_ORDER_MARK,
    RejectedRowError,
    Row,
    RowReader,
    Scan,
    Scans,
    checked,
    decoded,
    scan_before,
)
from components.text_files import DamagedFileError, Segment, count_lines, read_lines


class ParallelReader(RowReader):
    """Plain text in as many files as there are columns; lines of the same number are a row, empty lines too.

    Args:
        paths: example column -> its file. Segments to read are those of the first.
        segments: of all the files.
    """

    def __init__(self, paths: dict[str, str], segments: list[Segment]):
        self._paths = paths
        self._segments = segments

    def to_scan(self, segments: list[Segment]) -> list[Segment]:
        return self._segments

    def scan(self, segment: Segment) -> Scan:
        return Scan(count_lines(segment))

    def read(self, segment: Segment, scans: Scans) -> Iterator[Row]:
        if not segment.start:
            self._check_lengths(scans)
        first = scan_before(segment, scans).lines
        others = [self._lines_from(path, first, scans) for path in list(self._paths.values())[1:]]
        for number, lines in enumerate(zip(read_lines(segment), *others, strict=False), start=first + 1):
            if number == 1:
                lines = [line.removeprefix(BYTE_ORDER_MARK) for line in lines]
            try:
                cells = {column: decoded(line) for column, line in zip(self._paths, lines, strict=True)}
                yield Row(number, b"\t".join(lines), checked(cells), "")
            except RejectedRowError as error:
                yield Row(number, b"\t".join(lines), {}, str(error), error.detail)

    def _check_lengths(self, scans: Scans) -> None:
        mine = {path: [scans[s] for s in self._segments if s.path == path] for path in self._paths.values()}
        for scan in itertools.chain.from_iterable(mine.values()):
            if scan.damage:
                raise DamagedFileError(scan.damage)
        counts = {path: sum(scan.lines for scan in found) for path, found in mine.items()}
        if len(set(counts.values())) > 1:
            found = ", ".join(f"{path} has {n} lines" for path, n in counts.items())
            raise DamagedFileError(f"parallel files must have a line for each other's: {found}")

    def _lines_from(self, path: str, first: int, scans: Scans) -> Iterator[bytes]:
        """Yields the lines of a file after the first `first`."""
        mine = sorted((s for s in self._segments if s.path == path), key=lambda segment: segment.start)
        start = 0
        while start + 1 < len(mine) and scans[mine[start]].lines <= first:
            first -= scans[mine[start]].lines
            start += 1
        return itertools.islice(read_lines(Segment(path, mine[start].start, None)), first, None)
