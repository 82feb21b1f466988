"""A Beam file system in memory that behaves like an object store: memory://bucket/name.

Beam accepts one class per scheme, so tests use it through the fixture `blobs` in conftest.py.
"""

import fnmatch
import io

from apache_beam.io.filesystem import BeamIOError, FileMetadata, FileSystem

BLOBS: dict[str, bytes] = {}  # URL -> content
CLOSED = "memory://closed"  # a bucket without write access


class MemoryFileSystem(FileSystem):
    """The part of an object store that a pipeline uses; Beam finds the class by its scheme."""

    @classmethod
    def scheme(cls):
        return "memory"

    def join(self, basepath, *paths):
        return "/".join([basepath.rstrip("/"), *paths])

    def split(self, path):
        return tuple(path.rsplit("/", 1))

    def has_dirs(self):
        return False

    def mkdirs(self, path):
        pass

    def _list(self, dir_or_prefix):
        return (FileMetadata(path, len(blob), 1.0) for path, blob in BLOBS.items() if path.startswith(dir_or_prefix))

    def create(self, path, mime_type="", compression_type="auto"):
        if path.startswith(CLOSED):
            raise BeamIOError("no access", {path: PermissionError("permission denied")})
        return _Blob(path)

    def open(self, path, mime_type="", compression_type="auto"):
        if path not in BLOBS:
            raise BeamIOError(f"no blob {path}")
        return io.BytesIO(BLOBS[path])

    def exists(self, path):
        return any(fnmatch.fnmatch(name, path) for name in BLOBS)

    def checksum(self, path):
        return str(hash(BLOBS[path]))

    def metadata(self, path):
        return FileMetadata(path, len(BLOBS[path]), 1.0)

    def size(self, path):
        return len(BLOBS[path])

    def last_updated(self, path):
        return 1.0

    def copy(self, source_file_names, destination_file_names):
        for source, destination in zip(source_file_names, destination_file_names, strict=True):
            BLOBS[destination] = BLOBS[source]

    def rename(self, source_file_names, destination_file_names):
        for source, destination in zip(source_file_names, destination_file_names, strict=True):
            BLOBS[destination] = BLOBS.pop(source)

    def delete(self, paths):
        for path in paths:
            for name in [name for name in BLOBS if name == path or (path.endswith("/") and name.startswith(path))]:
                del BLOBS[name]


class _Blob(io.BytesIO):
    """A blob that is being written; it appears in the store when it is closed."""

    def __init__(self, path: str):
        super().__init__()
        self._path = path

    def close(self) -> None:
        if not self.closed:
            BLOBS[self._path] = self.getvalue()
        super().close()
