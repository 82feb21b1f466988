"""What ExampleGen runs on Beam's workers: files to rows, rows to splits, splits to TFRecord shards.

Comes in: shards of the user's files. Goes out: Split-*/ and rejects/, and one summary a shard.
Read next: row_readers.py (what a row is), example_gen.py (what is made of the summaries).
"""

import collections
import dataclasses
import functools
import hashlib
import json
import re
import unicodedata
from collections.abc import Iterator

import apache_beam as beam
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from components.artifact import SPLITS
from components.layouts import Table
from components.row_readers import Row, Scan, Scans
from components.shards import shard_name
from components.text_files import DamagedFileError, Segment
from components.tf_records import ExampleEncoder, RecordWriter

_DIGITS = re.compile(r"\d+")
# A rejected line is kept so that it can be recognised, not to be worked with.
_MAX_REJECT_CHARACTERS = 1000


@dataclasses.dataclass(frozen=True)
class Splitter:
    """Deals rows out to splits by a hash, so that a row's split depends on its text and on nothing else.

    Equal up to case, digits and spaces means: the same split. The text that decides is that of the first column, what
    the model reads: had a test sentence's twin been trained on, the model would answer it from memory. What the model
    writes may recur ("Connection failed" answers many a question); tying that side as well would take the connected
    components of the whole corpus, and rows would move between splits as the corpus grows.

    Args:
        eval_share, test_share: shares of the rows, to be expected, not exact.
        seed: another seed, other splits.
    """

    eval_share: float
    test_share: float
    seed: int

    def split(self, text: str) -> str:
        """Returns the split of a row whose first column is `text`."""
        keyed = _keyed_hash(self.seed).copy()
        keyed.update(normalize(text).encode())
        point = int.from_bytes(keyed.digest(), "big") / 2**64
        if point < self.eval_share:
            return "eval"
        return "test" if point < self.eval_share + self.test_share else "train"


@functools.cache
def _keyed_hash(seed: int) -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=8, key=str(seed).encode())


def normalize(text: str) -> str:
    """Returns what is left of a text without case, digits, spaces and Unicode's compatible spellings."""
    return " ".join(_DIGITS.sub("0", unicodedata.normalize("NFKC", text).casefold()).split())


class ScanSegment(beam.DoFn):
    """(Path, segment) -> (segment, its Scan), so that others of the file know what stands before them.

    Args:
        tables: path -> Table. The path of an element is that of a table, the segment of one of the table's files.
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
    """The Examples artifact to be written.

    Args:
        uri: its folder.
        columns: of an example.
        num_shards: of each split.
    """

    uri: str
    columns: tuple[str, ...]
    num_shards: int


class WriteShard(beam.DoFn):
    """(index, segments) -> a shard of every split and of the rejects, written; yields its summary.

    Rows stay in the order in which they are read and shards follow from the files' sizes alone, so the bytes written
    are the same whatever the number of workers, and a shard written twice is written the same.

    Args:
        folder: what is written, and where.
        tables: path -> Table.
        splitter: deals out the rows of tables that no split was given for.
    """

    def __init__(self, folder: ShardFolder, tables: dict[str, Table], splitter: Splitter):
        self._folder = folder
        self._tables = tables
        self._splitter = splitter

    def process(self, element: tuple[int, list[Segment]], scans: Scans) -> Iterator[dict]:
        """Yields {"index", "num_examples" {split: n}, "reasons" {reason: n}, "first_reject", "damage"}."""
        index, segments = element
        writer = _ShardWriter(self._folder, index)
        damage = ""
        with writer:
            for segment in segments:
                try:
                    self._write_segment(segment, scans, writer)
                except DamagedFileError as error:
                    damage = str(error)
        yield {"index": index, "damage": damage, **writer.summary()}

    def _write_segment(self, segment: Segment, scans: Scans, writer: "_ShardWriter") -> None:
        table = self._tables[segment.path]
        for row in table.reader.read(segment, scans):
            if row.reason:
                writer.reject(segment.path, row)
            else:
                writer.write(table.split or self._splitter.split(next(iter(row.cells.values()))), row.cells)


class _ShardWriter:
    """Writes one shard of each split and of the rejects, and counts what it writes."""

    def __init__(self, folder: ShardFolder, index: int):
        name, rejects = (shard_name(stem, index, folder.num_shards) for stem in ("data_tfrecord", "rejects"))
        self._columns, self._encoder = folder.columns, ExampleEncoder(folder.columns, "bytes")
        self._records = {split: RecordWriter(f"{folder.uri}/Split-{split}/{name}") for split in SPLITS}
        rejects_path = f"{folder.uri}/rejects/{rejects}.jsonl"
        self._rejects = FileSystems.create(rejects_path, compression_type=CompressionTypes.UNCOMPRESSED)
        self._num_examples = collections.Counter()
        self._reasons = collections.Counter()
        self._first_reject = None

    def __enter__(self) -> "_ShardWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        for file in (*self._records.values(), self._rejects):
            file.close()

    def write(self, split: str, row: dict[str, str]) -> None:
        self._records[split].write(self._encoder.encode([row[column].encode() for column in self._columns]))
        self._num_examples[split] += 1

    def reject(self, path: str, row: Row) -> None:
        text = row.raw[: 4 * _MAX_REJECT_CHARACTERS].decode(errors="backslashreplace")[:_MAX_REJECT_CHARACTERS]
        reject = {"file": path, "line": row.number, "reason": row.reason, "detail": row.detail, "text": text}
        self._rejects.write(json.dumps(reject, ensure_ascii=False).encode() + b"\n")
        self._reasons[row.reason] += 1
        self._first_reject = self._first_reject or reject

    def summary(self) -> dict:
        return {
            "num_examples": dict(self._num_examples),
            "reasons": dict(self._reasons),
            "first_reject": self._first_reject,
        }
