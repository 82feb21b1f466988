"""Text files as numbered lines, cut so that several workers can share one file.

Comes in: files on any of Beam's file systems. Goes out: shards of the files, and the lines of each.
Read next: example_gen_beam.py, which makes examples of the lines.
"""

import dataclasses
import gzip
import itertools
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems

from components.errors import UserError

# A line longer than this is no sentence. It is reported, not held in memory.
MAX_LINE_BYTES = 1 << 20
# What one worker reads at a time, and so the size of a shard of Examples: with two workers, 100 MB keep both busy.
SHARD_BYTES = 16 << 20
# What a cut-off or damaged .gz raises.
DAMAGED = (EOFError, gzip.BadGzipFile, zlib.error)

_CHUNK_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class TextFile:
    """A file. `size`: bytes on disk."""

    path: str
    size: int

    @property
    def compressed(self) -> bool:
        """Returns whether the name says that it is compressed, and so can only be read from its beginning."""
        return self.path.endswith(".gz")


@dataclasses.dataclass(frozen=True)
class Segment:
    """The lines of a file that begin in [start, end), in bytes; `end` is None for the end of the file."""

    path: str
    start: int
    end: int | None


def plan_shards(files: list[TextFile], shard_bytes: int) -> list[list[Segment]]:
    """Cuts files into shards of about the same size; the plan depends on nothing but the files' names and sizes.

    Args:
        files: in the order in which they are to be read.
        shard_bytes: the size aimed at. Large files are cut, small ones share a shard; a compressed one is one.
    Returns:
        The segments of each shard.
    """
    shards, room = [], 0
    for file in files:
        step = shard_bytes if not file.compressed else max(file.size, 1)
        for start in range(0, max(file.size, 1), step):
            end = start + step if start + step < file.size else None
            size = (file.size if end is None else end) - start
            if not shards or file.compressed or size > room:
                shards.append([])
                room = shard_bytes
            shards[-1].append(Segment(file.path, start, end))
            room = 0 if file.compressed else room - size
    return shards


def read_lines(segment: Segment) -> Iterator[bytes]:
    """Yields the lines of a segment without their ends ("\\n" or "\\r\\n").

    Of a line longer than `MAX_LINE_BYTES` only somewhat more than that comes back.

    Raises:
        One of `DAMAGED`: a compressed file is not what it says, or ends too early.
    """
    with FileSystems.open(segment.path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        stream = gzip.GzipFile(fileobj=file) if segment.path.endswith(".gz") else file
        position = segment.start
        if position:
            # The line that begins before `start` belongs to the segment before; it may end just before `start`.
            position -= 1
            stream.seek(position)
        lines = _lines(stream)
        if segment.start:
            position += next(lines, (b"", 0))[1]
        for line, size in lines:
            if segment.end is not None and position >= segment.end:
                return
            yield line.removesuffix(b"\r")
            position += size


def count_lines(segment: Segment) -> int:
    """Returns how many lines `read_lines` yields, without looking at them. Not for compressed files."""
    with FileSystems.open(segment.path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        position = max(segment.start - 1, 0)
        file.seek(position)
        # A line begins after each line end but the file's last.
        count = 1 if segment.start == 0 else 0
        last = segment.end - 1
        while position < last and (chunk := file.read(min(_CHUNK_BYTES, last - position))):
            count += chunk.count(b"\n")
            position += len(chunk)
    return count


def read_first_line(path: str) -> bytes:
    """Returns the first line of a file, empty if the file is.

    Raises:
        UserError: the file cannot be opened, or is damaged.
    """
    try:
        return next(itertools.islice(read_lines(Segment(path, 0, None)), 1), b"")
    except (OSError, BeamIOError, *DAMAGED) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error


def _lines(stream: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Yields each line without its "\\n", with the bytes it takes in the stream."""
    tail, dropped = b"", 0
    while chunk := stream.read(_CHUNK_BYTES):
        *lines, tail = (tail + chunk).split(b"\n")
        for line in lines:
            yield line, len(line) + dropped + 1
            dropped = 0
        if len(tail) > MAX_LINE_BYTES:
            dropped += len(tail) - MAX_LINE_BYTES - 1
            tail = tail[: MAX_LINE_BYTES + 1]
    if tail:
        yield tail, len(tail) + dropped
