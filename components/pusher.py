"""Pusher: a model with both blessings becomes a new version in the folder that the model server watches.

Comes in: Model, ModelBlessing, InfraBlessing. Goes out: a numeric folder in `destination`, and PushedModel, its record.
Read next: artifact.py for what a blessing looks like, infra_validator.py for who gives it.
"""

import hashlib
import json
import os
import pathlib
import shutil
import time
from collections.abc import Iterator

import portalocker

from components.artifact import InfraBlessing, Model, ModelBlessing, PushedModel
from components.component import Input, Output, component
from components.errors import NotBlessedError, UserError

RECORD_FILE = os.path.join("assets.extra", "seq2serve.json")
# The server looks at numeric names only, so what is unfinished hides behind these, on the same file system for certain.
_LOCK_NAME = ".pushing.lock"
_STAGING_PREFIX = ".pushing-"


@component
def Pusher(
    model: Input[Model],
    model_blessing: Input[ModelBlessing],
    infra_blessing: Input[InfraBlessing],
    pushed_model: Output[PushedModel],
    destination: str,
) -> None:
    """Pushes the exported model as a new version that appears all at once.

    The version is the time in seconds, as in TFX, or one more than the newest where that is greater: it only grows, and
    no number comes back even when versions are deleted, which the server would take for a model it already knows. A
    model that is the newest version already is not pushed again, so a push killed at its very end leaves one version.
    Source: https://www.tensorflow.org/tfx/guide/pusher

    Args:
        model: its Format-Serving/ is pushed.
        model_blessing, infra_blessing: both must be there.
        pushed_model: pushed.json.
        destination: the model's folder on the server, such as /models/en_de; made if it is missing.
    Raises:
        NotBlessedError: a blessing is missing; nothing was touched.
        UserError: the destination cannot be written or is full; no new version is visible.
    """
    _check_blessed(("Evaluator", model_blessing, "BLESSED"), ("InfraValidator", infra_blessing, "INFRA_BLESSED"))
    if "://" in destination:
        raise UserError(f"cannot push to {destination}: give a local folder, or one that is mounted")
    folder = pathlib.Path(destination).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Held by one push at a time and dropped by the kernel when a push is killed.
        with portalocker.Lock(folder / _LOCK_NAME, flags=portalocker.LockFlags.EXCLUSIVE):
            _remove_leftovers(folder)
            version = _push(pathlib.Path(model.path("Format-Serving")), model.fingerprint, folder)
    except (OSError, portalocker.LockException) as error:
        raise UserError(
            f"cannot push to {destination}: {error}; nothing half-written is visible there. "
            "Is it a folder, may you write to it, is there room? Mend it and run again"
        ) from error
    record = {"destination": str(folder / str(version)), "version": version}
    pathlib.Path(pushed_model.path("pushed.json")).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    pushed_model.properties.update(pushed_destination=record["destination"], pushed_version=version)


def versions(destination: pathlib.Path) -> list[int]:
    """Returns the numbers of the versions in a serving folder, oldest first."""
    return sorted(int(entry.name) for entry in destination.iterdir() if entry.name.isdecimal())


def _check_blessed(*blessings: tuple[str, ModelBlessing | InfraBlessing, str]) -> None:
    missing = [
        f"the {judge} did not bless it: {blessing.properties.get('reason', 'it gave no reason')}"
        for judge, blessing, name in blessings
        if not os.path.isfile(blessing.path(name))
    ]
    if missing:
        raise NotBlessedError("the model was not pushed; " + "; ".join(missing))


def _push(source: pathlib.Path, fingerprint: str, destination: pathlib.Path) -> int:
    """Returns the version that holds the model: the newest if it is the same model, a new one otherwise."""
    newest = max(versions(destination), default=0)
    digest = _digest(source)
    if newest and _recorded_digest(destination / str(newest)) == digest:
        return newest
    version = max(int(time.time()), newest + 1)
    staging = destination / f"{_STAGING_PREFIX}{version}"
    try:
        _copy(source, staging, {"sha256": digest, "model_fingerprint": fingerprint})
        os.rename(staging, destination / str(version))
    except OSError:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    _sync(destination)
    return version


def _copy(source: pathlib.Path, staging: pathlib.Path, record: dict[str, str]) -> None:
    """Copies a SavedModel so that it survives a power cut; saved_model.pb, by which a reader knows it, comes last."""
    staging.mkdir()
    for relative in _entries(source):
        if (source / relative).is_dir():
            (staging / relative).mkdir()
        else:
            shutil.copyfile(source / relative, staging / relative)
    (staging / RECORD_FILE).parent.mkdir(exist_ok=True)
    (staging / RECORD_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    shutil.copyfile(source / "saved_model.pb", staging / "saved_model.pb")
    for path in [*staging.rglob("*"), staging]:
        _sync(path)


def _entries(source: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields the files and folders of a SavedModel but saved_model.pb, a folder before what is in it."""
    for path in sorted(source.rglob("*")):
        relative = path.relative_to(source)
        if relative.as_posix() not in ("saved_model.pb", pathlib.PurePath(RECORD_FILE).as_posix()):
            yield relative


def _digest(source: pathlib.Path) -> str:
    """Returns the SHA-256 of a SavedModel: of the names and contents of its files."""
    digest = hashlib.sha256()
    for relative in [*_entries(source), pathlib.PurePath("saved_model.pb")]:
        if not (source / relative).is_dir():
            with open(source / relative, "rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            digest.update(f"{relative.as_posix()}\0{content}\n".encode())
    return digest.hexdigest()


def _recorded_digest(version: pathlib.Path) -> str:
    """Returns what the Pusher wrote of a version; "" for one that someone else put there."""
    try:
        return json.loads((version / RECORD_FILE).read_text(encoding="utf-8"))["sha256"]
    except (OSError, ValueError, KeyError):
        return ""


def _remove_leftovers(destination: pathlib.Path) -> None:
    for path in destination.glob(f"{_STAGING_PREFIX}*"):
        shutil.rmtree(path)


def _sync(path: pathlib.Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
