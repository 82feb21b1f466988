"""Where a pipeline root keeps its artifacts: staging outputs, and publishing them by rename.

<Component>/<output key>/<execution id>   a published artifact (TFX's layout)
.identity                                 the root's identifier in a MetadataStore that it shares with others

remote_artifacts.py has the form for URLs.
"""

import contextlib
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from seq2serve.components.base.artifact import Artifact
from seq2serve.components.base.uris import is_remote
from seq2serve.components.storage.files import sync
from seq2serve.pipeline.metadata.store import MetadataStore
from seq2serve.pipeline.running.state_folder import StateFolder

_IDENTITY = ".identity"


class ArtifactStore(Protocol):
    """The artifacts of one pipeline root, on a disk or in an object store."""

    name: str  # the folder or the URL
    is_remote: bool  # whether they are in an object store

    @property
    def shared_store(self) -> str:
        """Returns a description of the MetadataStore that this root shares with others; empty if it has its own."""

    def identity(self) -> str:
        """Returns a unique identifier of the root, the same from everywhere; call it holding "sweep"."""

    def claim(self, store: MetadataStore) -> None:
        """Ensures that no other store numbers the artifacts, since two stores would issue the same numbers.

        Raises:
            UserError: another store numbers them, or the root cannot be written.
        """

    def stage(self, component: str, execution_id: int, keys: Iterable[str], on_workers: bool) -> dict[str, str]:
        """Creates the empty output folders of an execution.

        Args:
            component: its name.
            execution_id: of the execution.
            keys: of its outputs.
            on_workers: whether Beam's workers write them, possibly on other machines.
        Returns:
            Output key -> path or URL.
        """

    def publish(self, component: str, execution_id: int, keys: Iterable[str]) -> dict[str, str]:
        """Moves staged outputs to where they stay. Returns output key -> path or URL."""

    def published(self, component: str) -> dict[int, Path]:
        """Returns the folders of a component's artifacts that may lack in the store: execution id -> one of them."""

    def local_copy(self, artifact: Artifact, on_workers: bool) -> Artifact:
        """Returns a published artifact with a URI that a component can read, on Beam's workers or in this process.

        Raises:
            FileNotFoundError: it was deleted from the object store.
            OSError: it cannot be read there.
        """

    def unstage(self, execution_id: int) -> None:
        """Removes what an execution staged but did not publish."""

    def discard(self, component: str, execution_id: int) -> None:
        """Removes everything that an incomplete execution left, staged or already moved."""


class LocalArtifacts:
    """Artifacts in the state folder itself, synced to disk."""

    is_remote = False

    def __init__(self, state: StateFolder) -> None:
        self.name = str(state.path)
        self._state, self._path = state, state.path

    @property
    def shared_store(self) -> str:
        """Returns a description of the shared MetadataStore; empty if the root has its own."""
        return "a store that it shares with other roots" if identity_of(self.name) else ""

    def identity(self) -> str:
        """Returns a unique identifier of the root, the same wherever it is mounted; call it holding "sweep"."""
        if not identity_of(self.name):
            self._state.write_text(_IDENTITY, uuid.uuid4().hex)
        return identity_of(self.name)

    def claim(self, store: MetadataStore) -> None:
        """Does nothing, because the folder contains its store."""

    def stage(self, component: str, execution_id: int, keys: Iterable[str], on_workers: bool) -> dict[str, str]:
        """Creates the empty output folders of an execution. Returns output key -> path."""
        folders = {key: self._state.staging(execution_id) / key for key in keys}
        for folder in folders.values():
            folder.mkdir(parents=True)
        return {key: str(folder) for key, folder in folders.items()}

    def publish(self, component: str, execution_id: int, keys: Iterable[str]) -> dict[str, str]:
        """Moves staged outputs to their final folders, synced to disk. Returns output key -> path."""
        published = {}
        staging = self._state.staging(execution_id)
        for key in keys:
            _sync_tree(staging / key)
            published[key] = self._path / component / key / str(execution_id)
            published[key].parent.mkdir(parents=True, exist_ok=True)
            os.rename(staging / key, published[key])
            for folder in (published[key].parent, published[key].parent.parent, self._path):
                sync(folder)
        shutil.rmtree(staging)
        return {key: str(folder) for key, folder in published.items()}

    def published(self, component: str) -> dict[int, Path]:
        """Returns the published folders of a component: execution id -> one of its folders."""
        folders = self._path.glob(f"{component}/*/*")
        return {int(folder.name): folder for folder in folders if folder.name.isdecimal()}

    def local_copy(self, artifact: Artifact, on_workers: bool) -> Artifact:
        """Returns the artifact."""
        return artifact

    def unstage(self, execution_id: int) -> None:
        """Removes what an execution staged but did not publish."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self._state.staging(execution_id))

    def discard(self, component: str, execution_id: int) -> None:
        """Removes everything that an incomplete execution left, staged or already moved."""
        for published in self._path.glob(f"{component}/*/{execution_id}"):
            shutil.rmtree(published)
        self.unstage(execution_id)


def identity_of(root: str) -> str:
    """Returns the identifier of a pipeline root; empty if it has none."""
    if is_remote(root):
        return hashlib.sha256(root.encode()).hexdigest()[:32]  # a URL is the same from everywhere
    try:
        return Path(root, _IDENTITY).read_text(encoding="ascii")
    except OSError:
        return ""


def root_of(uri: str) -> str:
    """Returns the pipeline root of a published artifact."""
    return uri.rsplit("/", 3)[0]


def _sync_tree(folder: Path) -> None:
    """Syncs a folder and its contents to disk, so that a crash cannot publish empty files."""
    for parent, _, files in os.walk(folder):
        for name in files:
            sync(Path(parent, name))
        sync(Path(parent))
