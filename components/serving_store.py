"""How files get into a serving folder: on a local disk by a rename, on an object store by the order of the copies.

Comes in: a SavedModel. Goes out: a folder beside others that a reader finds whole, or not at all.
Read next: serving_folder.py, which decides what goes there.
"""

import contextlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from typing import Protocol

import portalocker

from components.artifact import is_remote

GRAPH_FILE = "saved_model.pb"  # a reader knows a SavedModel by it
# A server looks at numeric names only, so what is unfinished hides behind these, on the same file system for certain.
_LOCK_NAME = ".pushing.lock"
STAGING_PREFIX = ".pushing-"


class Store(Protocol):
    """A serving folder, wherever it is. Names are relative, with `/` between their parts."""

    def path(self, name: str) -> str:
        """Returns where a name is."""

    def names(self) -> list[str]:
        """Returns the names of the entries; none where the folder is missing."""

    def has(self, name: str) -> bool:
        """Returns whether there is such a file; OSError if that cannot be found out."""

    def read(self, name: str) -> bytes:
        """Reads a file; OSError if that fails."""

    def write(self, name: str, content: bytes) -> None:
        """Writes a file, which readers find whole, as it was or as it is."""

    def add(self, name: str, source: str, extra: Mapping[str, bytes]) -> None:
        """Copies a SavedModel, with more files beside its own, so that saved_model.pb is the last to be seen."""

    def remove(self, name: str) -> None:
        """Removes a folder, out of sight at once."""

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Makes the folder if it is missing and keeps others from writing to it."""


def whole_name(destination: str) -> str:
    """Returns a path from the root, or a URL, so that the same folder has the same name from everywhere."""
    return destination.rstrip("/") if is_remote(destination) else os.path.abspath(destination)


def open_store(destination: str) -> Store:
    """Returns the store for a path or a URL such as gs://bucket/models/en_de."""
    return RemoteStore(destination) if is_remote(destination) else LocalStore(destination)


@contextlib.contextmanager
def local_copy(folder: str) -> Iterator[str]:
    """Lends a copy of a folder on an object store, which is gone afterwards; a local folder is lent itself.

    Raises:
        OSError: it cannot be read.
    """
    if not is_remote(folder):
        yield folder
        return
    with tempfile.TemporaryDirectory() as scratch:
        with _os_errors() as gfile:
            for parent, _, files in gfile.walk(folder):
                target = os.path.join(scratch, parent[len(folder) :].strip("/"))
                os.makedirs(target, exist_ok=True)
                for file in files:
                    gfile.copy(f"{parent.rstrip('/')}/{file}", os.path.join(target, file))
        yield scratch


class LocalStore:
    """A folder on a disk: a rename makes a version visible, at once and as a whole, and survives a power cut."""

    def __init__(self, destination: str):
        self._folder = pathlib.Path(destination).absolute()

    def path(self, name: str) -> str:
        """Returns where a name is."""
        return str(self._folder / name)

    def names(self) -> list[str]:
        """Returns the names of the entries; none where the folder is missing."""
        return os.listdir(self._folder) if self._folder.exists() else []

    def has(self, name: str) -> bool:
        """Returns whether there is such a file."""
        return (self._folder / name).is_file()

    def read(self, name: str) -> bytes:
        """Reads a file."""
        return (self._folder / name).read_bytes()

    def write(self, name: str, content: bytes) -> None:
        """Writes a file beside the old one and puts it in its place."""
        staging = self._folder / f"{STAGING_PREFIX}{name}"
        staging.write_bytes(content)
        _sync(staging)
        os.replace(staging, self._folder / name)

    def add(self, name: str, source: str, extra: Mapping[str, bytes]) -> None:
        """Copies out of sight and renames."""
        staging = self._folder / f"{STAGING_PREFIX}{name}"
        try:
            shutil.copytree(source, staging, ignore=lambda folder, _: {GRAPH_FILE} if folder == source else ())
            for relative, content in extra.items():
                (staging / relative).parent.mkdir(exist_ok=True)
                (staging / relative).write_bytes(content)
            shutil.copyfile(pathlib.Path(source, GRAPH_FILE), staging / GRAPH_FILE)
            for path in [*staging.rglob("*"), staging]:
                _sync(path)
            os.rename(staging, self._folder / name)
        except OSError:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        _sync(self._folder)

    def remove(self, name: str) -> None:
        """Renames out of sight and deletes."""
        hidden = self._folder / f"{STAGING_PREFIX}{name}"
        os.rename(self._folder / name, hidden)
        shutil.rmtree(hidden)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Holds a lock that the kernel drops when its holder is killed, and removes what such a one left behind."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with portalocker.Lock(self._folder / _LOCK_NAME, flags=portalocker.LockFlags.EXCLUSIVE):
            for path in self._folder.glob(f"{STAGING_PREFIX}*"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            yield


class RemoteStore:
    """A folder that TensorFlow's file systems reach, such as gs:// or s3://. Nothing there is renamed or locked."""

    def __init__(self, destination: str):
        self._folder = destination.rstrip("/")

    def path(self, name: str) -> str:
        """Returns where a name is."""
        return f"{self._folder}/{name}"

    def names(self) -> list[str]:
        """Returns the names of the entries; none where the folder is missing."""
        with _os_errors() as gfile:
            return [name.rstrip("/") for name in gfile.listdir(self._folder)] if gfile.exists(self._folder) else []

    def has(self, name: str) -> bool:
        """Returns whether there is such a file."""
        with _os_errors() as gfile:
            return gfile.exists(self.path(name))

    def read(self, name: str) -> bytes:
        """Reads a file."""
        with _os_errors() as gfile, gfile.GFile(self.path(name), "rb") as file:
            return file.read()

    def write(self, name: str, content: bytes) -> None:
        """Writes a file beside the old one and puts it in its place; an object appears when it is complete."""
        path = self.path(name)
        with _os_errors() as gfile:
            gfile.makedirs(os.path.dirname(path))
            with gfile.GFile(f"{path}.new", "wb") as file:
                file.write(content)
            gfile.rename(f"{path}.new", path, overwrite=True)

    def add(self, name: str, source: str, extra: Mapping[str, bytes]) -> None:
        """Copies, saved_model.pb last."""
        with _os_errors() as gfile:
            for folder, _, files in gfile.walk(source):
                for file in files:
                    relative = os.path.join(folder, file)[len(source) :].lstrip("/")
                    if relative != GRAPH_FILE and relative not in extra:
                        self._copy(gfile, source, name, relative)
            for relative, content in extra.items():
                self.write(f"{name}/{relative}", content)
            self._copy(gfile, source, name, GRAPH_FILE)

    def _copy(self, gfile, source: str, name: str, relative: str) -> None:
        target = self.path(f"{name}/{relative}")
        gfile.makedirs(os.path.dirname(target))
        gfile.copy(f"{source}/{relative}", target, overwrite=True)

    def remove(self, name: str) -> None:
        """Deletes, saved_model.pb first."""
        with _os_errors() as gfile:
            gfile.remove(self.path(f"{name}/{GRAPH_FILE}"))
            gfile.rmtree(self.path(name))

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Makes the folder; who pushes to an object store from two places at once has to see to it himself."""
        with _os_errors() as gfile:
            gfile.makedirs(self._folder)
        yield


@contextlib.contextmanager
def _os_errors() -> Iterator:
    """Lends `tf.io.gfile` and turns its errors into OSError."""
    import tensorflow as tf

    try:
        yield tf.io.gfile
    except tf.errors.OpError as error:
        raise OSError(error.message or type(error).__name__) from error


def _sync(path: pathlib.Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
