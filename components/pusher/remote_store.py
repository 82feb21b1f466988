"""A serving folder in an object store. store.py has the interface, and the serving folder on a disk."""

import contextlib
from collections.abc import Iterator, Mapping

from seq2serve.components.pusher.store import GRAPH_FILE
from seq2serve.components.storage import beam_files


class RemoteStore:
    """A folder in an object store, such as gs:// or s3://, without atomic renames and locks."""

    def __init__(self, destination: str):
        self._folder = destination.rstrip("/")

    def path(self, name: str) -> str:
        """Returns the URL of a name."""
        return f"{self._folder}/{name}"

    def names(self) -> list[str]:
        """Returns the names of the entries; none if the folder is missing."""
        return sorted({name.partition("/")[0] for name in beam_files.file_sizes(self._folder)})

    def has(self, name: str) -> bool:
        """Returns whether a file exists."""
        return beam_files.exists(self.path(name))

    def read(self, name: str) -> bytes:
        """Reads a file."""
        return beam_files.read_file(self.path(name))

    def write(self, name: str, content: bytes) -> None:
        """Writes a file; an object becomes visible, or replaces another one, when it is complete."""
        beam_files.write_file(self.path(name), content)

    def add(self, name: str, source: str, extra: Mapping[str, bytes]) -> None:
        """Uploads saved_model.pb last."""
        beam_files.upload(source, self.path(name), leave_out=(GRAPH_FILE, *extra))
        for relative, content in extra.items():
            self.write(f"{name}/{relative}", content)
        with open(f"{source}/{GRAPH_FILE}", "rb") as file:
            self.write(f"{name}/{GRAPH_FILE}", file.read())

    def rename(self, name: str, target: str) -> None:
        """Copies saved_model.pb last, then deletes it first: without it, a killed call had copied everything."""
        if self.has(f"{name}/{GRAPH_FILE}"):
            beam_files.remove(self.path(target))  # what a killed call had copied
            files = beam_files.file_sizes(self.path(name)).keys() - {GRAPH_FILE}
            for names in (sorted(files), [GRAPH_FILE]):
                beam_files.copy({self.path(f"{name}/{file}"): self.path(f"{target}/{file}") for file in names})
        self.remove(name)

    def remove(self, name: str) -> None:
        """Deletes saved_model.pb first."""
        if self.has(f"{name}/{GRAPH_FILE}"):  # else a killed call deleted it
            beam_files.remove_file(self.path(f"{name}/{GRAPH_FILE}"))
        beam_files.remove(self.path(name))

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Does nothing. Object stores have no lock: callers must not push concurrently."""
        yield
