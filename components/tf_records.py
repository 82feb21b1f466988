"""tf.Examples made and written without TensorFlow, which takes a worker longer to import than to read many a corpus.

Comes in: values of an example's features. Goes out: TFRecord files, byte for byte as TensorFlow would write them; and
the records of others.
Read next: examples_io.py, which reads them; example_gen_beam.py and transform_beam.py, which write them.

Formats: https://protobuf.dev/programming-guides/encoding for messages, tensorflow/core/example/{example,feature}.proto
for an example's, https://www.tensorflow.org/tutorials/load_data/tfrecord for the file's.
"""

import functools
import itertools
import struct
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Literal

import google_crc32c
import numpy as np
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

# Field number and wire type 2 (length-delimited) of the fields of the messages between an example and its values.
_FIRST, _SECOND, _THIRD = b"\x0a", b"\x12", b"\x1a"
_KINDS = {"bytes": _FIRST, "int64": _THIRD}  # of Feature's fields
_CRC = struct.Struct("<I")
_HEADER_BYTES = 12  # length and its checksum
_BITS_A_BYTE = 7  # of a varint
_KEPT_LENGTHS = 1 << 14


class ExampleEncoder:
    """Serialises examples whose features are all of one kind.

    Args:
        names: of the features.
        kind: of the list that each holds.
    """

    def __init__(self, names: Sequence[str], kind: Literal["bytes", "int64"]):
        # As deterministic serialisation has it, maps are written in the order of their keys.
        order = sorted(range(len(names)), key=lambda place: names[place].encode())
        self._heads = [(place, _Heads(names[place].encode(), _KINDS[kind])) for place in order]

    def encode(self, values: Sequence[bytes]) -> bytes:
        """Returns a serialised tf.Example.

        Args:
            values: for each name one value, of kind bytes; or all values, as `pack_numbers` packs them.
        """
        parts = []
        for place, heads in self._heads:
            value = values[place]
            parts += (heads[len(value)], value)
        return _field(_FIRST, b"".join(parts))


class _Heads(dict):
    """Length of a feature's value -> all that is written before it; the lengths there are are few.

    Args:
        key: the feature's name.
        kind: field number of its list.
    """

    def __init__(self, key: bytes, kind: bytes):
        super().__init__()
        self._key, self._kind = _field(_FIRST, key), kind

    def __missing__(self, length: int) -> bytes:
        value = bytes(length)
        values = _field(_FIRST, value) if value or self._kind == _KINDS["bytes"] else b""
        entry = _field(_FIRST, self._key + _field(_SECOND, _field(self._kind, values)))
        head = entry[: len(entry) - length]
        if length < _KEPT_LENGTHS:
            self[length] = head
        return head


def pack_numbers(numbers: np.ndarray, row_splits: np.ndarray) -> list[bytes]:
    """Packs numbers as varints, seven bits a byte.

    Args:
        numbers: integers from 0 to 2**32 - 1 [total].
        row_splits: where each row starts and, at last, ends, int [rows + 1].
    Returns:
        The packed numbers of each row.
    """
    numbers = numbers.astype(np.uint32)
    longest = -(-int(numbers.max(initial=1)).bit_length() // _BITS_A_BYTE)
    shifts = np.arange(longest, dtype=np.uint32) * np.uint32(_BITS_A_BYTE)
    rest = numbers[:, np.newaxis] >> shifts  # [total, bytes], what is left at each byte
    is_written = rest > 0
    is_written[:, 0] = True
    goes_on = np.pad(is_written[:, 1:], ((0, 0), (0, 1))).astype(np.uint8) << np.uint8(_BITS_A_BYTE)
    written = ((rest & np.uint32(0x7F)).astype(np.uint8) | goes_on)[is_written].tobytes()
    ends = np.concatenate([[0], np.cumsum(is_written.sum(1))])[row_splits].tolist()
    return [written[start:end] for start, end in itertools.pairwise(ends)]


class RecordWriter:
    """Writes a TFRecord file, on any of Beam's file systems.

    Args:
        path: of the file, which is replaced.
    """

    def __init__(self, path: str):
        self._file = FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED)

    def __enter__(self) -> "RecordWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def write(self, record: bytes) -> None:
        """Writes one record."""
        self._file.write(b"".join((_header(len(record)), record, _masked_crc(record))))

    def close(self) -> None:
        """Finishes the file."""
        self._file.close()


def read_records(file: BinaryIO) -> Iterator[bytes]:
    """Yields the records of a TFRecord file.

    Raises:
        ValueError: it is none, damaged or cut off.
    """
    number = 0
    while header := file.read(_HEADER_BYTES):
        number += 1
        (length,) = struct.unpack("<Q", header[:8].ljust(8))
        if header != _header(length):
            raise ValueError(f"record {number} has no valid length")
        body = file.read(length + _CRC.size)
        record = body[:length]
        if body[length:] != _masked_crc(record):
            raise ValueError(f"record {number} does not fit its checksum")
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
    return tag + (_SHORT_LENGTHS[length] if length < _KEPT_LENGTHS else _varint(length)) + content


def _varint(number: int) -> bytes:
    written = bytearray()
    while number >= 0x80:
        written.append(number & 0x7F | 0x80)
        number >>= _BITS_A_BYTE
    return bytes([*written, number])


_SHORT_LENGTHS = [_varint(length) for length in range(_KEPT_LENGTHS)]
