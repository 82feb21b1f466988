"""tf.Example records and TFRecord files without TensorFlow, byte for byte as TensorFlow writes them.

For many corpora a worker would spend more time on importing TensorFlow than on reading the data. examples_io.py reads
with TensorFlow.

Formats: https://protobuf.dev/programming-guides/encoding for messages, tensorflow/core/example/{example,feature}.proto
for tf.Example, https://www.tensorflow.org/tutorials/load_data/tfrecord for the file.
"""

import functools
import itertools
import struct
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Literal

import google_crc32c
import numpy as np

from seq2serve.components.storage.beam_files import create_file

# Tags (field number and wire type 2, length-delimited) of the fields of the nested messages.
_FIRST, _SECOND, _THIRD = b"\x0a", b"\x12", b"\x1a"
_KINDS = {"bytes": _FIRST, "int64": _THIRD}  # fields of Feature
_CRC = struct.Struct("<I")
_HEADER_BYTES = 12  # length and its checksum
_VARINT_BITS = 7  # per byte
_CACHED_LENGTHS = 1 << 14


class ExampleEncoder:
    """Serialises tf.Examples whose features all have the same kind.

    Args:
        names: names of the features.
        kind: kind of the list in each feature.
    """

    def __init__(self, names: Sequence[str], kind: Literal["bytes", "int64"]):
        # Deterministic serialisation writes maps in the order of their keys.
        order = sorted(range(len(names)), key=lambda index: names[index].encode())
        self._prefixes = [(index, _Prefixes(names[index].encode(), _KINDS[kind])) for index in order]

    def encode(self, values: Sequence[bytes]) -> bytes:
        """Returns a serialised tf.Example.

        Args:
            values: one for each name: the bytes themselves, or the numbers of a feature packed by `pack_numbers`.
        """
        parts = []
        for index, prefixes in self._prefixes:
            value = values[index]
            parts += (prefixes[len(value)], value)
        return _field(_FIRST, b"".join(parts))


class _Prefixes(dict):
    """A cache: length of a feature's value -> the bytes that precede the value. Few lengths occur.

    Args:
        key: name of the feature.
        kind: tag of its list.
    """

    def __init__(self, key: bytes, kind: bytes):
        super().__init__()
        self._key, self._kind = _field(_FIRST, key), kind

    def __missing__(self, length: int) -> bytes:
        value = bytes(length)
        values = _field(_FIRST, value) if value or self._kind == _KINDS["bytes"] else b""
        entry = _field(_FIRST, self._key + _field(_SECOND, _field(self._kind, values)))
        prefix = entry[: len(entry) - length]
        if length < _CACHED_LENGTHS:
            self[length] = prefix
        return prefix


def pack_numbers(numbers: np.ndarray, row_splits: np.ndarray) -> list[bytes]:
    """Packs rows of numbers as varints, with seven bits per byte.

    Args:
        numbers: the numbers of all rows, integers from 0 to 2**32 - 1, [total].
        row_splits: index of the first number of each row, then `total`, int [rows + 1].
    Returns:
        The packed numbers of each row.
    """
    numbers = numbers.astype(np.uint32)
    longest = -(-int(numbers.max(initial=1)).bit_length() // _VARINT_BITS)
    shifts = np.arange(longest, dtype=np.uint32) * np.uint32(_VARINT_BITS)
    rest = numbers[:, np.newaxis] >> shifts  # [total, longest], the bits from each byte on
    is_written = rest > 0
    is_written[:, 0] = True
    # The top bit of a byte is set if another byte of the same number follows.
    continues = np.pad(is_written[:, 1:], ((0, 0), (0, 1))).astype(np.uint8) << np.uint8(_VARINT_BITS)
    written = ((rest & np.uint32(0x7F)).astype(np.uint8) | continues)[is_written].tobytes()
    ends = np.concatenate([[0], np.cumsum(is_written.sum(1))])[row_splits].tolist()
    return [written[start:end] for start, end in itertools.pairwise(ends)]


class RecordWriter:
    """Writes a TFRecord file on any of Beam's file systems.

    Args:
        path: path or URL of the file; an existing file is replaced.
    """

    def __init__(self, path: str):
        self._file = create_file(path)

    def __enter__(self) -> "RecordWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def write(self, record: bytes) -> None:
        """Writes a record."""
        self._file.write(b"".join((_header(len(record)), record, _masked_crc(record))))

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def read_records(file: BinaryIO) -> Iterator[bytes]:
    """Yields the records of a TFRecord file.

    Raises:
        ValueError: the file is damaged, truncated or not a TFRecord file.
    """
    number = 0
    while header := file.read(_HEADER_BYTES):
        number += 1
        (length,) = struct.unpack("<Q", header[:8].ljust(8))
        if header != _header(length):
            raise ValueError(f"record {number} has an invalid length")
        body = file.read(length + _CRC.size)
        record = body[:length]
        if body[length:] != _masked_crc(record):
            raise ValueError(f"record {number} has a wrong checksum")
        yield record


@functools.lru_cache(maxsize=4096)
def _header(length: int) -> bytes:
    encoded = struct.pack("<Q", length)
    return encoded + _masked_crc(encoded)


def _masked_crc(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return _CRC.pack(((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _field(tag: bytes, content: bytes) -> bytes:
    """Returns a length-delimited field."""
    length = len(content)
    return tag + (_SHORT_LENGTHS[length] if length < _CACHED_LENGTHS else _varint(length)) + content


def _varint(number: int) -> bytes:
    written = bytearray()
    while number >= 0x80:
        written.append(number & 0x7F | 0x80)
        number >>= _VARINT_BITS
    return bytes([*written, number])


_SHORT_LENGTHS = [_varint(length) for length in range(_CACHED_LENGTHS)]
