"""Files on object stores and other file systems that Beam supports; files.py also handles local paths."""

import concurrent.futures
import contextlib
import hashlib
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from typing import BinaryIO

from apache_beam.io.filesystem import BeamIOError, CompressionTypes, FileMetadata
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from seq2serve.components.base.errors import StorageError, UserError
from seq2serve.components.base.uris import is_remote

_NUM_THREADS = 8  # files that are copied in parallel; most of the time is spent waiting for the store
_PLAIN = CompressionTypes.UNCOMPRESSED  # otherwise Beam decompresses files by their extension


def find_files(pattern: str) -> list[dict]:
    """Finds files by a URL, such as `gs://bucket/*.tsv`.

    Args:
        pattern: the URL of a file, or a pattern in which `*` matches any characters.
    Returns:
        {"path", "bytes", "sha256"} of each file, sorted by path. "sha256" is a hash of name, time and the store's own
        checksum, because hashing the content would mean reading every file twice.
    Raises:
        UserError: no file matches, or the store cannot be reached.
    """
    try:
        (result,) = FileSystems.match([pattern])
        files = sorted(result.metadata_list, key=lambda file: file.path)
        versions = [f"{file.path}\n{file.last_updated_in_seconds}\n{FileSystems.checksum(file.path)}" for file in files]
    except (BeamIOError, OSError, ValueError) as error:
        raise UserError(
            f"cannot read {pattern}: {error} (gs:// needs the extra gcp: pip install 'seq2serve[gcp]')",
            code="file-unreadable",
            path=pattern,
        ) from error
    if not files:
        raise UserError(
            f"file not found: {pattern!r}; name an existing file or a pattern that matches some",
            code="file-missing",
            path=pattern,
        )
    return [
        {"path": file.path, "bytes": file.size_in_bytes, "sha256": hashlib.sha256(version.encode()).hexdigest()}
        for file, version in zip(files, versions, strict=True)
    ]


def check_url(url: str, name: str) -> None:
    """Checks that files can be written and deleted under a URL.

    Args:
        url: of a folder.
        name: what messages call it, such as "the pipeline root".
    Raises:
        UserError: Beam has no file system for it, or would treat it as a pattern.
    """
    try:
        FileSystems.get_filesystem(url)
    except ValueError as error:  # those of the cloud providers are extras
        raise UserError(
            f"{name} {url} cannot be reached: Beam has no file system for it; gs:// needs the extra gcp: pip install "
            f"'seq2serve[gcp]'",
            code="url-unsupported",
            path=url,
        ) from error
    if sign := next((sign for sign in "[*?" if sign in url), ""):
        raise UserError(
            f"{name} {url} has {sign!r} in its name, which Beam treats as a pattern that may match and delete other "
            f"files; name another folder",
            code="url-is-pattern",
            path=url,
        )


def use_options(flags: tuple[str, ...]) -> None:
    """Applies Beam pipeline options, such as credentials, to the file access of this process."""
    FileSystems.set_options(PipelineOptions(list(flags)))


def has_files(uri: str) -> bool:
    """Returns whether there are files under a URL.

    Raises:
        StorageError: the store cannot be reached.
    """
    return bool(_files_under(uri, limit=1))


def open_file(path: str) -> BinaryIO:
    """Opens a local or remote file for reading; it is not decompressed.

    Raises:
        OSError, BeamIOError: it cannot be opened.
    """
    return FileSystems.open(path, compression_type=_PLAIN)


def create_file(path: str) -> BinaryIO:
    """Opens a local or remote file for writing; it replaces an existing one.

    Raises:
        OSError, BeamIOError: it cannot be created.
    """
    return FileSystems.create(path, compression_type=_PLAIN)


def exists(path: str) -> bool:
    """Returns whether there is a file at a URL.

    Raises:
        StorageError: the store cannot be reached.
    """
    with _store_errors(path):
        return FileSystems.exists(path)


def read_file(path: str) -> bytes:
    """Reads a small file.

    Raises:
        StorageError: it does not exist or cannot be read.
    """
    with _store_errors(path), open_file(path) as file:
        return file.read()


def write_file(path: str, content: bytes) -> None:
    """Writes a local or remote file; creates its folder if it is missing.

    Raises:
        StorageError: it cannot be written.
    """
    with _store_errors(path), create_file(path) as file:
        file.write(content)


