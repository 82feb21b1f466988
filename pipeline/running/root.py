"""A pipeline root on disk: staging, publishing by rename, scratch, and locks between runs; see remote_root.py for URLs.

<Component>/<output key>/<execution id>   a published artifact (TFX's layout)
logs/<Component>-<execution id>.log       the stack trace of a failed execution
configs/<run id>.toml                     files, columns and settings of a run; `seq2serve run --config` repeats it
metadata.sqlite                           the MetadataStore, unless it is shared
.identity                                 the root's identifier in a MetadataStore that it shares with others
.staging/<execution id>/<output key>      an output that a running execution writes
.scratch/<fingerprint>                    files that survive a killed execution, such as checkpoints
.locks/                                   empty files that running processes lock; a killed process loses its locks
"""

import contextlib
import errno
import hashlib
import os
import re
import shutil
import traceback
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import portalocker

from seq2serve.components.base.artifact import Artifact
from seq2serve.components.base.errors import Seq2ServeError, UserError
from seq2serve.components.base.uris import is_remote
from seq2serve.components.storage.files import sync
from seq2serve.pipeline.metadata.database import sqlite_url

if TYPE_CHECKING:
    from seq2serve.pipeline.metadata.store import MetadataStore

_OWN_STORE = "metadata.sqlite"
_IDENTITY = ".identity"


class PipelineRoot:
    """The folders of one pipeline root; created if they are missing.

    Args:
        name: the folder, or the URL, as the user gave it.
    Raises:
        UserError: the folder cannot be created or written.
        Seq2ServeError: its disk is full.
    """

    is_remote = False  # whether artifacts are on an object store

    def __init__(self, name: str) -> None:
        self.path = state_folder(name)
        with _writable(self.path):
            for name in (".staging", ".scratch", ".locks"):
                (self.path / name).mkdir(parents=True, exist_ok=True)

    @property
    def metadata_url(self) -> str:
        """Returns the SQLAlchemy URL of the root's own store."""
        return sqlite_url(self.path / _OWN_STORE)

    def __str__(self) -> str:
        return str(self.path)

    @property
    def shared_store(self) -> str:
        """Returns a description of the store that this root shares with others; empty if it has its own."""
        return "a store that it shares with other roots" if identity_of(str(self.path)) else ""

    @property
    def has_own_store(self) -> bool:
        """Returns whether the root's own store has been created."""
        return (self.path / _OWN_STORE).exists()

    def identity(self) -> str:
        """Returns a unique identifier of the root, the same wherever it is mounted; call it holding "sweep"."""
        if not identity_of(str(self.path)):
            with _writable(self.path):
                staging = self.path / ".staging" / _IDENTITY
                staging.write_text(uuid.uuid4().hex, encoding="ascii")
                os.replace(staging, self.path / _IDENTITY)
        return identity_of(str(self.path))

    def claim(self, store: "MetadataStore") -> None:
        """Ensures that no other store numbers the artifacts of this root; a folder contains its store."""

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

    def stage(self, component: str, execution_id: int, keys: Iterable[str], on_workers: bool) -> dict[str, str]:
        """Creates the empty output folders of an execution.

        Args:
            component: its name.
            execution_id: of the execution.
            keys: of its outputs.
            on_workers: whether Beam's workers write them, possibly on other machines.
        Returns:
            Output key -> path.
        """
        folders = {key: self.path / ".staging" / str(execution_id) / key for key in keys}
        for folder in folders.values():
            folder.mkdir(parents=True)
        return {key: str(folder) for key, folder in folders.items()}

    def publish(self, component: str, execution_id: int, keys: Iterable[str]) -> dict[str, str]:
        """Moves staged outputs to their final folders, synced to disk. Returns output key -> path."""
        published = {}
        staging = self.path / ".staging" / str(execution_id)
        for key in keys:
            _sync_tree(staging / key)
            published[key] = self.path / component / key / str(execution_id)
            published[key].parent.mkdir(parents=True, exist_ok=True)
            os.rename(staging / key, published[key])
            for folder in (published[key].parent, published[key].parent.parent, self.path):
                sync(folder)
        shutil.rmtree(staging)
        return {key: str(folder) for key, folder in published.items()}

    def published(self, component: str) -> dict[int, Path]:
        """Returns the published folders of a component: execution id -> one of its folders."""
        folders = self.path.glob(f"{component}/*/*")
        return {int(folder.name): folder for folder in folders if folder.name.isdecimal()}

    def local_copy(self, artifact: Artifact, on_workers: bool) -> Artifact:
        """Returns a published artifact with a URI that a component can read, on Beam's workers or in this process."""
        return artifact

    def unstage(self, execution_id: int) -> None:
        """Removes what an execution staged but did not publish."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.path / ".staging" / str(execution_id))

    def discard(self, component: str, execution_id: int) -> None:
        """Removes everything that an incomplete execution left, staged or already moved."""
        for published in self.path.glob(f"{component}/*/{execution_id}"):
            shutil.rmtree(published)
        self.unstage(execution_id)

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

    def write_config(self, run_id: int, text: str) -> None:
        """Writes the effective config of a run."""
        path = self.path / "configs" / f"{run_id}.toml"
        with _writable(self.path):
            path.parent.mkdir(exist_ok=True)
            staging = self.path / ".staging" / f"{run_id}.toml"
            staging.write_text(text, encoding="utf-8")
            os.replace(staging, path)

    @contextlib.contextmanager
    def _lock_file(self, name: str) -> Iterator[TextIO]:
        with _writable(self.path):
            file = open(self.path / ".locks" / name, "a")  # noqa: SIM115
        with file:
            yield file


def identity_of(root: str) -> str:
    """Returns the identifier of a pipeline root; empty if it has none."""
    if is_remote(root):
        return hashlib.sha256(root.encode()).hexdigest()[:32]  # a URL is the same from everywhere
    try:
        return Path(root, _IDENTITY).read_text(encoding="ascii")
    except OSError:
        return ""


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


def root_of(uri: str) -> str:
    """Returns the pipeline root of a published artifact."""
    return uri.rsplit("/", 3)[0]


def state_folder(root: str) -> Path:
    """Returns the local folder of a pipeline root, given as a path or a URL."""
    # Two URLs with the same folder do no harm: they share a store, which never issues a number twice.
    return Path(os.path.abspath(re.sub(r"[^\w.-]+", "-", f"runs-{root.rstrip('/')}") if is_remote(root) else root))


def config_path(root: str, run_id: int) -> Path:
    """Returns the path of the effective config of a run, of a pipeline root given as a path or a URL."""
    return state_folder(root) / "configs" / f"{run_id}.toml"


@contextlib.contextmanager
def _writable(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise Seq2ServeError(
                f"no space left on the disk of the pipeline root {root}", code="disk-full", path=str(root)
            ) from error
        raise UserError(
            f"cannot write to the pipeline root {root}: {error.strerror}; name another one with --pipeline-root",
            code="pipeline-root-unwritable",
            path=str(root),
        ) from error


def _sync_tree(folder: Path) -> None:
    """Syncs a folder and its contents to disk, so that a crash cannot publish empty files."""
    for parent, _, files in os.walk(folder):
        for name in files:
            sync(Path(parent, name))
        sync(Path(parent))
