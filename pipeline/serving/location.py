"""Finds and loads the SavedModel in a folder: a SavedModel, a Trainer's model, or a version of a serving folder."""

import contextlib

from seq2serve.components.base.errors import UserError
from seq2serve.components.pusher.store import GRAPH_FILE, open_store
from seq2serve.components.pusher.versions import labels, read_versions, versions
from seq2serve.components.storage.files import local_copy
from seq2serve.models.runtime.runtime import SavedModelRuntime, TensorFlowError


def saved_model(folder: str, version: int | str | None = None) -> contextlib.AbstractContextManager[str]:
    """Returns a context with the local folder that contains saved_model.pb; for a URL, a temporary copy.

    Args, Raises: as for `find_saved_model`.
    """
    return local_copy(find_saved_model(folder, version))


def find_saved_model(folder: str, version: int | str | None = None) -> str:
    """Returns the path or URL of the folder that contains saved_model.pb.

    Args:
        folder: a SavedModel, the folder of a Model artifact, or a serving folder; a path or a URL.
        version: number or label of a version in a serving folder; by default the newest.
    Raises:
        UserError: there is no SavedModel or no such version, or the folder cannot be read.
    """
    try:
        store = open_store(folder)
        if version is not None:
            return store.path(str(_number(folder, version)))
        for name in (".", "Format-Serving", *map(str, reversed(versions(folder)))):
            if store.has(GRAPH_FILE if name == "." else f"{name}/{GRAPH_FILE}"):
                return folder if name == "." else store.path(name)
    except OSError as error:
        raise UserError(
            f"cannot look for a SavedModel in {folder}: {error}", code="folder-unreadable", path=folder
        ) from error
    raise UserError(
        f"no SavedModel in {folder}: it contains neither {GRAPH_FILE} nor a version; pass a serving folder, such as "
        f"serving/my_model",
        code="saved-model-missing",
        path=folder,
    )


def load_runtime(folder: str, name: str) -> SavedModelRuntime:
    """Loads a SavedModel in TensorFlow's C++ runtime.

    Args:
        folder: of the SavedModel, on this machine.
        name: what the error message calls it: the path or URL that was given.
    Raises:
        UserError: the runtime cannot load it.
    """
    try:
        return SavedModelRuntime(folder)
    except (ValueError, TensorFlowError) as error:
        raise UserError(f"{name} cannot be loaded: {error}", code="model-unloadable", path=name) from error


def _number(folder: str, version: int | str) -> int:
    """Returns the number of a version, from its number or its label."""
    known = read_versions(folder)
    numbers = {str(entry.number): entry.number for entry in known if not entry.withdrawn}
    if str(version) not in numbers:
        numbers |= labels(folder)
    if str(version) not in numbers:
        withdrawn = any(entry.withdrawn and str(entry.number) == str(version) for entry in known)
        reason = f"version {version} in {folder} is withdrawn" if withdrawn else f"no version {version!r} in {folder}"
        raise UserError(
            f"{reason}; there are {', '.join(numbers) or 'none'}", code="version-missing", path=folder, version=version
        )
    return numbers[str(version)]
