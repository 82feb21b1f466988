"""What ExampleGen runs on Beam's workers: lines to rows, rows to splits, splits to TFRecord shards.

Comes in: shards of text files. Goes out: Split-*/ and rejects/, and one summary a shard.
Read next: text_files.py (how files are cut), example_gen.py (what is made of the summaries).
"""

import collections
import dataclasses
import hashlib
import json
import re
import unicodedata
from collections.abc import Iterator

import apache_beam as beam
import tensorflow as tf

from components.artifact import SPLITS
from components.examples_io import shard_name
from components.text_files import DAMAGED, MAX_LINE_BYTES, Segment, count_lines, read_lines

_DIGITS = re.compile(r"\d+")
# A rejected line is kept so that it can be recognised, not to be worked with.
_MAX_REJECT_CHARACTERS = 1000


class RejectedRowError(ValueError):
    """A row that cannot become an example; the message is the reason, the same for all rows of its kind."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where a file's columns are.

    Args:
        positions: example column -> 0-based position in the file's rows.
        num_columns: cells that every row of the file has.
    """

    positions: dict[str, int]
    num_columns: int


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
        digest = hashlib.blake2b(normalize(text).encode(), digest_size=8, key=str(self.seed).encode()).digest()
        point = int.from_bytes(digest, "big") / 2**64
        if point < self.eval_share:
            return "eval"
        return "test" if point < self.eval_share + self.test_share else "train"


def normalize(text: str) -> str:
    """Returns what is left of a text without case, digits, spaces and Unicode's compatible spellings."""
    return " ".join(_DIGITS.sub("0", unicodedata.normalize("NFKC", text).casefold()).split())


def parse_row(line: bytes, layout: Layout) -> dict[str, str]:
    """Takes the columns out of a line of tab-separated text.

    Args:
        line: without its end.
        layout: of the file it stands in.
    Returns:
        example column -> text, as it stands in the file.
    Raises:
        RejectedRowError: it is too long, not UTF-8, has too few or too many cells, or an empty one.
    """
    if len(line) > MAX_LINE_BYTES:
        raise RejectedRowError(f"longer than {MAX_LINE_BYTES} bytes")
    try:
        cells = line.decode().split("\t")
    except UnicodeDecodeError as error:
        raise RejectedRowError("not valid UTF-8") from error
    if len(cells) != layout.num_columns:
        raise RejectedRowError("wrong number of columns")
    row = {column: cells[position] for column, position in layout.positions.items()}
    for column, text in row.items():
        if not text.strip():
            raise RejectedRowError(f"empty {column}")
    return row


class CountLines(beam.DoFn):
    """Segment -> (segment, how many lines begin in it), so that others of the file know their line numbers."""

    def process(self, segment: Segment) -> Iterator[tuple[Segment, int]]:
        yield segment, count_lines(segment)


class WriteShard(beam.DoFn):
    """(index, segments) -> a shard of every split and of the rejects, written; yields its summary.

    Rows stay in the order in which they are read and shards follow from the files' sizes alone, so the bytes written
    are the same whatever the number of workers, and a shard written twice is written the same.

    Args:
        uri: folder of the Examples artifact.
        total: number of shards.
        layouts: path -> Layout.
        splitter: deals the rows out.
    """

    def __init__(self, uri: str, total: int, layouts: dict[str, Layout], splitter: Splitter):
        self._uri = uri
        self._total = total
        self._layouts = layouts
        self._splitter = splitter

    def process(self, element: tuple[int, list[Segment]], line_counts: dict[Segment, int]) -> Iterator[dict]:
        """Yields {"index", "num_examples" {split: n}, "reasons" {reason: n}, "first_reject", "damage"}."""
        index, segments = element
        writer = _ShardWriter(self._uri, index, self._total)
        damage = ""
        with writer:
            for segment in segments:
                first = 1 + sum(n for s, n in line_counts.items() if s.path == segment.path and s.start < segment.start)
                try:
                    self._write_segment(segment, first, writer)
                except DAMAGED as error:
                    damage = f"{segment.path}: cut off or damaged: {error}"
        yield {"index": index, "damage": damage, **writer.summary()}

    def _write_segment(self, segment: Segment, first: int, writer: "_ShardWriter") -> None:
        layout = self._layouts[segment.path]
        for number, line in enumerate(read_lines(segment), start=first):
            if number == 1:
                continue  # the header
            try:
                row = parse_row(line, layout)
            except RejectedRowError as error:
                writer.reject(segment.path, number, str(error), line)
            else:
                writer.write(self._splitter.split(next(iter(row.values()))), row)


class _ShardWriter:
    """Writes one shard of each split and of the rejects, and counts what it writes."""

    def __init__(self, uri: str, index: int, total: int):
        name = shard_name("data_tfrecord", index, total)
        rejects_path = f"{uri}/rejects/{shard_name('rejects', index, total)}.jsonl"
        self._records = {split: tf.io.TFRecordWriter(f"{uri}/Split-{split}/{name}") for split in SPLITS}
        self._rejects = tf.io.gfile.GFile(rejects_path, "w")
        self._num_examples = collections.Counter()
        self._reasons = collections.Counter()
        self._first_reject = None

    def __enter__(self) -> "_ShardWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        self._rejects.write("")  # so that a shard without rejects has its file, too
        for file in (*self._records.values(), self._rejects):
            file.close()

    def write(self, split: str, row: dict[str, str]) -> None:
        example = tf.train.Example()
        for column, text in row.items():
            example.features.feature[column].bytes_list.value.append(text.encode())
        self._records[split].write(example.SerializeToString(deterministic=True))
        self._num_examples[split] += 1

    def reject(self, path: str, number: int, reason: str, line: bytes) -> None:
        text = line.decode(errors="backslashreplace")[:_MAX_REJECT_CHARACTERS]
        reject = {"file": path, "line": number, "reason": reason, "text": text}
        self._rejects.write(json.dumps(reject, ensure_ascii=False) + "\n")
        self._reasons[reason] += 1
        self._first_reject = self._first_reject or reject

    def summary(self) -> dict:
        return {
            "num_examples": dict(self._num_examples),
            "reasons": dict(self._reasons),
            "first_reject": self._first_reject,
        }
