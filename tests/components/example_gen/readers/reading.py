"""Reads a table as ExampleGen does: cut into segments, whose rows are numbered through the file."""

from collections.abc import Iterator

from seq2serve.components.example_gen.readers.base import Row, Rows
from seq2serve.components.example_gen.tables import Table
from seq2serve.components.example_gen.text_files import plan_shards


def read_table(table: Table, shard_bytes: int) -> list[Row]:
    """Returns the rows of a file, or of parallel files, that is cut into shards of `shard_bytes`."""
    segments = [segment for shard in plan_shards([table.file], shard_bytes) for segment in shard]
    scans = {segment: table.reader.scan(segment) for segment in table.reader.to_scan(segments)}
    rows, lines = [], [0]

    def with_lines(segment_rows: Rows) -> Iterator[Row]:
        lines.append((yield from segment_rows) or 0)

    for segment in segments:
        before = sum(lines)
        rows += [r._replace(number=r.number + before) for r in with_lines(table.reader.read(segment, scans))]
    return rows
