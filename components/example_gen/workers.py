"""The Beam transforms of ExampleGen: files to rows, rows to splits, splits to TFRecord shards."""

import collections
import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping

import apache_beam as beam

from seq2serve.components.base.artifact import SPLITS
from seq2serve.components.example_gen.encodings import NOT_UTF8
from seq2serve.components.example_gen.readers.base import Row, Rows, Scan, Scans
from seq2serve.components.example_gen.splitting import MAX_LABELS, Splitter, row_hash
from seq2serve.components.example_gen.tables import Table
from seq2serve.components.example_gen.text_files import DamagedFileError, Segment
from seq2serve.components.storage.beam_files import create_file
from seq2serve.components.storage.shards import shard_name
from seq2serve.components.storage.tf_records import ExampleEncoder, RecordWriter

# The text of a reject only has to identify the row, so it is shortened.
_MAX_REJECT_CHARACTERS = 1000


class ScanSegment(beam.DoFn):
    """(path, segment) -> (segment, its Scan), which readers of other segments of the same file need.

    Args:
        tables: path -> Table. The path of an element is a key; its segment is of one of the table's files.
    """

    def __init__(self, tables: dict[str, Table]):
        self._tables = tables

    def process(self, element: tuple[str, Segment]) -> Iterator[tuple[Segment, Scan]]:
        path, segment = element
        try:
            yield segment, self._tables[path].reader.scan(segment)
        except DamagedFileError as error:
            yield segment, Scan(damage=str(error))


@dataclasses.dataclass(frozen=True)
class ShardFolder:
    """The Examples artifact to write.

    Args:
        uri: its folder.
        columns: the columns of an example, with that of its corpus if there are several.
        slice_columns: further columns of the examples of the test split, the only ones of which metrics are sliced.
        num_shards: split of some files, or "" for files whose rows are assigned by hash -> number of their shards. The
            indices of shards count through all of them, in this order.
    """

    uri: str
    columns: tuple[str, ...]
    slice_columns: tuple[str, ...]
    num_shards: Mapping[str, int]

    def records(self, index: int) -> dict[str, str]:
        """Returns split -> path of its records in a shard, for each split to which rows of its files can belong."""
        for group, number in self.num_shards.items():
            if index < number:
                splits = [group] if group else [split for split in SPLITS if split not in self.num_shards]
                name = shard_name("data_tfrecord", index, number)
                return {split: f"{self.uri}/Split-{split}/{name}" for split in splits}
            index -= number
        raise IndexError("more shards than were planned")

    def rejects(self, index: int) -> str:
        """Returns the path of the rejects of a shard."""
        return f"{self.uri}/rejects/{shard_name('rejects', index, sum(self.num_shards.values()))}.jsonl"

    def split_columns(self, split: str) -> tuple[str, ...]:
        """Returns the columns of the examples of a split."""
        return self.columns + (self.slice_columns if split == "test" else ())


class HashRows(beam.DoFn):
    """(index, segments) -> the sorted hashes of some rows, each once; nothing if there are none.

    Args:
        tables: path -> Table. Segments of other files are skipped.
        select: (split of the row's file or "", row) -> a hash of the row; empty for rows that are not selected.
    """

    def __init__(self, tables: dict[str, Table], select: Callable[[str, Row], str]):
        self._tables = tables
        self._select = select

    def process(self, element: tuple[int, list[Segment]], scans: Scans) -> Iterator[list[str]]:
        hashes = {""}
        for segment in element[1]:
            if table := self._tables.get(segment.path):
                rows = table.completed(table.reader.read(segment, scans))
                # The pipeline that writes the rows reports damage.
                with contextlib.suppress(DamagedFileError):
                    hashes.update(self._select(table.split, row) for row in rows if not row.reason)
        if hashes := sorted(hashes - {""}):
            yield hashes


