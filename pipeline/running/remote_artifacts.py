"""The artifacts of a pipeline root at a URL: in an object store, with copies in the state folder.

<url>/<Component>/<output key>/<execution id>   a published artifact, or one that a running execution is writing
<url>/.store                                    identifier of the MetadataStore that numbers the artifacts
.others/<root>/<Component>/...                  in the state folder: copies of artifacts of other roots

Nothing is renamed on an object store, and nothing is inferred from its listing: an artifact is complete if the store
has its execution as COMPLETE. Artifacts published or read from this machine keep a local copy under the same name.
"""

import contextlib
import dataclasses
import os
import shutil
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path

from seq2serve.components.base.artifact import Artifact
from seq2serve.components.base.errors import UserError
from seq2serve.components.base.uris import is_remote
from seq2serve.components.storage import beam_files
from seq2serve.pipeline.metadata.store import MetadataStore
from seq2serve.pipeline.running.artifact_store import LocalArtifacts, identity_of, root_of
from seq2serve.pipeline.running.state_folder import StateFolder

_OWNER = ".store"


class RemoteArtifacts:
    """Artifacts in an object store.

    Args:
        url: of the root, without a slash at its end.
        state: the local folder of the root; it need not exist yet.
        beam_options: Beam's own, verbatim; some of them configure credentials.
    Raises:
        UserError: the URL cannot be reached.
    """

    is_remote = True

    def __init__(self, url: str, state: StateFolder, beam_options: tuple[str, ...] = ()) -> None:
        beam_files.check_url(url, "the pipeline root")
        beam_files.use_options(beam_options)
        self.name = self._url = url
        self._state, self._copies = state, LocalArtifacts(state)
        self._owner, self._owner_name = self._read_owner()

    @property
    def shared_store(self) -> str:
        """Returns a description of the store that numbers the artifacts; empty if it is the local folder's own."""
        return "" if self._state.has_own_store else self._owner_name

    def identity(self) -> str:
        """Returns a unique identifier of the root, the same from every machine."""
        return identity_of(self._url)

    def claim(self, store: MetadataStore) -> None:
        """Records which store numbers the artifacts, unless one is recorded; two stores would issue the same numbers.

        Raises:
            UserError: another store numbers them, or the root cannot be written.
        """
        if not self._owner:
            with self._usable():
                name = f"{store.identity()} {store} of {socket.gethostname()}"
                beam_files.write_file(f"{self._url}/{_OWNER}", name.encode())
            self._owner, self._owner_name = self._read_owner()  # another machine may have written it at the same time
        if self._owner != store.identity():
            raise UserError(
                f"the artifacts in {self._url} are numbered by the metadata store {self._owner_name}, not by {store}; "
                f"pass that one with --metadata, continue on its machine, or name another --pipeline-root",
                code="metadata-store-other",
                path=self._url,
            )

    def stage(self, component: str, execution_id: int, keys: Iterable[str], on_workers: bool) -> dict[str, str]:
        """Returns output key -> its final URL if workers write it, else an empty local folder."""
        if on_workers:
            return {key: self._place(component, key, execution_id) for key in keys}
        return self._copies.stage(component, execution_id, keys, on_workers)

    def publish(self, component: str, execution_id: int, keys: Iterable[str]) -> dict[str, str]:
        """Uploads the outputs that were staged locally and keeps them as copies. Returns output key -> URL."""
        published = {key: self._place(component, key, execution_id) for key in keys}
        staging = self._state.staging(execution_id)
        staged = [key for key in published if (staging / key).is_dir()]
        for key in staged:
            beam_files.upload(str(staging / key), published[key])
        if staged:
            self._copies.publish(component, execution_id, staged)
        return published

    def published(self, component: str) -> dict[int, Path]:
        """Returns nothing: `claim` ensures that no other store issues the numbers."""
        return {}

    def unstage(self, execution_id: int) -> None:
        """Removes what an execution staged locally but did not publish."""
        self._copies.unstage(execution_id)

    def discard(self, component: str, execution_id: int) -> None:
        """Removes everything that an incomplete execution left, locally and on the object store."""
        self._copies.discard(component, execution_id)
        beam_files.remove(self._place(component, "*", execution_id))

    def local_copy(self, artifact: Artifact, on_workers: bool) -> Artifact:
        """Returns an artifact with its URL, or with the folder of a local copy if the component reads local files.

        Raises:
            FileNotFoundError: it was deleted.
            OSError: it cannot be read.
        """
        if on_workers or artifact.read_in_place or not is_remote(artifact.uri):
            return artifact
        root = root_of(artifact.uri)
        copies = self._state.path if root == self._url else self._state.path / ".others" / identity_of(root)
        copy = copies.joinpath(*artifact.uri.split("/")[-3:])
        with self._state.lock("copies"):
            if not copy.is_dir():
                self._fetch(artifact.uri, copy)
        return dataclasses.replace(artifact, uri=str(copy))

    def _fetch(self, uri: str, copy: Path) -> None:
        """Makes a complete copy or none; call it holding "copies"."""
        staged = self._state.path / ".staging" / "copy"
        shutil.rmtree(staged, ignore_errors=True)  # left by a killed process
        try:
            if not beam_files.download(uri, str(staged)):
                raise FileNotFoundError(f"{uri} was deleted")
            copy.parent.mkdir(parents=True, exist_ok=True)
            os.rename(staged, copy)
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def _read_owner(self) -> tuple[str, str]:
        """Returns identifier and description of the store that numbers the artifacts; empty if there is none yet."""
        with self._usable():
            file = f"{self._url}/{_OWNER}"
            content = beam_files.read_file(file) if beam_files.exists(file) else b""
        identity, _, name = content.decode(errors="replace").partition(" ")
        return identity, name

    @contextlib.contextmanager
    def _usable(self) -> Iterator[None]:
        try:
            beam_files.has_files(self._url)  # has a clearer error than writing if the bucket is missing
            yield
        except OSError as error:
            raise UserError(
                f"the pipeline root {self._url} cannot be used: {error}", code="url-unreachable", path=self._url
            ) from error

    def _place(self, component: str, key: str, execution_id: int) -> str:
        return f"{self._url}/{component}/{key}/{execution_id}"
