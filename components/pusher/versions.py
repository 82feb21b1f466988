"""The serving folder: numbered versions, published atomically, and rollbacks.

The label `stable` is on the newest version, which servers use by default. The label `canary` is on the version that was
pushed last. The two differ only after a rollback, which publishes an earlier version under a new number. Therefore,
version numbers only grow, and a rollback also works on servers that ignore labels.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import tempfile
import time
from typing import Any

from seq2serve.components.base.errors import UserError
from seq2serve.components.base.uris import is_remote
from seq2serve.components.pusher.server_files import SERVER_SETTINGS, write_server_settings
from seq2serve.components.pusher.store import STAGING_PREFIX, Store, open_store

RECORD_FILE = "assets.extra/seq2serve.json"
STABLE, CANARY = "stable", "canary"


@dataclasses.dataclass(frozen=True)
class Version:
    """A version in a serving folder.

    Args:
        number: the name of its folder.
        record: the JSON record of its publication; empty if another program published it.
    """

    number: int
    record: dict[str, Any]

    @property
    def copy_of(self) -> int:
        """Returns the version that a rollback copied to this one; 0 if this version was pushed."""
        return self.record.get("copy_of", 0)

    @property
    def origin(self) -> int:
        """Returns the pushed version that has the same content."""
        return self.copy_of or self.number


def versions(destination: str | os.PathLike) -> list[int]:
    """Returns the numbers of the versions in a serving folder, oldest first."""
    return sorted(int(name) for name in open_store(os.fspath(destination)).names() if name.isdecimal())


def read_versions(destination: str | os.PathLike) -> list[Version]:
    """Returns the versions in a serving folder with their records, oldest first."""
    store = open_store(os.fspath(destination))
    return [Version(number, _read_record(store, number)) for number in versions(destination)]


def pushed_path(path: str) -> str:
    """Returns the path to which the content of a local version was pushed; it differs for copies made by a rollback."""
    folder, _, name = path.rstrip("/").rpartition("/")
    if is_remote(path) or not (folder and name.isdecimal()):
        return path
    return f"{folder}/{Version(int(name), _read_record(open_store(folder), int(name))).origin}"


def labels(known: list[Version]) -> dict[str, int]:
    """Returns label -> version; empty if there are no versions."""
    if not known:
        return {}
    pushed = [version.number for version in known if not version.copy_of]
    return {STABLE: known[-1].number, CANARY: pushed[-1] if pushed else known[-1].number}


def check_destination(destination: str, task: str) -> None:
    """Checks that models of a task can be pushed to a folder. It is called before training starts.

    Args:
        destination: the serving folder, on a local disk or in an object store; it need not exist.
        task: the name of the models' task. A serving folder holds models of one task, because clients expect answers of
            one kind.
    Raises:
        UserError: the folder is read-only, holds models of another task, or is not a serving folder.
        OSError: the folder cannot be read.
    """
    if not is_remote(destination):
        path = pathlib.Path(destination).absolute()
        nearest = next(folder for folder in (path, *path.parents) if folder.exists())
        try:
            with tempfile.TemporaryDirectory(dir=nearest, prefix=STAGING_PREFIX):
                pass
        except OSError as error:
            raise UserError(
                f"cannot push to {destination}: {error.strerror} ({nearest}); name another folder with --serving-dir",
                code="serving-dir-unwritable",
                path=destination,
            ) from error
    published = read_versions(destination)
    if other_tasks := {version.record["task"] for version in published if "task" in version.record} - {task}:
        raise UserError(
            f"{destination} serves models of the task {', '.join(sorted(other_tasks))}; name another folder for "
            f"{task} with --serving-dir",
            code="serving-dir-task",
            path=destination,
            task=task,
        )
    names = [name for name in open_store(destination).names() if not name.startswith(".")]
    if names and not published and SERVER_SETTINGS not in names:
        raise UserError(
            f"{destination} is not a serving folder: it contains {sorted(names)[0]}; name an empty or new folder with "
            f"--serving-dir",
            code="serving-dir-foreign",
            path=destination,
        )


def publish(destination: str, source: str, record: dict[str, Any], keep: int) -> int:
    """Adds a SavedModel as a new version unless it is already the newest, and keeps only the last `keep` versions.

    Args:
        destination: the serving folder, on a local disk or in an object store; created if it is missing.
        source: the local folder of a SavedModel.
        record: JSON values to store with the version.
        keep: number of versions to keep; versions with a label are always kept.
    Returns:
        The number of the version that contains the model.
    Raises:
        OSError: the destination cannot be written or is full; no new version is visible.
    """
    store, digest = open_store(destination), _digest(pathlib.Path(source))
    with store.locked():
        known = read_versions(destination)
        if known and known[-1].record.get("sha256") == digest:
            number = known[-1].number
        else:
            number = _next_number(known)
            _add(store, number, source, {**record, "sha256": digest})
        _tidy(store, destination, keep)
    return number


def rollback(destination: str, number: int | None = None) -> tuple[int, int]:
    """Publishes an earlier version under a new number.

    Args:
        destination: the serving folder.
        number: the version to roll back to; None for the version pushed before the served one.
    Returns:
        The version rolled back to, and its new number.
    Raises:
        UserError: the version does not exist, or is already served.
    """
    store = open_store(destination)
    _rollback_target(destination, read_versions(destination), number)  # raises before anything is written
    with store.locked():
        known = read_versions(destination)
        target = _rollback_target(destination, known, number)
        copy = _next_number(known)
        _add(store, copy, store.path(str(target.number)), {**target.record, "copy_of": target.origin})
        _tidy(store, destination, len(known) + 1)
    return target.origin, copy


def _rollback_target(destination: str, known: list[Version], number: int | None) -> Version:
    listed = ", ".join(str(version.number) for version in known) or "none"
    if not known:
        raise UserError(
            f"no versions in {destination}; is it a serving folder?", code="versions-missing", path=destination
        )
    served = known[-1].origin
    if number is None:
        earlier = [version for version in known if not version.copy_of and version.number < served]
        if not earlier:
            again = f", as {known[-1].number}" if known[-1].copy_of else ""
            raise UserError(
                f"{destination} serves version {served}{again}, and no version pushed before it is left; available "
                f"versions: {listed}; choose one with `seq2serve rollback {destination} VERSION`",
                code="version-missing",
                path=destination,
            )
        return earlier[-1]
    chosen = [version for version in known if version.number == number]
    if not chosen:
        raise UserError(
            f"no version {number} in {destination}; available versions: {listed}",
            code="version-missing",
            path=destination,
            version=number,
        )
    if chosen[0].origin == served:
        raise UserError(
            f"{destination} already serves version {number}; available versions: {listed}",
            code="version-served",
            path=destination,
            version=number,
        )
    return chosen[0]


def _next_number(known: list[Version]) -> int:
    """Returns the time in seconds, as TFX does, or one more than the newest version if that is greater."""
    return max(int(time.time()), known[-1].number + 1 if known else 0)


def _add(store: Store, number: int, source: str, record: dict[str, Any]) -> None:
    content = json.dumps(record, indent=2, ensure_ascii=False).encode() + b"\n"
    store.add(str(number), source, {RECORD_FILE: content})


def _tidy(store: Store, destination: str, keep: int) -> None:
    """Updates the server's configuration, then removes old versions; if killed in between, the next push does so."""
    known = read_versions(destination)
    label_versions = labels(known)
    write_server_settings(store, label_versions)
    for version in known[: -max(keep, 1)]:
        if version.number not in label_versions.values():
            store.remove(str(version.number))


def _read_record(store: Store, number: int) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        record = json.loads(store.read(f"{number}/{RECORD_FILE}"))
        return record if isinstance(record, dict) else {}
    return {}


def _digest(source: pathlib.Path) -> str:
    """Returns the SHA-256 of a SavedModel, from the names and contents of its files."""
    digest = hashlib.sha256()
    for path in sorted(source.rglob("*")):
        relative = path.relative_to(source).as_posix()
        if relative != RECORD_FILE and path.is_file():
            with open(path, "rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            digest.update(f"{relative}\0{content}\n".encode())
    return digest.hexdigest()
