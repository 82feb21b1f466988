"""The local folder of a pipeline root: metadata, locks, staging, scratch, logs and configs.

metadata.sqlite                           the MetadataStore, unless it is shared
logs/<Component>-<execution id>.log       the stack trace of a failed execution
configs/<run id>.toml                     files, columns and settings of a run; `seq2serve run --config` repeats it
.staging/<execution id>/<output key>      an output that a running execution writes
.scratch/<fingerprint>                    files that survive a killed execution, such as checkpoints
.locks/                                   empty files that running processes lock; a killed process loses its locks

Artifacts are in the same folder, or in an object store; see artifact_store.py and remote_artifacts.py.
"""

import contextlib
import errno
import os
import re
import shutil
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

import portalocker

from seq2serve.components.base.errors import Seq2ServeError, UserError
from seq2serve.components.base.uris import is_remote
from seq2serve.pipeline.metadata.database import sqlite_url

OWN_STORE = "metadata.sqlite"


class StateFolder:
    """The state of one pipeline root.

    Args:
        path: of the folder; `create` creates it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def create(self) -> None:
        """Creates the folder if it is missing.

        Raises:
            UserError: it cannot be created or written.
            Seq2ServeError: its disk is full.
        """
        with self.writable():
            for name in (".staging", ".scratch", ".locks"):
                (self.path / name).mkdir(parents=True, exist_ok=True)

    @property
    def metadata_url(self) -> str:
        """Returns the SQLAlchemy URL of the root's own store."""
        return sqlite_url(self.path / OWN_STORE)

    @property
    def has_own_store(self) -> bool:
        """Returns whether the root's own store has been created."""
        return (self.path / OWN_STORE).exists()

    def staging(self, execution_id: int) -> Path:
        """Returns the folder in which an execution stages its outputs."""
        return self.path / ".staging" / str(execution_id)

    @contextlib.contextmanager
    def lock(self, name: str, when_busy: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Holds a lock that the operating system releases when this process ends, however it ends.

        Args:
            name: processes exclude each other by this name.
            when_busy: called once before waiting for another process.
        """
        with self._lock_file(name) as file:
            try:
                portalocker.lock(file, portalocker.LOCK_EX | portalocker.LOCK_NB)
            except portalocker.AlreadyLocked:
                when_busy()
                portalocker.lock(file, portalocker.LOCK_EX)
            yield

    @contextlib.contextmanager
    def try_lock(self, name: str) -> Iterator[bool]:
        """Acquires a lock if it is free; yields whether it was."""
        with self._lock_file(name) as file:
            try:
                portalocker.lock(file, portalocker.LOCK_EX | portalocker.LOCK_NB)
            except portalocker.AlreadyLocked:
                yield False
            else:
                yield True

    def forget_lock(self, name: str) -> None:
        """Removes the file of a lock that no process will wait for again."""
        (self.path / ".locks" / name).unlink(missing_ok=True)

    def scratch(self, fingerprint: str) -> str:
        """Returns the scratch folder of a fingerprint, possibly with files of a killed execution."""
        folder = self.path / ".scratch" / fingerprint
        folder.mkdir(exist_ok=True)
        return str(folder)

    def scratches(self) -> list[str]:
        """Returns the fingerprints with a scratch folder."""
        return [folder.name for folder in (self.path / ".scratch").iterdir()]

    def remove_scratch(self, fingerprint: str) -> None:
        """Removes the scratch folder of a fingerprint."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.path / ".scratch" / fingerprint)

    def write_log(self, component: str, execution_id: int, error: BaseException) -> str:
        """Writes the stack trace of an exception to a file and returns its path."""
        path = self.path / "logs" / f"{component}-{execution_id}.log"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
        return str(path)

    def write_text(self, name: str, text: str) -> None:
        """Writes a file of the folder, given by its relative path: readers see the old text or the new one."""
        path = self.path / name
        with self.writable():
            path.parent.mkdir(exist_ok=True)
            staging = self.path / ".staging" / path.name
            staging.write_text(text, encoding="utf-8")
            os.replace(staging, path)

    @contextlib.contextmanager
    def _lock_file(self, name: str) -> Iterator[TextIO]:
        with self.writable():
            file = open(self.path / ".locks" / name, "a")  # noqa: SIM115
        with file:
            yield file

    @contextlib.contextmanager
    def writable(self) -> Iterator[None]:
        """Explains the errors of writing to the folder.

        Raises:
            UserError: it cannot be written.
            Seq2ServeError: its disk is full.
        """
        try:
            yield
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise Seq2ServeError(
                    f"no space left on the disk of the pipeline root {self.path}",
                    code="disk-full",
                    path=str(self.path),
                ) from error
            raise UserError(
                f"cannot write to the pipeline root {self.path}: {error.strerror}; name another one with "
                f"--pipeline-root",
                code="pipeline-root-unwritable",
                path=str(self.path),
            ) from error


def is_held(folder: Path, name: str) -> bool:
    """Returns whether a process holds a lock of the pipeline root in a folder; creates nothing there.

    Args:
        folder: on this machine; locks of other machines cannot be tested.
        name: of the lock.
    """
    try:
        with open(folder / ".locks" / name, encoding="ascii") as file:
            portalocker.lock(file, portalocker.LOCK_SH | portalocker.LOCK_NB)
    except FileNotFoundError:
        return False
    except (OSError, portalocker.LockException):  # if it cannot be tested, it may be held
        return True
    return False


def run_lock(run_id: int) -> str:
    """Returns the name of the lock that a run holds for as long as it lives."""
    return f"run-{run_id}"


def state_folder(root: str) -> Path:
    """Returns the local folder of a pipeline root, given as a path or a URL."""
    # Two URLs with the same folder do no harm: they share a store, which never issues a number twice.
    return Path(os.path.abspath(re.sub(r"[^\w.-]+", "-", f"runs-{root.rstrip('/')}") if is_remote(root) else root))


def config_path(root: str, run_id: int) -> Path:
    """Returns the path of the effective config of a run, of a pipeline root given as a path or a URL."""
    return state_folder(root) / "configs" / f"{run_id}.toml"