class WriteShard(beam.DoFn):
    """(index, segments) -> summary of a shard: the records of each split and the rejects, which it writes.

    Rows keep the order in which they are read, and shards depend only on the files' sizes. The bytes are therefore the
    same for any number of workers, and the same if a shard is written twice.

    Args:
        folder: the artifact to write.
        tables: path -> Table.
        splitter: assigns the rows of tables that have no split.
        columns: the columns that make rows equal.
    """

    def __init__(self, folder: ShardFolder, tables: dict[str, Table], splitter: Splitter, columns: tuple[str, ...]):
        self._folder = folder
        self._tables = tables
        self._splitter = splitter
        self._columns = columns

    def process(self, element: tuple[int, list[Segment]], scans: Scans, held_out: list[list[str]]) -> Iterator[dict]:
        """Writes a shard.

        Args:
            element: its index and segments.
            scans: of earlier segments.
            held_out: hashes of rows; equal rows are dropped from the train split.
        Yields:
            {"index", "num_examples" {split: n}, "digests" {split: SHA-256 of its records}, "num_hashed" {split: n}
            (rows of tables without a split),
            "num_dropped", "reasons" {reason: n}, "labels" {column: {split: {label: n}}}, "files" {path: FileCounts},
            "corpora" {name: {split: n}}, "damages"}.
        """
        index, segments = element
        dropped = frozenset().union(*held_out)
        damages = []
        with contextlib.closing(_ShardWriter(self._folder, index)) as writer:
            for segment in segments:
                try:
                    self._write_segment(segment, scans, dropped, writer)
                except DamagedFileError as error:
                    damages.append({"message": str(error), "code": error.code, "fields": error.fields})
        yield {"index": index, "damages": damages, **writer.summary()}

    def _write_segment(self, segment: Segment, scans: Scans, dropped: frozenset[str], writer: "_ShardWriter") -> None:
        table = self._tables[segment.path]
        rows = writer.counting_lines(segment.path, table.reader.read(segment, scans))
        for row in table.completed(rows):
            writer.count(segment.path, row)
            if row.reason:
                writer.reject(segment.path, row)
                continue
            split = self._splitter.split_of(table.split, row)
            if dropped and split == "train" and row_hash(row.cells, self._columns) in dropped:
                writer.num_dropped += 1
            else:
                writer.write(split, row.cells, is_hashed=not table.split and row.position is None)
                writer.count_labels(split, row.cells, table.label_columns)
                if table.corpus:
                    writer.count_corpus(split, table.corpus)


def reject_line(reject: dict) -> bytes:
    """Returns a reject as a line of JSON."""
    return json.dumps(reject, ensure_ascii=False).encode() + b"\n"


@dataclasses.dataclass
class FileCounts:
    """The rows of a file: all, rejected, with characters beyond ASCII, and of these not UTF-8; and the first reject.

    `lines`: of the segment, if its rows are numbered from its beginning.
    """

    rows: int = 0
    rejected: int = 0
    beyond_ascii: int = 0
    not_utf8: int = 0
    lines: int = 0
    first_reject: dict | None = None


class _ShardWriter:
    """Writes the records of each split and the rejects of a shard, and counts the rows."""

    def __init__(self, folder: ShardFolder, index: int):
        self._records = {split: RecordWriter(path) for split, path in folder.records(index).items()}
        self._columns = {split: folder.split_columns(split) for split in self._records}
        self._encoders = {split: ExampleEncoder(columns, "bytes") for split, columns in self._columns.items()}
        self._digests = {split: hashlib.sha256() for split in self._records}
        self._rejects = create_file(folder.rejects(index))
        self._num_examples, self._num_hashed = collections.Counter(), collections.Counter()
        self._corpora: dict[str, collections.Counter] = {}
        self._labels: dict[str, dict[str, collections.Counter]] = {}
        self.num_dropped = 0
        self._reasons = collections.Counter()
        self._files: dict[str, FileCounts] = collections.defaultdict(FileCounts)

    def close(self) -> None:
        for file in (*self._records.values(), self._rejects):
            file.close()

    def write(self, split: str, row: dict[str, str], is_hashed: bool) -> None:
        record = self._encoders[split].encode([row[column].encode() for column in self._columns[split]])
        self._records[split].write(record)
        self._digests[split].update(record)  # a record begins with its length, so they cannot run together
        self._num_examples[split] += 1
        self._num_hashed[split] += is_hashed

    def count_labels(self, split: str, row: dict[str, str], columns: tuple[str, ...]) -> None:
        for column in columns:
            counts = self._labels.setdefault(column, {}).setdefault(split, collections.Counter())
            if len(counts) <= MAX_LABELS:
                counts[row[column]] += 1

    def count_corpus(self, split: str, name: str) -> None:
        self._corpora.setdefault(name, collections.Counter())[split] += 1

    def count(self, path: str, row: Row) -> None:
        counts = self._files[path]
        counts.rows += 1
        counts.rejected += bool(row.reason)
        if not row.raw.isascii():
            counts.beyond_ascii += 1
            counts.not_utf8 += row.reason == NOT_UTF8

    def counting_lines(self, path: str, rows: Rows) -> Iterator[Row]:
        """Yields the rows of a segment, and records how many lines it has, if `rows` returns that."""
        self._files[path].lines = (yield from rows) or 0

    def reject(self, path: str, row: Row) -> None:
        text = row.raw[: 4 * _MAX_REJECT_CHARACTERS].decode(errors="backslashreplace")[:_MAX_REJECT_CHARACTERS]
        reject = {"file": path, "line": row.number, "reason": row.reason, "detail": row.detail, "text": text}
        self._rejects.write(reject_line(reject))
        self._reasons[row.reason] += 1
        counts = self._files[path]
        counts.first_reject = counts.first_reject or reject

    def summary(self) -> dict:
        return {
            "num_examples": dict(self._num_examples),
            "digests": {split: digest.hexdigest() for split, digest in self._digests.items()},
            "num_hashed": dict(self._num_hashed),
            "num_dropped": self.num_dropped,
            "labels": self._labels,
            "corpora": self._corpora,
            "reasons": dict(self._reasons),
            "files": {path: dataclasses.asdict(counts) for path, counts in self._files.items()},
        }
