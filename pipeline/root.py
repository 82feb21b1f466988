"""A pipeline root on disk: staging, publishing by rename, scratch, and the locks that keep two runs apart.

Comes in: the folder a user names. Goes out: folders to fill, published folders, locks that a killed process loses.
Read next: runner.py, which calls these in order; remote_root.py for artifacts on an object store.

<Component>/<output key>/<execution id>   a published artifact (TFX's layout)
logs/<Component>-<execution id>.log       the stack trace of a failed execution
metadata.sqlite                           the MetadataStore, unless it is elsewhere
.identity                                 the root's name in a MetadataStore that it shares with others
.staging/<execution id>/<output key>      what a running execution fills
.scratch/<fingerprint>                    what outlives a killed execution, such as checkpoints
.locks/                                   empty files that running processes hold
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

from components.artifact import Artifact, is_remote
from components.errors import Seq2ServeError, UserError
from pipeline.database import sqlite_url

if TYPE_CHECKING:
    from pipeline.metadata import MetadataStore

_OWN_STORE = "metadata.sqlite"
_IDENTITY = ".identity"


class PipelineRoot:
    """The folders of one pipeline root; made when missing.

    Args:
        name: the folder, or the URL, as the user gave it.
    Raises:
        UserError: the folder cannot be made or written.
        Seq2ServeError: its disk is full.
    """

    is_remote = False  # whether artifacts are on an object store; see remote_root.py

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
        """Returns what a person calls the store that this root shares; empty where it does not, as far as it knows."""
        return "a store that it shares" if identity_of(str(self.path)) else ""

    @property
    def has_own_store(self) -> bool:
        """Returns whether the root's own store has been made."""
        return (self.path / _OWN_STORE).exists()

    def identity(self) -> str:
        """Returns a name that no other root has, the same wherever this one is mounted; call it holding "sweep"."""
        if not identity_of(str(self.path)):
            with _writable(self.path):
                staging = self.path / ".staging" / _IDENTITY
                staging.write_text(uuid.uuid4().hex, encoding="ascii")
                os.replace(staging, self.path / _IDENTITY)
        return identity_of(str(self.path))

    def claim(self, store: "MetadataStore") -> None:
        """Makes sure that no other store gives numbers to what is in this root: a folder has its store in it."""

    @contextlib.contextmanager
    def lock(self, name: str, when_busy: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Holds a lock that the operating system lets go of when this process ends, however it ends.

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
        """Takes a lock if it is free; yields whether it was."""
        with self._lock_file(name) as file:
            try:
                portalocker.lock(file, portalocker.LOCK_EX | portalocker.LOCK_NB)
            except portalocker.AlreadyLocked:
                yield False
            else:
                yield True

    def forget_lock(self, name: str) -> None:
        """Removes a lock's file; only for a name that nobody will wait for again."""
        (self.path / ".locks" / name).unlink(missing_ok=True)

    def stage(self, component: str, execution_id: int, keys: Iterable[str], on_workers: bool) -> dict[str, str]:
        """Makes an execution's empty output folders.

        Args:
            component: its name.
            execution_id: of the execution.
            keys: of its outputs.
            on_workers: whether Beam's workers fill them, which may be on other machines.
        Returns:
            Output key -> path.
        """
        folders = {key: self.path / ".staging" / str(execution_id) / key for key in keys}
        for folder in folders.values():
            folder.mkdir(parents=True)
        return {key: str(folder) for key, folder in folders.items()}

    def publish(self, component: str, execution_id: int, keys: Iterable[str]) -> dict[str, str]:
        """Moves staged outputs to where they stay, on disk before this returns. Returns output key -> path."""
        published = {}
        staging = self.path / ".staging" / str(execution_id)
        for key in keys:
            _sync_tree(staging / key)
            published[key] = self.path / component / key / str(execution_id)
            published[key].parent.mkdir(parents=True, exist_ok=True)
            os.rename(staging / key, published[key])
            for folder in (published[key].parent, published[key].parent.parent, self.path):
                _sync(folder)
        shutil.rmtree(staging)
        return {key: str(folder) for key, folder in published.items()}

    def published(self, component: str) -> dict[int, Path]:
        """Returns the published folders of a component: execution id -> one of its folders."""
        folders = self.path.glob(f"{component}/*/*")
        return {int(folder.name): folder for folder in folders if folder.name.isdecimal()}

    def within_reach(self, artifact: Artifact, on_workers: bool) -> Artifact:
        """Returns a published artifact as a component can read it, on Beam's workers or here."""
        return artifact

    def unstage(self, execution_id: int) -> None:
        """Removes what an execution has staged and not published."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.path / ".staging" / str(execution_id))

    def discard(self, component: str, execution_id: int) -> None:
        """Removes whatever an execution that did not complete left: staged or already moved."""
        for published in self.path.glob(f"{component}/*/{execution_id}"):
            shutil.rmtree(published)
        self.unstage(execution_id)

    def scratch(self, fingerprint: str) -> str:
        """Returns the scratch folder of a fingerprint, as an earlier execution may have left it."""
        folder = self.path / ".scratch" / fingerprint
        folder.mkdir(exist_ok=True)
        return str(folder)

    def scratches(self) -> list[str]:
        """Returns the fingerprints that have a scratch folder."""
        return [folder.name for folder in (self.path / ".scratch").iterdir()]

    def remove_scratch(self, fingerprint: str) -> None:
        """Removes the scratch folder of a fingerprint."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.path / ".scratch" / fingerprint)

    def write_log(self, component: str, execution_id: int, error: BaseException) -> str:
        """Keeps an exception's stack trace. Returns the file's path."""
        path = self.path / "logs" / f"{component}-{execution_id}.log"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
        return str(path)

    @contextlib.contextmanager
    def _lock_file(self, name: str) -> Iterator[TextIO]:
        with _writable(self.path):
            file = open(self.path / ".locks" / name, "a")  # noqa: SIM115
        with file:
            yield file


def open_root(name: str, beam_options: tuple[str, ...] = ()) -> PipelineRoot:
    """Returns the pipeline root of a folder or a URL.

    Raises:
        UserError: it cannot be reached or written.
    """
    if not is_remote(name):
        return PipelineRoot(name)
    from pipeline.remote_root import RemoteRoot  # imports Beam, which no run in a folder should wait for

    return RemoteRoot(name, beam_options)


def reached(uri: str) -> contextlib.AbstractContextManager[str]:
    """Lends the folder of a published artifact or of a part of it; of what is on an object store, a copy."""
    if not is_remote(uri):
        return contextlib.nullcontext(uri)
    from components.remote_files import fetched_folder

    return fetched_folder(uri)


def identity_of(root: str) -> str:
    """Returns the identity of a pipeline root; empty where there is none."""
    if is_remote(root):
        return hashlib.sha256(root.encode()).hexdigest()[:32]  # a URL is the same from everywhere
    try:
        return Path(root, _IDENTITY).read_text(encoding="ascii")
    except OSError:
        return ""


def is_held(folder: Path, name: str) -> bool:
    """Returns whether a process holds a lock of the pipeline root in a folder; makes nothing there.

    Args:
        folder: on this machine: locks of others cannot be tried.
        name: of the lock.
    """
    try:
        with open(folder / ".locks" / name, encoding="ascii") as file:
            portalocker.lock(file, portalocker.LOCK_SH | portalocker.LOCK_NB)
    except FileNotFoundError:
        return False
    except (OSError, portalocker.LockException):  # where it cannot be tried, it may be held
        return True
    return False


def root_of(uri: str) -> str:
    """Returns the pipeline root that a published artifact is in."""
    return uri.rsplit("/", 3)[0]


def state_folder(root: str) -> Path:
    """Returns the local folder of a pipeline root, given as a path or a URL."""
    # Two URLs of one folder would do no harm: they would share a store, which gives no number twice.
    return Path(os.path.abspath(re.sub(r"[^\w.-]+", "-", f"runs-{root.rstrip('/')}") if is_remote(root) else root))


@contextlib.contextmanager
def _writable(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise Seq2ServeError(f"no space left on the disk of the pipeline root {root}") from error
        raise UserError(
            f"cannot write to the pipeline root {root}: {error.strerror}; name another with --pipeline-root"
        ) from error


def _sync_tree(folder: Path) -> None:
    """Waits until a folder and everything in it is on disk, so that no crash publishes empty files."""
    for parent, _, files in os.walk(folder):
        for name in files:
            _sync(Path(parent, name))
        _sync(Path(parent))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
