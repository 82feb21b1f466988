"""The reader of parallel files: one plain text file per column, aligned line by line."""

import dataclasses
import itertools
from collections.abc import Iterator

from seq2serve.components.example_gen.encodings import BYTE_ORDER_MARK
from seq2serve.components.example_gen.readers.base import (
    RejectedRowError,
    Row,
    RowReader,
    Rows,
    Scan,
    Scans,
    decode_line,
    require_text,
    scan_before,
)
from seq2serve.components.example_gen.text_files import DamagedFileError, Segment, count_lines, read_lines


class ParallelReader(RowReader):
    """One plain text file per column; the lines with the same number are a row, even if they are empty.

    Args:
        paths: example column -> its file. The segments to read are those of the first file.
        segments: the segments of all files.
    """

    def __init__(self, paths: dict[str, str], segments: list[Segment]):
        self._paths = paths
        self._segments = segments

    def to_scan(self, segments: list[Segment]) -> list[Segment]:
        return self._segments

    def scan(self, segment: Segment) -> Scan:
        return Scan(count_lines(segment))

    def read(self, segment: Segment, scans: Scans) -> Rows:
        if not segment.start:
            self._check_lengths(scans)
        first = scan_before(segment, scans).lines
        other_files = [self._lines_from(path, first, scans) for path in list(self._paths.values())[1:]]
        for number, lines in enumerate(zip(read_lines(segment), *other_files, strict=False), start=first + 1):
            if number == 1:
                lines = [line.removeprefix(BYTE_ORDER_MARK) for line in lines]
            try:
                cells = {column: self._decode(column, line) for column, line in zip(self._paths, lines, strict=True)}
                yield Row(number, b"\t".join(lines), require_text(cells), "")
            except RejectedRowError as error:
                yield Row(number, b"\t".join(lines), {}, str(error), error.detail)

    def _decode(self, column: str, line: bytes) -> str:
        try:
            return decode_line(line)
        except RejectedRowError as error:  # the reject has the path of the first file
            detail = f"in {self._paths[column]}"
            raise RejectedRowError(str(error), f"{detail}: {error.detail}" if error.detail else detail) from error

    def _check_lengths(self, scans: Scans) -> None:
        for segment in self._segments:
            if damage := scans[segment].damage:
                raise DamagedFileError(damage, path=segment.path)
        counts = {
            path: sum(scans[segment].lines for segment in self._segments if segment.path == path)
            for path in self._paths.values()
        }
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{path} has {count} lines" for path, count in counts.items())
            raise DamagedFileError(
                f"parallel files must have the same number of lines: {listed}",
                code="parallel-lines-mismatched",
                counts=counts,
            )

    def _lines_from(self, path: str, first: int, scans: Scans) -> Iterator[bytes]:
        """Yields the lines of a file after the first `first` lines."""
        segments = sorted((s for s in self._segments if s.path == path), key=lambda segment: segment.start)
        index = 0
        while index + 1 < len(segments) and scans[segments[index]].lines <= first:
            first -= scans[segments[index]].lines
            index += 1
        return itertools.islice(read_lines(dataclasses.replace(segments[index], end=None)), first, None)
