"""Files on an object store, or wherever else Beam's file systems reach.

Comes in: a URL or a pattern of such. Goes out: what is there, copied here; or what is here, copied there.
Read next: text_files.py and examples_io.py, which read through it; pipeline/fingerprint.py, which finds files that are
here; pipeline/remote_root.py, a pipeline root of such files.

What is here is lent as it is: a path costs nothing more than it would without this file.
"""

import concurrent.futures
import contextlib
import hashlib
import os
import posixpath
import shutil
import tempfile
from collections.abc import Iterator

from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from components.artifact import is_remote
from components.errors import Seq2ServeError, UserError

_AT_ONCE = 8  # files that are copied side by side: most of the time is spent waiting for the store
_PLAIN = CompressionTypes.UNCOMPRESSED  # else Beam unpacks what it takes for packed by its name


def find_files(pattern: str) -> list[dict]:
    """Finds files by a URL, such as `gs://bucket/*.tsv`.

    Args:
        pattern: with `*` for any characters, where it is not the name of one file.
    Returns:
        {"path", "bytes", "sha256"} of each, by path; the last stands for name, size, time and the store's own checksum,
        for to read them all before they are read would take too long.
    Raises:
        UserError: there is none, one is empty, or the store cannot be reached.
    """
    try:
        (result,) = FileSystems.match([pattern])
        found = sorted(result.metadata_list, key=lambda file: file.path)
        seals = [f"{file.path}\n{file.last_updated_in_seconds}\n{FileSystems.checksum(file.path)}" for file in found]
    except (BeamIOError, OSError, ValueError) as error:
        raise UserError(
            f"cannot read {pattern}: {error} (gs:// needs the extra gcp: pip install 'seq2serve[gcp]')"
        ) from error
    if not found:
        raise UserError(f"no file {pattern!r}; give a file that exists or a pattern")
    if empty := next((file.path for file in found if not file.size_in_bytes), None):
        raise UserError(f"{empty} is empty; give a file with at least a header and some rows")
    return [
        {"path": file.path, "bytes": file.size_in_bytes, "sha256": hashlib.sha256(seal.encode()).hexdigest()}
        for file, seal in zip(found, seals, strict=True)
    ]


def is_known(url: str) -> bool:
    """Returns whether Beam has a file system for a URL; those of the clouds are extras."""
    try:
        FileSystems.get_filesystem(url)
    except ValueError:
        return False
    return True


def use_options(flags: tuple[str, ...]) -> None:
    """Has this process reach files as Beam pipelines with these options do, such as by their credentials."""
    FileSystems.set_options(PipelineOptions(list(flags)))


def has_files(uri: str) -> bool:
    """Returns whether there is anything under a URL.

    Raises:
        Seq2ServeError: that cannot be found out.
    """
    return bool(_under(uri, limit=1))