def download(uri: str, folder: str) -> int:
    """Copies all files under a URL into a folder and returns their number.

    Raises:
        StorageError: a file cannot be read.
    """

    def download_one(path: str) -> None:
        _download(path, os.path.join(folder, path.removeprefix(f"{uri}/")))

    paths = _files_under(uri)
    with _store_errors(uri), concurrent.futures.ThreadPoolExecutor(_NUM_THREADS) as pool:
        list(pool.map(download_one, paths))
    return len(paths)


def upload(folder: str, uri: str, leave_out: Collection[str] = ()) -> None:
    """Copies the files in a folder to a URL.

    Args:
        folder: a local one.
        uri: of the copy.
        leave_out: paths of files that are not copied, relative to the folder.
    Raises:
        StorageError: a file cannot be written.
    """

    def upload_one(name: str) -> None:
        target = create_file(f"{uri}/{name}")
        with open(os.path.join(folder, name), "rb") as source, target as file:
            shutil.copyfileobj(source, file)

    paths = [os.path.join(parent, name) for parent, _, names in os.walk(folder) for name in names]
    names = {os.path.relpath(path, folder) for path in paths} - set(leave_out)
    with _store_errors(uri), concurrent.futures.ThreadPoolExecutor(_NUM_THREADS) as pool:
        list(pool.map(upload_one, sorted(names)))


def copy(paths: Mapping[str, str]) -> None:
    """Copies files within an object store.

    Args:
        paths: URL of each file -> URL of its copy.
    Raises:
        StorageError: a file cannot be copied.
    """
    if paths:
        with _store_errors(next(iter(paths))):
            FileSystems.copy(list(paths), list(paths.values()))


def remove(pattern: str) -> None:
    """Deletes all files under the URLs that match a pattern, such as gs://bucket/runs/Trainer/*/7.

    Raises:
        StorageError: some or all of the files cannot be deleted.
    """
    depth = pattern.count("/") + 1
    folders = {"/".join(path.split("/")[:depth]) for path in _files_under(pattern)}
    if folders:
        with _store_errors(pattern):
            FileSystems.delete([f"{folder}/" for folder in sorted(folders)])
        if remaining := _files_under(pattern, limit=1):  # a store may only log the files that it could not delete
            raise StorageError(f"cannot delete {remaining[0]}", code="file-undeletable", path=remaining[0])


def _files_under(pattern: str, limit: int | None = None) -> list[str]:
    """Returns up to `limit` URLs of the files under a URL or under the URLs that match a pattern, sorted."""
    return sorted(file.path for file in _match(f"{pattern}/**", limit))


def _match(pattern: str, limit: int | None = None) -> list[FileMetadata]:
    with _store_errors(pattern):
        (result,) = FileSystems.match([pattern], limits=[limit])
    # The stores' own tools represent a folder by an object whose name ends in a slash.
    return [file for file in result.metadata_list if not file.path.endswith("/")]


def fetch_file(path: str, copy: str) -> None:
    """Copies a file from a URL.

    Raises:
        StorageError: it cannot be read.
    """
    with _store_errors(path):
        _download(path, copy)


def remove_file(path: str) -> None:
    """Deletes the file at a URL.

    Raises:
        StorageError: it cannot be deleted.
    """
    with _store_errors(path):
        FileSystems.delete([path])


def file_sizes(folder: str) -> dict[str, int]:
    """Returns the files under a URL: path relative to it -> size in bytes.

    Raises:
        StorageError: the store cannot be reached.
    """
    return {file.path.removeprefix(f"{folder}/"): file.size_in_bytes for file in _match(f"{folder}/**")}


def list_files(folder: str) -> list[str]:
    """Returns the URLs of the files in a folder, sorted; an empty list if there is no such folder.

    Raises:
        StorageError: the store cannot be reached.
    """
    return [path for path in _files_under(folder) if "/" not in path.removeprefix(f"{folder}/")]


def _download(path: str, copy: str) -> None:
    os.makedirs(os.path.dirname(copy), exist_ok=True)
    with open_file(path) as source, open(copy, "wb") as file:
        shutil.copyfileobj(source, file)


@contextlib.contextmanager
def _store_errors(url: str) -> Iterator[None]:
    """Converts every exception to a StorageError if the URL is remote; each store's client has its own exceptions."""
    try:
        yield
    except Exception as error:
        if not is_remote(url):
            raise
        reason = error
        while details := getattr(reason, "exception_details", None):  # Beam nests them; the first one has the cause
            reason = next(iter(details.values()))
        raise StorageError(f"cannot reach {url}: {reason}", code="url-unreachable", path=url) from error
