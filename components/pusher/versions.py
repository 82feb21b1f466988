"""The serving folder: numbered versions, published atomically, and rollbacks.

Model servers load the newest version that they find. A rollback withdraws newer versions: it renames the folder of a
version N to withdrawn-N, which servers ignore. That needs no copy of the model, and works on a full disk.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import shlex
import tempfile
import time
from typing import Any

from seq2serve.components.base.errors import UserError
from seq2serve.components.base.uris import is_remote
from seq2serve.components.pusher.server_files import SERVER_SETTINGS, read_model_config, write_server_settings
from seq2serve.components.pusher.store import (
    GRAPH_FILE,
    STAGING_PREFIX,
    WITHDRAWN_PREFIX,
    Store,
    open_store,
)
from seq2serve.components.storage.files import local_copy, sha256_of

RECORD_FILE = "assets.extra/seq2serve.json"
STABLE = "stable"
MIN_VERSIONS = 2  # a server needs the previous version until it has loaded the newest, also if it restarts meanwhile


@dataclasses.dataclass(frozen=True)
class Version:
    """A version in a serving folder.

    Args:
        number: its number, under which it was pushed.
        record: the JSON record of its publication; empty if another program published it.
        withdrawn: whether a rollback took it back.
    """

    number: int
    record: dict[str, Any]
    withdrawn: bool = False

    @property
    def folder(self) -> str:
        """Returns the name of its folder."""
        return f"{WITHDRAWN_PREFIX if self.withdrawn else ''}{self.number}"


@dataclasses.dataclass(frozen=True)
class Served:
    """What a model server that reads models.config loads from a serving folder.

    Args:
        policy: "latest", "specific" or "all", which selects the versions; see TF Serving's
            file_system_storage_path_source.proto.
        numbers: the versions that are loaded, oldest first.
        labels: label -> version; a version in a request's path or message may be one of these labels.
    """

    policy: str
    numbers: tuple[int, ...]
    labels: dict[str, int]


def versions(destination: str | os.PathLike) -> list[int]:
    """Returns the numbers of the versions in a serving folder, oldest first, without withdrawn ones."""
    return sorted(int(name) for name in open_store(os.fspath(destination)).names() if name.isdecimal())


def read_versions(destination: str | os.PathLike) -> list[Version]:
    """Returns the versions in a serving folder with their records, oldest first, including withdrawn ones."""
    store = open_store(os.fspath(destination))
    names = store.names()
    numbers = {int(name) for name in names if name.isdecimal()}
    # In an object store, a withdrawal that was killed leaves both folders.
    suffixes = {name.removeprefix(WITHDRAWN_PREFIX) for name in names if name.startswith(WITHDRAWN_PREFIX)}
    withdrawn = {int(suffix) for suffix in suffixes if suffix.isdecimal()} - numbers
    known = sorted([(number, False) for number in numbers] + [(number, True) for number in withdrawn])
    return [
        dataclasses.replace(version, record=_read_record(store, version.folder))
        for version in (Version(number, {}, is_withdrawn) for number, is_withdrawn in known)
    ]


def pushed_path(path: str) -> str:
    """Returns the path to which the content of a version was pushed; it differs for a withdrawn version."""
    folder, _, name = path.rstrip("/").rpartition("/")
    number = name.removeprefix(WITHDRAWN_PREFIX)
    return f"{folder}/{number}" if folder and number != name and number.isdecimal() else path


def served(destination: str | os.PathLike) -> Served:
    """Returns what a model server loads from a serving folder, by its models.config.

    Raises:
        UserError: models.config cannot be parsed, or is for other models.
        OSError: the folder cannot be read.
    """
    config, numbers = read_model_config(open_store(os.fspath(destination))), versions(destination)
    policy = config.model_version_policy
    choice = policy.WhichOneof("policy_choice") or "latest"
    if choice == "specific":
        numbers = [number for number in numbers if number in policy.specific.versions]
    elif choice == "latest":
        numbers = numbers[-max(policy.latest.num_versions, 1) :]
    return Served(choice, tuple(numbers), dict(config.version_labels))


def labels(destination: str | os.PathLike) -> dict[str, int]:
    """Returns label -> version: `stable` for the newest version, and the labels of versions in models.config.

    Raises:
        UserError, OSError: see `served`.
    """
    numbers = versions(destination)
    newest = {STABLE: numbers[-1]} if numbers else {}
    return newest | {label: number for label, number in served(destination).labels.items() if number in numbers}


def unserved_reason(destination: str, number: int) -> str:
    """Returns why model servers do not load a version that was pushed or rolled back to; "" if nothing keeps them.

    Raises:
        UserError, OSError: see `served`.
    """
    now, numbers = served(destination), versions(destination)
    if number in numbers and number not in now.numbers and now.policy == "specific":
        return (
            f"model servers do not load version {number}: {open_store(destination).path(SERVER_SETTINGS)} lists other "
            f"versions; list {number} there, or remove model_version_policy to serve the newest version"
        )
    if number in numbers and number not in now.numbers:
        return (
            f"model servers do not load version {number}, because version {now.numbers[-1]} is newer; `seq2serve "
            f"rollback {shlex.quote(destination)} {number}` serves it again"
        )
    if number not in numbers and f"{WITHDRAWN_PREFIX}{number}" in open_store(destination).names():
        return (
            f"version {number} is withdrawn; `seq2serve rollback {shlex.quote(destination)} {number}` serves it again"
        )
    return ""


def damage(destination: str, version: Version) -> str:
    """Returns how the files of a version differ from those that were pushed, and what to do; "" if they do not.

    In an object store, only the presence of the graph is checked, because the files would have to be downloaded.

    Raises:
        OSError: the folder cannot be read.
    """
    store, digest = open_store(destination), version.record.get("sha256")
    graph, reason = f"{version.folder}/{GRAPH_FILE}", ""
    if not store.has(graph):
        reason = f"{store.path(graph)} is missing"
    elif digest and not is_remote(destination) and not _is_intact(store, version.folder, digest):
        reason = f"the files in {store.path(version.folder)} are not those that were pushed"
    if not reason:
        return ""
    return (
        f"version {version.number} is damaged: {reason}; if model servers cannot load it, they keep the version "
        f"that they have; delete the folder {store.path(version.folder)} and push again, or run "
        f"`seq2serve rollback {shlex.quote(destination)}`"
    )


def check_destination(destination: str, task: str) -> None:
    """Checks that models of a task can be pushed to a folder. It is called before training starts.

    Args:
        destination: the serving folder, on a local disk or in an object store; it need not exist.
        task: the name of the models' task. A serving folder holds models of one task, because clients expect answers of
            one kind.
    Raises:
        UserError: the folder is read-only, holds models of another task, is not a serving folder, or has a broken
            models.config.
        OSError: the folder cannot be read.
    """
    if not is_remote(destination):
        _check_writable(destination)
    # The names come first, so that a version which another push adds meanwhile is never seen without its record.
    names = [name for name in open_store(destination).names() if not name.startswith(".")]
    published = read_versions(destination)
    if other_tasks := {version.record["task"] for version in published if "task" in version.record} - {task}:
        raise UserError(
            f"{destination} serves models of the task {', '.join(sorted(other_tasks))}; name another folder for "
            f"{task} with --serving-dir",
            code="serving-dir-task",
            path=destination,
            task=task,
        )
    if names and not published and SERVER_SETTINGS not in names:
        raise UserError(
            f"{destination} is not a serving folder: it contains {sorted(names)[0]}; name an empty or new folder with "
            f"--serving-dir",
            code="serving-dir-foreign",
            path=destination,
        )
    served(destination)  # raises if models.config is broken


def _check_writable(destination: str) -> None:
    """Raises a UserError if a local folder cannot be written or created."""
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


def publish(destination: str, source: str, record: dict[str, Any], keep: int) -> int:
    """Adds a SavedModel as a new version unless one has it already, and keeps only the last `keep` versions.

    A withdrawn version counts, too: otherwise evaluating its model on other data would undo the rollback.

    Args:
        destination: the serving folder, on a local disk or in an object store; created if it is missing.
        source: the local folder of a SavedModel.
        record: JSON values to store with the version.
        keep: number of versions to keep, at least MIN_VERSIONS. Versions that models.config names are always kept.
    Returns:
        The number of the version that contains the model, the newest if there are several; see `is_recorded`.
    Raises:
        UserError: models.config is broken; no new version is visible.
        OSError: the destination cannot be written or is full; no new version is visible.
    """
    store, digest = open_store(destination), _digest(pathlib.Path(source))
    with store.locked():
        served(destination)  # raises before anything is written
        known = read_versions(destination)
        same = [version for version in known if version.record.get("sha256") == digest]
        # A version whose files were damaged since is pushed again.
        if same := [version for version in same if _is_intact(store, version.folder, digest)]:
            number = same[-1].number
        else:
            # The time in seconds, as in TFX, or one more than the newest version if that is greater.
            number = max(int(time.time()), known[-1].number + 1 if known else 0)
            content = json.dumps({**record, "sha256": digest}, indent=2, ensure_ascii=False).encode() + b"\n"
            store.add(str(number), source, {RECORD_FILE: content})
        write_server_settings(store)
        _remove_old(store, destination, keep)
    return number


def is_recorded(destination: str, number: int, record: dict[str, Any]) -> bool:
    """Returns whether a version was published with this record, so not by an earlier publication of the same model.

    A publication that was killed and is repeated has the same record.
    """
    known = {version.number: version.record for version in read_versions(destination)}
    stored = {key: value for key, value in known.get(number, {}).items() if key != "sha256"}
    return stored == json.loads(json.dumps(record))


def rollback(destination: str, number: int | None = None) -> tuple[int, list[int]]:
    """Makes an earlier version the newest: withdraws all newer ones. A withdrawn version can be served again.

    Each step leaves either the old or the new version as the newest. If it is killed, a second call finishes it.

    Args:
        destination: the serving folder.
        number: the version to roll back to; None for the one before the newest.
    Returns:
        The version rolled back to, and the versions that were withdrawn.
    Raises:
        UserError: the version does not exist or is already served, or models.config names a version to withdraw.
        OSError: the folder cannot be written.
    """
    store = open_store(destination)
    _rollback_steps(destination, number)  # raises before anything is written
    with store.locked():
        target, newer = _rollback_steps(destination, number)
        if target.withdrawn:
            store.rename(target.folder, str(target.number))
        for version in newer:  # the newest last: until then, servers keep it
            store.rename(version.folder, f"{WITHDRAWN_PREFIX}{version.number}")
    return target.number, [version.number for version in newer]


def _rollback_steps(destination: str, number: int | None) -> tuple[Version, list[Version]]:
    """Returns the version to roll back to, and the versions to withdraw."""
    known = read_versions(destination)
    target = _rollback_target(destination, known, number)
    newer = [version for version in known if not version.withdrawn and version.number > target.number]
    config = read_model_config(open_store(destination))
    named = {*config.model_version_policy.specific.versions, *config.version_labels.values()}
    if conflicts := [version.number for version in newer if version.number in named]:
        path = open_store(destination).path(SERVER_SETTINGS)
        raise UserError(
            f"cannot withdraw version {conflicts[0]}: {path} names it, and model servers would lose it; name another "
            f"version there first",
            code="version-named",
            path=path,
            version=conflicts[0],
        )
    return target, newer


def _rollback_target(destination: str, known: list[Version], number: int | None) -> Version:
    listed = ", ".join(f"{version.number}{' (withdrawn)' if version.withdrawn else ''}" for version in known) or "none"
    live = [version for version in known if not version.withdrawn]
    if not known:
        raise UserError(
            f"no versions in {destination}; is it a serving folder?", code="versions-missing", path=destination
        )
    if number is None:
        if len(live) < 2:
            raise UserError(
                f"{destination} has no version before the one that it serves; versions: {listed}; choose one with "
                f"`seq2serve rollback {shlex.quote(destination)} VERSION`",
                code="version-missing",
                path=destination,
            )
        return live[-2]
    chosen = [version for version in known if version.number == number]
    if not chosen:
        raise UserError(
            f"no version {number} in {destination}; versions: {listed}",
            code="version-missing",
            path=destination,
            version=number,
        )
    if live and live[-1].number == number:
        raise UserError(
            f"{destination} already serves version {number}; versions: {listed}",
            code="version-served",
            path=destination,
            version=number,
        )
    return chosen[0]


def _remove_old(store: Store, destination: str, keep: int) -> None:
    """Removes old versions; if it is killed, the next push does so. Withdrawn versions count as versions."""
    known, now = read_versions(destination), served(destination)
    needed = {*versions(destination)[-MIN_VERSIONS:], *now.labels.values()}
    if now.policy != "all":
        needed |= set(now.numbers)
    for version in known[: -max(keep, 1)]:
        if version.number not in needed:
            store.remove(version.folder)


def read_record(folder: str) -> dict[str, Any]:
    """Returns the record of the version in a folder, given by path or URL; empty if it is not a pushed version."""
    parent, _, name = folder.rstrip("/").rpartition("/")
    return _read_record(open_store(parent), name) if parent else {}


def _read_record(store: Store, folder: str) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        record = json.loads(store.read(f"{folder}/{RECORD_FILE}"))
        return record if isinstance(record, dict) else {}
    return {}


def _is_intact(store: Store, folder: str, digest: str) -> bool:
    """Returns whether the files of a version are those that were pushed."""
    with local_copy(store.path(folder)) as copy:
        return _digest(pathlib.Path(copy)) == digest


def _digest(source: pathlib.Path) -> str:
    """Returns the SHA-256 of a SavedModel, from the names and contents of its files."""
    digest = hashlib.sha256()
    for path in sorted(source.rglob("*")):
        relative = path.relative_to(source).as_posix()
        if relative != RECORD_FILE and path.is_file():
            digest.update(f"{relative}\0{sha256_of(path)}\n".encode())
    return digest.hexdigest()