@contextlib.contextmanager
def fetched_file(path: str) -> Iterator[str]:
    """Lends a file: a local one itself, of another a copy of the same name, which is gone afterwards.

    Raises:
        Seq2ServeError: it cannot be read.
    """
    if not is_remote(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as scratch:
        copy = os.path.join(scratch, posixpath.basename(path))
        with _explained(path):
            _fetch(path, copy)
        yield copy


@contextlib.contextmanager
def fetched_folder(uri: str) -> Iterator[str]:
    """Lends a folder: a local one itself, of another a copy, which is gone afterwards.

    Raises:
        Seq2ServeError: it cannot be read.
    """
    if not is_remote(uri):
        yield uri
        return
    with tempfile.TemporaryDirectory() as scratch:
        download(uri, scratch)
        yield scratch


@contextlib.contextmanager
def filled_folder(uri: str) -> Iterator[str]:
    """Lends a folder to fill: a local one itself, made if it is missing; else an empty one, whose files are then sent.

    Raises:
        Seq2ServeError: they cannot be written.
    """
    if not is_remote(uri):
        os.makedirs(uri, exist_ok=True)
        yield uri
        return
    with tempfile.TemporaryDirectory() as scratch:
        yield scratch
        upload(scratch, uri)


def read_file(path: str) -> bytes | None:
    """Reads a small file; None where there is none.

    Raises:
        Seq2ServeError: it cannot be read.
    """
    with _explained(path):
        if not FileSystems.exists(path):
            return None
        with FileSystems.open(path, compression_type=_PLAIN) as file:
            return file.read()


def write_file(path: str, content: bytes) -> None:
    """Writes a file, here or there; its folder is made if it is missing.

    Raises:
        Seq2ServeError: it cannot be written.
    """
    with _explained(path), FileSystems.create(path, compression_type=_PLAIN) as file:
        file.write(content)


def remove_file(path: str) -> None:
    """Deletes a file, here or there.

    Raises:
        Seq2ServeError: it cannot be deleted.
    """
    if not is_remote(path):
        os.remove(path)  # Beam would take the path for a pattern
        return
    with _explained(path):
        FileSystems.delete([path])


def list_files(folder: str) -> list[str]:
    """Returns the paths of the files in a folder, here or there, in order; of none where there is no such folder.

    Raises:
        Seq2ServeError: that cannot be found out.
    """
    if is_remote(folder):
        return [path for path in _under(folder) if "/" not in path.removeprefix(f"{folder}/")]
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return [os.path.join(folder, name) for name in sorted(names)]


def download(uri: str, folder: str) -> int:
    """Copies everything under a URL into a folder, and returns how many files that is.

    Raises:
        Seq2ServeError: it cannot be read.
    """

    def fetch(path: str) -> None:
        _fetch(path, os.path.join(folder, path.removeprefix(f"{uri}/")))

    paths = _under(uri)
    with _explained(uri), concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(fetch, paths))
    return len(paths)


def upload(folder: str, uri: str) -> None:
    """Copies everything in a folder to under a URL.

    Raises:
        Seq2ServeError: it cannot be written.
    """

    def send(path: str) -> None:
        target = f"{uri}/{os.path.relpath(path, folder)}"
        with open(path, "rb") as source, FileSystems.create(target, compression_type=_PLAIN) as file:
            shutil.copyfileobj(source, file)

    paths = [os.path.join(parent, name) for parent, _, names in os.walk(folder) for name in names]
    with _explained(uri), concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(send, paths))


def remove(pattern: str) -> None:
    """Deletes everything under the URLs of a pattern, such as gs://bucket/runs/Trainer/*/7.

    Raises:
        Seq2ServeError: it cannot be deleted, or not all of it.
    """
    depth = pattern.count("/") + 1
    folders = {"/".join(path.split("/")[:depth]) for path in _under(pattern)}
    if folders:
        with _explained(pattern):
            FileSystems.delete([f"{folder}/" for folder in sorted(folders)])
        if left := _under(pattern, limit=1):  # a store may only log what it could not delete
            raise Seq2ServeError(f"cannot delete {left[0]}")


def _under(pattern: str, limit: int | None = None) -> list[str]:
    """Returns the URLs of the files under a URL or a pattern of such, sorted, up to a limit."""
    with _explained(pattern):
        (found,) = FileSystems.match([f"{pattern}/**"], limits=[limit])
    # A store's own tools make an object with a slash at its end where a person makes a folder.
    return sorted(file.path for file in found.metadata_list if not file.path.endswith("/"))


def _fetch(path: str, copy: str) -> None:
    os.makedirs(os.path.dirname(copy), exist_ok=True)
    with FileSystems.open(path, compression_type=_PLAIN) as source, open(copy, "wb") as file:
        shutil.copyfileobj(source, file)


@contextlib.contextmanager
def _explained(url: str) -> Iterator[None]:
    """Turns whatever the client of a store raises, each its own, into one message."""
    try:
        yield
    except Exception as error:
        if not is_remote(url):
            raise
        reason = error
        while details := getattr(reason, "exception_details", None):  # Beam's, of which the first says what happened
            reason = next(iter(details.values()))
        raise Seq2ServeError(f"cannot reach {url}: {reason}") from error
