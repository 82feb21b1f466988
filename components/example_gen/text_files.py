"""Text files as numbered lines, cut into segments that several workers read in parallel."""

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Iterator
from typing import Any, BinaryIO

import pyarrow
from apache_beam.io.filesystem import BeamIOError

from seq2serve.components.base.errors import UserError
from seq2serve.components.example_gen.encodings import Utf8Stream
from seq2serve.components.example_gen.formats import compression
from seq2serve.components.storage.beam_files import open_file

# Longer lines are rejected without being buffered.
MAX_LINE_BYTES = 1 << 20
# The input size of one shard of Examples, the unit of work. At this size 50 MB keep two workers busy.
SHARD_BYTES = 8 << 20

_CHUNK_BYTES = 1 << 20


class DamagedFileError(UserError):
    """A file is not in its format, or ends too early."""

    def __init__(self, message: str, *, code: str = "file-damaged", **fields: Any) -> None:
        super().__init__(message, code=code, **fields)


@contextlib.contextmanager
def errors_as_damage(path: str, *errors: type[Exception], problem: str = "truncated or corrupt") -> Iterator[None]:
    """Turns errors with which a library reports a damaged file into DamagedFileError."""
    try:
        yield
    except errors as error:
        raise DamagedFileError(f"{path}: {problem}: {error}; download or create the file again", path=path) from error


@dataclasses.dataclass(frozen=True)
class TextFile:
    """A file.

    Args:
        path: local or on any of Beam's file systems.
        size: bytes on disk.
        whole: it must not be cut, even if it is neither compressed nor converted.
        encoding: from which the text is converted to UTF-8; empty if it is UTF-8.
    """

    path: str
    size: int
    whole: bool = False
    encoding: str = ""

    @property
    def compressed(self) -> bool:
        """Returns whether the file is compressed, by its name, so that it can be read only from its start."""
        return bool(compression(self.path))


@dataclasses.dataclass(frozen=True)
class Segment:
    """The lines of a file that begin in the bytes [start, end).

    `end` is None for the end of the file; `encoding` is that of the file, as in TextFile.
    """

    path: str
    start: int
    end: int | None
    encoding: str = ""


def plan_shards(files: list[TextFile], shard_bytes: int) -> list[list[Segment]]:
    """Cuts files into shards of similar size. The plan depends only on the files' names and sizes.

    Args:
        files: in reading order.
        shard_bytes: the target size. Large files are cut, small ones share a shard, and a compressed file is one shard.
            Files that are converted to UTF-8 are not cut.
    Returns:
        The segments of each shard.
    """
    shards, room = [], 0
    for file in files:
        is_whole = file.compressed or file.whole or file.encoding
        step = max(file.size, 1) if is_whole else shard_bytes
        for start in range(0, max(file.size, 1), step):
            end = start + step if start + step < file.size else None
            size = (file.size if end is None else end) - start
            if not shards or file.compressed or size > room:
                shards.append([])
                room = shard_bytes
            shards[-1].append(Segment(file.path, start, end, file.encoding))
            room = 0 if file.compressed else room - size
    return shards


def read_lines(segment: Segment) -> Iterator[bytes]:
    """Yields the lines of a segment without their line ends ("\\n" or "\\r\\n").

    A line longer than `MAX_LINE_BYTES` is cut to slightly more than that.

    Raises:
        DamagedFileError: a compressed file is not in its format, or ends too early.
    """
    with open_decompressed(segment.path, segment.encoding) as stream:
        position = _first_line(stream, segment) if segment.start else 0
        end = math.inf if segment.end is None else segment.end
        if segment.start:
            stream.seek(position)
        lines = _lines(stream)
        while position < end and (sized_line := next(lines, None)):
            line, size = sized_line
            yield line.removesuffix(b"\r")
            position += size


