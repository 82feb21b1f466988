"""A pipeline root on an object store: artifacts there; their numbers, locks, logs and copies in a folder here.

Comes in: a URL, such as gs://bucket/runs. Goes out: for Beam's workers URLs to fill, for all others local folders.
Read next: root.py, whose folders are those of the part that is here; components/remote_files.py.

<url>/<Component>/<output key>/<execution id>   a published artifact, or what a running execution has written of it
<url>/.store                                    identity of the MetadataStore that gives the numbers
.others/<root>/<Component>/...                  here: copies of what is in other roots

Nothing is renamed on an object store, and nothing is found by what lies there: whole is what the store has as COMPLETE.
What is published from here, and what is fetched, stays here as a copy, under the same name.
"""

import contextlib
import dataclasses
import os
import shutil
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path

from components import remote_files
from components.artifact import Artifact, is_remote
from components.errors import Seq2ServeError, UserError
from pipeline.metadata import MetadataStore
from pipeline.root import PipelineRoot, identity_of, root_of

_OWNER = ".store"


class RemoteRoot(PipelineRoot):
    """A pipeline root of which the artifacts are on an object store.

    Args:
        url: of the root, without a slash at its end.
        beam_options: Beam's, verbatim; some say with what credentials files are reached.
    Raises:
        UserError: the URL cannot be reached, or what is here cannot be written.
    """

    is_remote = True

    def __init__(self, url: str, beam_options: tuple[str, ...] = ()) -> None:
        if not remote_files.is_known(url):
            raise UserError(
                f"the pipeline root {url} cannot be reached: Beam has no file system for it here; gs:// needs the "
                f"extra gcp: pip install 'seq2serve[gcp]'"
            )
        if sign := next((sign for sign in "[*?" if sign in url), ""):
            raise UserError(
                f"the pipeline root {url} has {sign!r} in its name, by which Beam would find and delete other files "
                f"than its own; name another with --pipeline-root"
            )
        remote_files.use_options(beam_options)
        self._url = url
        self._owner, self._owner_name = self._read_owner()
        super().__init__(url)

    def __str__(self) -> str:
        return self._url

    @property
    def shared_store(self) -> str:
        """Returns what a person calls the store that gives the numbers, where that is not in the part that is here."""
        return "" if self.has_own_store else self._owner_name

    def identity(self) -> str:
        """Returns a name that no other root has, the same from everywhere."""
        return identity_of(self._url)

    def claim(self, store: MetadataStore) -> None:
        """Writes down which store gives the numbers, unless that is known; two would give the same ones twice.

        Raises:
            UserError: another store does, or the root cannot be written.
        """
        if not self._owner:
            with self._usable():
                name = f"{store.identity()} {store} of {socket.gethostname()}"
                remote_files.write_file(f"{self._url}/{_OWNER}", name.encode())
            self._owner, self._owner_name = self._read_owner()  # another may have done the same at this moment
        if self._owner != store.identity():
            raise UserError(
                f"the artifacts in {self._url} are numbered by another metadata store, {self._owner_name}, than "
                f"{store}; name that one with --metadata, go on where it is, or name another --pipeline-root"
            )

    def stage(self, component: str, execution_id: int, keys: Iterable[str], on_workers: bool) -> dict[str, str]:
        """Returns output key -> where the workers write it, which is where it stays, or an empty local folder."""
        if on_workers:
            return {key: self._place(component, key, execution_id) for key in keys}
        return super().stage(component, execution_id, keys, on_workers)

    def publish(self, component: str, execution_id: int, keys: Iterable[str]) -> dict[str, str]:
        """Sends what was staged here, of which a copy stays. Returns output key -> URL."""
        published = {key: self._place(component, key, execution_id) for key in keys}
        staging = self.path / ".staging" / str(execution_id)
        staged = [key for key in published if (staging / key).is_dir()]
        for key in staged:
            remote_files.upload(str(staging / key), published[key])
        if staged:
            super().publish(component, execution_id, staged)
        return published

    def published(self, component: str) -> dict[int, Path]:
        """Returns nothing: whose numbers these are is what `claim` has made sure of."""
        return {}

    def discard(self, component: str, execution_id: int) -> None:
        """Removes whatever an execution that did not complete left, here and there."""
        super().discard(component, execution_id)
        remote_files.remove(self._place(component, "*", execution_id))

    def within_reach(self, artifact: Artifact, on_workers: bool) -> Artifact:
        """Returns an artifact with its URL, or where it is read from a disk, with the folder of its copy.

        Raises:
            FileNotFoundError: nothing is left of it.
            Seq2ServeError: it cannot be read.
        """
        if on_workers or artifact.read_in_place or not is_remote(artifact.uri):
            return artifact
        root = root_of(artifact.uri)
        mine = self.path if root == self._url else self.path / ".others" / identity_of(root)
        copy = mine.joinpath(*artifact.uri.split("/")[-3:])
        with self.lock("copies"):
            if not copy.is_dir():
                self._fetch(artifact.uri, copy)
        return dataclasses.replace(artifact, uri=str(copy))

    def _fetch(self, uri: str, copy: Path) -> None:
        """Makes a copy that is there as a whole or not at all; call it holding "copies"."""
        whole = self.path / ".staging" / "copy"
        shutil.rmtree(whole, ignore_errors=True)  # what a process that was killed has left
        try:
            if not remote_files.download(uri, str(whole)):
                raise FileNotFoundError(f"{uri} is gone")
            copy.parent.mkdir(parents=True, exist_ok=True)
            os.rename(whole, copy)
        finally:
            shutil.rmtree(whole, ignore_errors=True)

    def _read_owner(self) -> tuple[str, str]:
        """Returns identity and name of the store that gives the numbers; empty ones where none does yet."""
        with self._usable():
            content = remote_files.read_file(f"{self._url}/{_OWNER}") or b""
        identity, _, name = content.decode(errors="replace").partition(" ")
        return identity, name

    @contextlib.contextmanager
    def _usable(self) -> Iterator[None]:
        try:
            remote_files.has_files(self._url)  # says more of a bucket that is missing than writing to it does
            yield
        except Seq2ServeError as error:
            raise UserError(f"the pipeline root {self._url} cannot be used: {error}") from error

    def _place(self, component: str, key: str, execution_id: int) -> str:
        return f"{self._url}/{component}/{key}/{execution_id}"
