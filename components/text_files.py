"""Text files as numbered lines, cut so that several workers can share one file.

Comes in: files on any of Beam's file systems, plain or compressed. Goes out: shards of the files, and their lines.
Read next: row_readers.py, which makes rows of the lines.
"""

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Iterator
from typing import BinaryIO

import pyarrow
from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems

from components.errors import UserError
from components.file_formats import compression

# A line longer than this is no sentence. It is reported, not held in memory.
MAX_LINE_BYTES = 1 << 20
# What one worker reads at a time, and so the size of a shard of Examples: with two workers, 50 MB keep both busy.
SHARD_BYTES = 8 << 20

_CHUNK_BYTES = 1 << 20


class DamagedFileError(Exception):
    """A file is not what its name says, or ends too early; the message names it."""


@dataclasses.dataclass(frozen=True)
class TextFile:
    """A file. `size`: bytes on disk; `whole`: it may not be cut, though it could be."""

    path: str
    size: int
    whole: bool = False

    @property
    def compressed(self) -> bool:
        """Returns whether the name says that it is compressed, and so can only be read from its beginning."""
        return bool(compression(self.path))


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
        step = max(file.size, 1) if file.compressed or file.whole else shard_bytes
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
        DamagedFileError: a compressed file is not what it says, or ends too early.
    """
    with opened(segment.path) as stream:
        position = _first_line(stream, segment) if segment.start else 0
        end = math.inf if segment.end is None else segment.end
        if segment.start:
            stream.seek(position)
        lines = _lines(stream)
        while position < end and (found := next(lines, None)):
            line, size = found
            yield line.removesuffix(b"\r")
            position += size


def _first_line(stream: BinaryIO, segment: Segment) -> int:
    """Returns where the first line starts that starts in a segment, or where to look no further.

    The line before, which belongs to the segment before, may be longer than a segment: then none starts here, and its
    end is not looked for, lest every segment of a file that is one line read all of it.
    """
    position = segment.start - 1  # where that line may end
    stream.seek(position)
    while (segment.end is None or position < segment.end) and (chunk := stream.read(_CHUNK_BYTES)):
        found = chunk.find(b"\n")
        if found >= 0:
            return position + found + 1
        position += len(chunk)
    return position


def count_lines(segment: Segment) -> int:
    """Returns how many lines `read_lines` yields, where the segment has an end without looking at them."""
    if segment.end is None:
        return sum(1 for _ in read_lines(segment))
    with opened(segment.path) as stream:
        position = max(segment.start - 1, 0)
        stream.seek(position)
        # A line begins after each line end but the file's last.
        count = 1 if segment.start == 0 else 0
        last = segment.end - 1
        while position < last and (chunk := stream.read(min(_CHUNK_BYTES, last - position))):
            count += chunk.count(b"\n")
            position += len(chunk)
    return count


def read_first_lines(path: str, number: int) -> list[bytes]:
    """Returns the first lines of a file, fewer if it has fewer.

    Raises:
        UserError: the file cannot be opened, or is damaged.
    """
    with _explained(path):
        return list(itertools.islice(read_lines(Segment(path, 0, None)), number))


def read_beginning(path: str, size: int) -> bytes:
    """Returns the first bytes of what a file holds, unpacked; fewer if it has fewer.

    Raises:
        UserError: the file cannot be opened, or is damaged.
    """
    with _explained(path), opened(path) as stream:
        return stream.read(size)


@contextlib.contextmanager
def _explained(path: str) -> Iterator[None]:
    try:
        yield
    except (OSError, BeamIOError, DamagedFileError) as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise UserError(f"{path}: cannot be read: {reason}") from error


@contextlib.contextmanager
def opened(path: str) -> Iterator[BinaryIO]:
    """Opens a file for reading what it holds, unpacked."""
    with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        codec = compression(path)
        yield _Unpacked(path, file, codec) if codec else file


class _Unpacked:
    """What a compressed file holds. Unlike Python's own readers, Arrow's notices a Zstandard file that was cut off."""

    def __init__(self, path: str, file: BinaryIO, codec: str):
        self._path = path
        self._stream = pyarrow.CompressedInputStream(pyarrow.PythonFile(file, mode="r"), codec)

    def read(self, size: int) -> bytes:
        try:
            return self._stream.read(size)
        except OSError as error:
            raise DamagedFileError(
                f"{self._path}: cut off or damaged: {error}; fetch or make the file again"
            ) from error


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
