"""Atomic writes to a serving folder: by renaming on a local disk, by the order of copies in an object store."""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import Protocol

import portalocker

from seq2serve.components.base.uris import is_remote
from seq2serve.components.storage.files import beam_files, sync

GRAPH_FILE = "saved_model.pb"  # its presence marks a complete SavedModel
# Servers read only numeric names, so unfinished versions have this prefix. They are in the serving folder itself,
# because a rename is atomic only within a file system.
STAGING_PREFIX = ".pushing-"
WITHDRAWN_PREFIX = "withdrawn-"  # of a version that a rollback took back
_LOCK_NAME = ".pushing.lock"


class Store(Protocol):
    """A serving folder on any kind of storage. Names are paths relative to the folder, separated by `/`."""

    def path(self, name: str) -> str:
        """Returns the path or URL of a name."""

    def names(self) -> list[str]:
        """Returns the names of the entries; none if the folder is missing."""

    def has(self, name: str) -> bool:
        """Returns whether a file exists; OSError if the storage cannot be reached."""

    def read(self, name: str) -> bytes:
        """Reads a file; OSError if that fails."""

    def write(self, name: str, content: bytes) -> None:
        """Writes a file atomically: readers see either the old content or the new."""

    def add(self, name: str, source: str, extra: Mapping[str, bytes]) -> None:
        """Copies a SavedModel and extra files, so that saved_model.pb becomes visible last."""

    def rename(self, name: str, target: str) -> None:
        """Renames a version; on a local disk atomically. If it was killed, a second call finishes it."""

    def remove(self, name: str) -> None:
        """Removes a version atomically."""

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Creates the folder if it is missing, and excludes other writers where the storage has locks."""


def open_store(destination: str) -> Store:
    """Returns the store for a path or a URL such as gs://bucket/models/en_de."""
    return RemoteStore(destination) if is_remote(destination) else LocalStore(destination)


def version_path(path: str) -> str:
    """Returns where the files of a pushed version are now: its own path, or another name if it has been withdrawn.

    Args:
        path: the path or URL to which it was pushed.
    Raises:
        OSError: the storage cannot be reached.
    """
    folder, _, name = path.rstrip("/").rpartition("/")
    if not (folder and name.isdecimal()) or open_store(path).has(GRAPH_FILE):
        return path
    withdrawn = f"{folder}/{WITHDRAWN_PREFIX}{name}"
    return withdrawn if open_store(withdrawn).has(GRAPH_FILE) else path


class LocalStore:
    """A folder on a local disk: renaming makes a version visible atomically, and survives a power failure."""

    def __init__(self, destination: str):
        self._folder = pathlib.Path(destination).absolute()

    def path(self, name: str) -> str:
        """Returns the path or URL of a name."""
        return str(self._folder / name)

    def names(self) -> list[str]:
        """Returns the names of the entries; none if the folder is missing."""
        return os.listdir(self._folder) if self._folder.exists() else []

    def has(self, name: str) -> bool:
        """Returns whether a file exists."""
        return (self._folder / name).is_file()

    def read(self, name: str) -> bytes:
        """Reads a file."""
        return (self._folder / name).read_bytes()

    def write(self, name: str, content: bytes) -> None:
        """Writes a file next to the old one and renames it."""
        staging = self._folder / f"{STAGING_PREFIX}{name}"
        staging.write_bytes(content)
        sync(staging)
        os.replace(staging, self._folder / name)

    def add(self, name: str, source: str, extra: Mapping[str, bytes]) -> None:
        """Copies to a staging folder, which is then renamed."""
        staging = self._folder / f"{STAGING_PREFIX}{name}"
        try:
            shutil.copytree(source, staging, ignore=lambda folder, _: {GRAPH_FILE} if folder == source else ())
            for relative, content in extra.items():
                (staging / relative).parent.mkdir(exist_ok=True)
                (staging / relative).write_bytes(content)
            shutil.copyfile(pathlib.Path(source, GRAPH_FILE), staging / GRAPH_FILE)
            for path in [*staging.rglob("*"), staging]:
                sync(path)
            os.rename(staging, self._folder / name)
        except OSError:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        sync(self._folder)

    def rename(self, name: str, target: str) -> None:
        """Renames a version atomically. It needs no space, so it works on a full disk."""
        os.rename(self._folder / name, self._folder / target)
        sync(self._folder)

    def remove(self, name: str) -> None:
        """Renames to a staging name, then deletes."""
        staging = self._folder / f"{STAGING_PREFIX}{name}"
        os.rename(self._folder / name, staging)
        shutil.rmtree(staging)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Holds a lock, which the system releases if the process is killed, and removes leftovers of killed pushes."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with portalocker.Lock(self._folder / _LOCK_NAME, flags=portalocker.LockFlags.EXCLUSIVE):
            for path in self._folder.glob(f"{STAGING_PREFIX}*"):
                with contextlib.suppress(FileNotFoundError):  # a check of another push, which removes it itself
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            yield


class RemoteStore:
    """A folder in an object store, such as gs:// or s3://, without atomic renames and locks.

    Raises:
        UserError: Beam does not reach it, or would delete files of other folders with its own.
    """

    def __init__(self, destination: str):
        self._folder, self._files = destination.rstrip("/"), beam_files()
        self._files.check_url(destination, "the folder")

    def path(self, name: str) -> str:
        """Returns the URL of a name."""
        return f"{self._folder}/{name}"

    def names(self) -> list[str]:
        """Returns the names of the entries; none if the folder is missing."""
        return sorted({name.partition("/")[0] for name in self._files.file_sizes(self._folder)})

    def has(self, name: str) -> bool:
        """Returns whether a file exists."""
        return self._files.exists(self.path(name))

    def read(self, name: str) -> bytes:
        """Reads a file."""
        return self._files.read_file(self.path(name))

    def write(self, name: str, content: bytes) -> None:
        """Writes a file; an object becomes visible, or replaces another one, when it is complete."""
        self._files.write_file(self.path(name), content)

    def add(self, name: str, source: str, extra: Mapping[str, bytes]) -> None:
        """Uploads saved_model.pb last."""
        self._files.upload(source, self.path(name), leave_out=(GRAPH_FILE, *extra))
        for relative, content in extra.items():
            self.write(f"{name}/{relative}", content)
        with open(f"{source}/{GRAPH_FILE}", "rb") as file:
            self.write(f"{name}/{GRAPH_FILE}", file.read())

    def rename(self, name: str, target: str) -> None:
        """Copies saved_model.pb last, then deletes it first: without it, a killed call had copied everything."""
        if self.has(f"{name}/{GRAPH_FILE}"):
            self._files.remove(self.path(target))  # what a killed call had copied
            files = self._files.file_sizes(self.path(name)).keys() - {GRAPH_FILE}
            for names in (sorted(files), [GRAPH_FILE]):
                self._files.copy({self.path(f"{name}/{file}"): self.path(f"{target}/{file}") for file in names})
        self.remove(name)

    def remove(self, name: str) -> None:
        """Deletes saved_model.pb first."""
        if self.has(f"{name}/{GRAPH_FILE}"):  # else a killed call deleted it
            self._files.remove_file(self.path(f"{name}/{GRAPH_FILE}"))
        self._files.remove(self.path(name))

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Does nothing. Object stores have no lock: callers must not push concurrently."""
        yield
