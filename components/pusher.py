"""Pusher: a model with both blessings becomes a new version in the folder that the model server watches.

Comes in: Model, ModelBlessing, InfraBlessing. Goes out: a numeric folder in `destination`, and PushedModel, its record.
Read next: serving_folder.py for versions, labels and rollbacks; infra_validator.py for who gives a blessing.
"""

import json
import os
import pathlib
import shutil
from typing import Any

import portalocker

from components.artifact import InfraBlessing, Model, ModelBlessing, PushedModel
from components.component import Input, Output, component
from components.errors import NotBlessedError, UserError
from components.serving_folder import check_destination, publish, versions
from components.serving_store import whole_name

__all__ = ["Pusher", "versions"]


@component
def Pusher(
    model: Input[Model],
    model_blessing: Input[ModelBlessing],
    infra_blessing: Input[InfraBlessing],
    pushed_model: Output[PushedModel],
    destination: str,
    task: str,
    keep_versions: int = 10,
) -> None:
    """Pushes the exported model as a new version that appears all at once.

    The version is the time in seconds, as in TFX, or one more than the newest where that is greater: it only grows. A
    model that is the newest version already is not pushed again, so a push killed at its very end leaves one version.
    Source: https://www.tensorflow.org/tfx/guide/pusher

    Args:
        model: its Format-Serving/ is pushed.
        model_blessing, infra_blessing: both must be there.
        pushed_model: pushed.json.
        destination: the model's folder on the server, such as /models/en_de or gs://bucket/models/en_de; made if it is
            missing. Beside the versions it gets the server's settings, see serving_files.py.
        task: name of the model's; all models in a serving folder are of one.
        keep_versions: how many versions stay.
    Raises:
        NotBlessedError: a blessing is missing; nothing was touched.
        UserError: the destination cannot be written or is full, or serves another task; no new version is visible.
    """
    _check_blessed(("Evaluator", model_blessing, "BLESSED"), ("InfraValidator", infra_blessing, "INFRA_BLESSED"))
    folder = whole_name(destination)
    record = _record(model, task, model_blessing.path("BLESSED"), infra_blessing.path("INFRA_BLESSED"))
    try:
        check_destination(destination, task)
        version = publish(folder, model.path("Format-Serving"), record, keep_versions)
    except (OSError, portalocker.LockException) as error:
        raise UserError(
            f"cannot push to {destination}: {_why(error)}; nothing half-written is visible there; "
            f"make room, or name another folder with --serving-dir, and run again"
        ) from error
    pushed = {"destination": f"{folder}/{version}", "version": version}
    pathlib.Path(pushed_model.path("pushed.json")).write_text(json.dumps(pushed, indent=2) + "\n", encoding="utf-8")
    pushed_model.properties.update(pushed_destination=pushed["destination"], pushed_version=version)


def _why(error: Exception) -> str:
    """Returns what went wrong; of a tree that could not be copied, with its first file."""
    return error.args[0][0][2] if isinstance(error, shutil.Error) else getattr(error, "strerror", "") or str(error)


def _check_blessed(*blessings: tuple[str, ModelBlessing | InfraBlessing, str]) -> None:
    missing = [
        f"the {judge} did not bless it: {blessing.properties.get('reason', 'it gave no reason')}"
        for judge, blessing, name in blessings
        if not os.path.isfile(blessing.path(name))
    ]
    if missing:
        raise NotBlessedError("the model was not pushed; " + "; ".join(missing))


def _record(model: Model, task: str, *blessings: str) -> dict[str, Any]:
    """Returns what rides along with a version: where the model comes from, how good it is and how it ran."""
    evaluation, infrastructure = (json.loads(pathlib.Path(path).read_text(encoding="utf-8")) for path in blessings)
    infrastructure.pop("checks", None)
    return {
        "task": task,
        "model_fingerprint": model.fingerprint,
        "model_id": model.id,
        "model": model.properties,
        "evaluation": evaluation,
        "infrastructure": infrastructure,
    }
