"""Text files as numbered lines, cut so that several workers can share one file.

Comes in: files on any of Beam's file systems, plain or compressed. Goes out: shards of the files, and their lines.
Read next: row_readers.py, which makes rows of the lines.
"""

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator
from typing import BinaryIO

import pyarrow
from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems

from components.errors import UserError
from components.file_formats import compression

# A line longer than this is no sentence. It is reported, not held in memory.
MAX_LINE_BYTES = 1 << 20
# What one worker reads at a time, and so the size of a shard of Examples: with two workers, 100 MB keep both busy.
SHARD_BYTES = 16 << 20

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
    with _opened(segment.path) as stream:
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
    """Returns how many lines `read_lines` yields, where the segment has an end without looking at them."""
    if segment.end is None:
        return sum(1 for _ in read_lines(segment))
    with _opened(segment.path) as stream:
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
    try:
        return list(itertools.islice(read_lines(Segment(path, 0, None)), number))
    except (OSError, BeamIOError, DamagedFileError) as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise UserError(f"{path}: cannot be read: {reason}") from error


@contextlib.contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
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
