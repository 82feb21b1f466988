"""The folder that a model server watches: numbered versions, and files that tell the server what to do with them.

Comes in: a SavedModel. Goes out: one more version, whole from the moment it can be seen; or an earlier one, once more.
Read next: serving_store.py for how files get there, serving_files.py for the server's settings, pusher.py for a user.

The newest version is what a server answers with: label `stable`. The label `canary` is the newest that was pushed;
it differs from `stable` only after a rollback, which publishes an earlier version again, under a new number. So
numbers only grow, and a plain server that knows no labels rolls back as well.
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

from components.artifact import is_remote
from components.errors import UserError
from components.serving_files import SERVER_SETTINGS, write_server_settings
from components.serving_store import STAGING_PREFIX, Store, open_store

RECORD_FILE = "assets.extra/seq2serve.json"
STABLE, CANARY = "stable", "canary"


@dataclasses.dataclass(frozen=True)
class Version:
    """A version in a serving folder.

    Args:
        number: its folder's name.
        record: what was written of it when it was published; empty for one that someone else put there.
    """

    number: int
    record: dict[str, Any]

    @property
    def copy_of(self) -> int:
        """Returns the version it is a copy of, or 0 if it was pushed."""
        return self.record.get("copy_of", 0)

    @property
    def origin(self) -> int:
        """Returns the version that was pushed with this content."""
        return self.copy_of or self.number


def versions(destination: str | os.PathLike) -> list[int]:
    """Returns the numbers of the versions in a serving folder, oldest first."""
    return sorted(int(name) for name in open_store(os.fspath(destination)).names() if name.isdecimal())


def read_versions(destination: str | os.PathLike) -> list[Version]:
    """Returns the versions in a serving folder with what is known of them, oldest first."""
    store = open_store(os.fspath(destination))
    return [Version(number, _read_record(store, number)) for number in versions(destination)]


def pushed_path(path: str) -> str:
    """Returns where a local version's content was pushed, which is another path where a rollback has made it."""
    folder, _, name = path.rstrip("/").rpartition("/")
    if is_remote(path) or not (folder and name.isdecimal()):
        return path
    return f"{folder}/{Version(int(name), _read_record(open_store(folder), int(name))).origin}"


def labels(known: list[Version]) -> dict[str, int]:
    """Returns label -> version; none without versions."""
    if not known:
        return {}
    pushed = [version.number for version in known if not version.copy_of]
    return {STABLE: known[-1].number, CANARY: pushed[-1] if pushed else known[-1].number}


def check_destination(destination: str, task: str) -> None:
    """Looks whether models of a task may be pushed to a folder, which may be asked before anything is trained for it.

    Args:
        destination: the serving folder, on a local disk or an object store; it need not be there.
        task: a server's clients ask for one kind of answer, so a serving folder is of one task.
    Raises:
        UserError: it cannot be written, holds models of another task, or holds what is no model.
        OSError: it cannot be looked into.
    """
    if not is_remote(destination):
        path = pathlib.Path(destination).absolute()
        nearest = next(folder for folder in (path, *path.parents) if folder.exists())
        try:
            with tempfile.TemporaryDirectory(dir=nearest, prefix=STAGING_PREFIX):
                pass
        except OSError as error:
            raise UserError(
                f"cannot push to {destination}: {error.strerror} ({nearest}); name a folder that may be written with "
                f"--serving-dir"
            ) from error
    known = read_versions(destination)
    if others := {version.record["task"] for version in known if "task" in version.record} - {task}:
        raise UserError(
            f"{destination} serves models of the task {', '.join(sorted(others))}, and clients ask for those; name "
            f"another folder for {task} with --serving-dir"
        )
    names = [name for name in open_store(destination).names() if not name.startswith(".")]
    if names and not known and SERVER_SETTINGS not in names:
        raise UserError(
            f"{destination} is no serving folder, for it holds {sorted(names)[0]}; name an empty or a new one with "
            f"--serving-dir"
        )


def publish(destination: str, source: str, record: dict[str, Any], keep: int) -> int:
    """Adds a SavedModel as a new version, unless it is the newest already, and removes versions beyond the last `keep`.

    Args:
        destination: the serving folder, on a local disk or an object store; made if it is missing.
        source: a local folder that holds a SavedModel.
        record: what to remember of it, as JSON values.
        keep: how many versions stay; what a label names stays in any case.
    Returns:
        The version that holds the model.
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
    """Publishes an earlier version again, under a new number.

    Args:
        destination: the serving folder.
        number: which; None for the version pushed before the one that is served.
    Returns:
        The version rolled back to, and the number it got.
    Raises:
        UserError: there is no such version, or it is served already.
    """
    store = open_store(destination)
    _rollback_target(destination, read_versions(destination), number)  # before anything is written
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
        raise UserError(f"there are no versions in {destination}; is it a serving folder?")
    served = known[-1].origin
    if number is None:
        earlier = [version for version in known if not version.copy_of and version.number < served]
        if not earlier:
            again = f", as {known[-1].number}" if known[-1].copy_of else ""
            raise UserError(
                f"{destination} serves version {served}{again}, and none that was pushed before it is left; there are "
                f"{listed}, and `seq2serve rollback {destination} VERSION` takes any of them"
            )
        return earlier[-1]
    chosen = [version for version in known if version.number == number]
    if not chosen:
        raise UserError(f"there is no version {number} in {destination}; there are {listed}")
    if chosen[0].origin == served:
        raise UserError(f"version {number} is what {destination} serves already; there are {listed}")
    return chosen[0]


def _next_number(known: list[Version]) -> int:
    """Returns the time in seconds, as TFX does, or one more than the newest version if that is greater."""
    return max(int(time.time()), known[-1].number + 1 if known else 0)


def _add(store: Store, number: int, source: str, record: dict[str, Any]) -> None:
    content = json.dumps(record, indent=2, ensure_ascii=False).encode() + b"\n"
    store.add(str(number), source, {RECORD_FILE: content})


def _tidy(store: Store, destination: str, keep: int) -> None:
    """Tells the server what there is, then removes what it need not know; killed in between, the next push goes on."""
    known = read_versions(destination)
    named = labels(known)
    write_server_settings(store, named)
    for version in known[: -max(keep, 1)]:
        if version.number not in named.values():
            store.remove(str(version.number))


def _read_record(store: Store, number: int) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        record = json.loads(store.read(f"{number}/{RECORD_FILE}"))
        return record if isinstance(record, dict) else {}
    return {}


def _digest(source: pathlib.Path) -> str:
    """Returns the SHA-256 of a SavedModel: of the names and contents of its files."""
    digest = hashlib.sha256()
    for path in sorted(source.rglob("*")):
        relative = path.relative_to(source).as_posix()
        if relative != RECORD_FILE and path.is_file():
            with open(path, "rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            digest.update(f"{relative}\0{content}\n".encode())
    return digest.hexdigest()