def _first_line(stream: BinaryIO, segment: Segment) -> int:
    """Returns the position of the first line that starts in a segment, or one at or behind the segment's end.

    The line before belongs to an earlier segment and may be longer than this one. Its end is then not searched for:
    otherwise every segment of a file that consists of one line would read the whole file.
    """
    position = segment.start - 1  # the line before may end here
    stream.seek(position)
    while (segment.end is None or position < segment.end) and (chunk := stream.read(_CHUNK_BYTES)):
        offset = chunk.find(b"\n")
        if offset >= 0:
            return position + offset + 1
        position += len(chunk)
    return position


def count_lines(segment: Segment) -> int:
    """Returns the number of lines that `read_lines` yields; it counts line ends if the segment has an end."""
    if segment.end is None:
        return sum(1 for _ in read_lines(segment))
    with open_decompressed(segment.path, segment.encoding) as stream:
        position = max(segment.start - 1, 0)
        stream.seek(position)
        # A line begins after each line end except the file's last.
        count = 1 if segment.start == 0 else 0
        last = segment.end - 1
        while position < last and (chunk := stream.read(min(_CHUNK_BYTES, last - position))):
            count += chunk.count(b"\n")
            position += len(chunk)
    return count


def read_first_lines(path: str, number: int, encoding: str = "") -> list[bytes]:
    """Returns the first `number` lines of a file, or all lines if it has fewer; `encoding` is that of the file.

    Raises:
        UserError: the file cannot be opened, or is damaged.
    """
    with _read_errors_as_user_errors(path):
        return list(itertools.islice(read_lines(Segment(path, 0, None, encoding)), number))


def sample_segments(file: TextFile, sample_bytes: int, num_pieces: int) -> list[Segment]:
    """Returns segments of about `sample_bytes` together: evenly spaced, or the file's beginning if it is read whole.

    The whole file is one segment if it is not larger.
    """
    if file.size <= sample_bytes or file.compressed or file.encoding:
        return [Segment(file.path, 0, None, file.encoding)]
    starts = (file.size * piece // num_pieces for piece in range(num_pieces))
    return [Segment(file.path, start, start + sample_bytes // num_pieces) for start in starts]


def read_beginning(path: str, size: int, encoding: str = "") -> bytes:
    """Returns the first `size` bytes of a file after decompression, or all bytes if it has fewer.

    Args:
        path: of the file.
        size: at least this many bytes if the file is converted.
        encoding: of the file, from which it is converted to UTF-8; empty if it is not.

    Raises:
        UserError: the file cannot be opened, or is damaged.
    """
    with _read_errors_as_user_errors(path), open_decompressed(path, encoding) as stream:
        return stream.read(size)


@contextlib.contextmanager
def _read_errors_as_user_errors(path: str) -> Iterator[None]:
    try:
        yield
    except (OSError, BeamIOError, DamagedFileError) as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise UserError(f"cannot read {path}: {reason}", code="file-unreadable", path=path) from error


@contextlib.contextmanager
def open_decompressed(path: str, encoding: str = "") -> Iterator[BinaryIO]:
    """Opens a file, decompresses it while it is read, according to its name, and converts it to UTF-8.

    Args:
        path: of the file.
        encoding: of the decompressed file; empty if nothing is to be converted.
    """
    with open_file(path) as file:
        codec = compression(path)
        stream = _DecompressedStream(path, file, codec) if codec else file
        yield Utf8Stream(stream, encoding) if encoding else stream


class _DecompressedStream:
    """The content of a compressed file. Arrow detects a truncated Zstandard file; Python's own readers do not."""

    def __init__(self, path: str, file: BinaryIO, codec: str):
        self._path = path
        self._stream = pyarrow.CompressedInputStream(pyarrow.PythonFile(file, mode="r"), codec)

    def read(self, size: int) -> bytes:
        with errors_as_damage(self._path, OSError):
            return self._stream.read(size)


def _lines(stream: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Yields each line without its "\\n", and the number of bytes that it takes in the stream."""
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
