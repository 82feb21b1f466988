"""Local and remote files through one API. Local paths are used in place, without a copy and without Beam.

An OSError about a URL is a StorageError, whose message is complete.
"""

import contextlib
import hashlib
import os
import posixpath
import tempfile
from collections.abc import Iterator
from types import ModuleType

from seq2serve.components.base.uris import is_remote


def has_files(uri: str) -> bool:
    """Returns whether a folder exists or, for a URL, whether there are files under it.

    Raises:
        OSError: the store cannot be reached.
    """
    return beam_files().has_files(uri) if is_remote(uri) else os.path.isdir(uri)


@contextlib.contextmanager
def local_file(path: str) -> Iterator[str]:
    """Yields a local path of a file; for a URL, that of a temporary copy with the same name.

    Raises:
        OSError: it cannot be read.
    """
    if not is_remote(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as scratch:
        copy = os.path.join(scratch, posixpath.basename(path))
        beam_files().fetch_file(path, copy)
        yield copy


@contextlib.contextmanager
def local_copy(uri: str) -> Iterator[str]:
    """Yields a local path of a folder; for a URL, that of a temporary copy.

    Raises:
        OSError: it cannot be read.
    """
    if not is_remote(uri):
        yield uri
        return
    with tempfile.TemporaryDirectory() as scratch:
        beam_files().download(uri, scratch)
        yield scratch


@contextlib.contextmanager
def filled_folder(uri: str) -> Iterator[str]:
    """Yields a local folder to fill; for a URL, a temporary one that is uploaded when the `with` block ends.

    Raises:
        OSError: it cannot be written.
    """
    if not is_remote(uri):
        os.makedirs(uri, exist_ok=True)
        yield uri
        return
    with tempfile.TemporaryDirectory() as scratch:
        yield scratch
        beam_files().upload(scratch, uri)


def write_file(path: str, content: bytes) -> None:
    """Writes a file; creates its folder if it is missing.

    Raises:
        OSError: it cannot be written.
    """
    if is_remote(path):
        beam_files().write_file(path, content)
    else:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)


def make_folder(uri: str) -> None:
    """Creates a folder and its parents; does nothing for a URL, because an object store has no folders."""
    if not is_remote(uri):
        os.makedirs(uri, exist_ok=True)


def remove_file(path: str) -> None:
    """Deletes a file.

    Raises:
        OSError: it cannot be deleted.
    """
    if is_remote(path):
        beam_files().remove_file(path)
    else:
        os.remove(path)


def stat_files(folder: str) -> dict[str, tuple[int, int]]:
    """Returns the files in a folder and its subfolders: path relative to the folder -> size in bytes, and time.

    The time is that of the last change, in nanoseconds since 1970; 0 for URLs.

    Raises:
        OSError: the store cannot be reached.
    """
    if is_remote(folder):
        return {name: (size, 0) for name, size in beam_files().file_sizes(folder).items()}
    stats = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            stat = os.stat(path)
            stats[os.path.relpath(path, folder)] = stat.st_size, stat.st_mtime_ns
    return stats


def list_files(folder: str) -> list[str]:
    """Returns the paths of the files in a folder, sorted; an empty list if there is no such folder.

    Raises:
        OSError: the store cannot be reached.
    """
    if is_remote(folder):
        return beam_files().list_files(folder)
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return [os.path.join(folder, name) for name in sorted(names)]


def beam_files() -> ModuleType:
    """Imports the module of remote files. That takes a second, which commands on local files do not need to spend."""
    from seq2serve.components.storage import beam_files

    return beam_files


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Returns the hex SHA-256 of a local file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: str | os.PathLike[str]) -> None:
    """Writes a local file, or the names in a local folder, to disk, so that a crash of the machine does not lose it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
