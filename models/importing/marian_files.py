"""Reads the model files of Marian: NumPy archives (.npz), and its binary format (.bin) with float or int8 matrices.

The binary format is that of `src/common/binary.cpp`: little-endian, after the version the number of items, their
headers, names and shapes, a gap up to the next 256 bytes, and their values. Matrices of the types intgemm8 and
intgemm16 are stored transposed, and followed by the multiplier that they were quantised with
(`expression_graph_packable.h`).
"""

import contextlib
import functools
import glob
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import yaml

CONFIG = "special:model.yml"
_VERSION = struct.pack("<Q", 1)
_EMBEDDING = "Wemb"  # in the names of the only matrices that are quantised without being transposed
_OF_ACTIVATIONS = "_QuantMultA"  # names of multipliers with which an int8 engine quantises activations
_FLOATS = {0x0402: np.float16, 0x0404: np.float32, 0x0408: np.float64}
_QUANTISED = {0x4101: np.int8, 0x4102: np.int16}
_BYTES = 0x0101
_OF_ARCHIVES = (zipfile.BadZipFile, zlib.error)

_Items = dict[str, Callable[[], np.ndarray]]  # name -> reads the values


def find_marian_model(folder: str) -> str:
    """Returns the path of the model in a folder; empty if there is none.

    Raises:
        ValueError: there are several.
    """
    names = [path for kind in ("npz", "bin") for path in glob.glob(os.path.join(glob.escape(folder), f"*.{kind}"))]
    paths = sorted(path for path in names if path.endswith(".npz") or _is_binary_model(path))
    if len(paths) > 1:
        listed = ", ".join(map(os.path.basename, paths))
        raise ValueError(f"{folder} has several models of Marian: {listed}; leave only one of them there")
    return paths[0] if paths else ""


def _is_binary_model(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(len(_VERSION)) == _VERSION
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error


def read_marian_config(path: str) -> dict[str, Any]:
    """Returns the options of a model, which its file contains.

    Raises:
        ValueError: the file is damaged, or contains none.
    """
    with _items(path) as items:
        content = items[CONFIG]().tobytes().rstrip(b"\0") if CONFIG in items else b""
    if not content:
        raise ValueError(f"{path} has no {CONFIG}")
    try:
        config = yaml.safe_load(content)
    except yaml.YAMLError as error:
        raise ValueError(f"{CONFIG} in {path} is not YAML: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{CONFIG} in {path} has no options")
    return config


def read_marian_tensors(path: str) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the name and the values, float32, of every tensor of a model.

    Quantised matrices are multiplied out. The multipliers for activations are left out.

    Raises:
        ValueError: the file is damaged, or a tensor has a layout of one kind of processor.
    """
    with _items(path) as items:
        for name, read in items.items():
            if not name.startswith("special:") and not name.endswith(_OF_ACTIVATIONS):
                yield name, read().astype(np.float32)


@contextlib.contextmanager
def _items(path: str) -> Iterator[_Items]:
    """Opens a model file; errors that occur in the `with` block are those of the file."""
    try:
        if path.endswith(".npz"):
            with np.load(path, allow_pickle=False) as archive:
                yield {name: functools.partial(archive.__getitem__, name) for name in archive.files}
        else:
            with open(path, "rb") as file:
                yield _binary_items(file.read())
    except (OSError, EOFError, TypeError, ValueError, IndexError, struct.error, *_OF_ARCHIVES) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def _binary_items(content: bytes) -> _Items:
    reader = _Reader(content)
    version, number = reader.read("<2Q")
    if version != 1:
        raise IndexError(f"it has version {version} of Marian's binary format, not 1")
    headers = [reader.read("<4Q") for _ in range(number)]  # lengths of name and shape, type, size in bytes
    names = [reader.take(header[0]).rstrip(b"\0").decode() for header in headers]
    shapes = [reader.read(f"<{header[2]}i") for header in headers]
    reader.take(*reader.read("<Q"))
    values = [reader.take(header[3]) for header in headers]
    return {
        name: functools.partial(_array, name, header[1], shape, data)
        for header, name, shape, data in zip(headers, names, shapes, values, strict=True)
    }


class _Reader:
    """Reads bytes one after another."""

    def __init__(self, content: bytes):
        self._content, self._position = memoryview(content), 0

    def take(self, size: int) -> bytes:
        """Returns the next bytes; raises IndexError if there are fewer."""
        start, self._position = self._position, self._position + size
        if self._position > len(self._content):
            raise IndexError("it ends too early")
        return bytes(self._content[start : self._position])

    def read(self, layout: str) -> tuple[int, ...]:
        """Returns the next numbers, in a layout of `struct`."""
        return struct.unpack(layout, self.take(struct.calcsize(layout)))


def _array(name: str, kind: int, shape: tuple[int, ...], data: bytes) -> np.ndarray:
    size = int(np.prod(shape, dtype=np.int64))
    if kind == _BYTES:
        return np.frombuffer(data, np.uint8, size)
    if kind in _FLOATS:
        return np.frombuffer(data, _FLOATS[kind], size).reshape(shape)
    if kind not in _QUANTISED:
        raise ValueError(
            f"the tensor {name} has the type {kind:#06x}, whose layout is that of one kind of processor; convert the "
            "model with `marian-conv --gemm-type float32`"
        )
    values = np.frombuffer(data, _QUANTISED[kind], size)
    (multiplier,) = np.frombuffer(data, np.float32, 1, values.nbytes)
    matrix = values.reshape(shape) if _EMBEDDING in name else values.reshape(shape[::-1]).T
    return matrix / multiplier
