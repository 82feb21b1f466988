"""Pusher: a model with both blessings becomes a new version in the folder that the model server watches.

Comes in: Model, ModelBlessing, InfraBlessing. Goes out: a numeric folder in `destination`, and PushedModel, its record.
Read next: serving_folder.py for versions, labels and rollbacks; infra_validator.py for who gives a blessing.
"""

import json
import os
import pathlib
from typing import Any

import portalocker

from components.artifact import InfraBlessing, Model, ModelBlessing, PushedModel
from components.component import Input, Output, component
from components.errors import NotBlessedError, UserError
from components.serving_folder import publish, versions
from components.serving_store import whole_name

__all__ = ["Pusher", "versions"]


@component
def Pusher(
    model: Input[Model],
    model_blessing: Input[ModelBlessing],
    infra_blessing: Input[InfraBlessing],
    pushed_model: Output[PushedModel],
    destination: str,
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
        keep_versions: how many versions stay.
    Raises:
        NotBlessedError: a blessing is missing; nothing was touched.
        UserError: the destination cannot be written or is full; no new version is visible.
    """
    _check_blessed(("Evaluator", model_blessing, "BLESSED"), ("InfraValidator", infra_blessing, "INFRA_BLESSED"))
    folder = whole_name(destination)
    known = _record(model, model_blessing.path("BLESSED"), infra_blessing.path("INFRA_BLESSED"))
    try:
        version = publish(folder, model.path("Format-Serving"), known, keep_versions)
    except (OSError, portalocker.LockException) as error:
        raise UserError(
            f"cannot push to {destination}: {error}; nothing half-written is visible there. "
            "Is it a folder, may you write to it, is there room? Mend it and run again"
        ) from error
    record = {"destination": f"{folder}/{version}", "version": version}
    pathlib.Path(pushed_model.path("pushed.json")).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    pushed_model.properties.update(pushed_destination=record["destination"], pushed_version=version)


def _check_blessed(*blessings: tuple[str, ModelBlessing | InfraBlessing, str]) -> None:
    missing = [
        f"the {judge} did not bless it: {blessing.properties.get('reason', 'it gave no reason')}"
        for judge, blessing, name in blessings
        if not os.path.isfile(blessing.path(name))
    ]
    if missing:
        raise NotBlessedError("the model was not pushed; " + "; ".join(missing))


def _record(model: Model, *blessings: str) -> dict[str, Any]:
    """Returns what rides along with a version: where the model comes from, how good it is and how it ran."""
    evaluation, infrastructure = (json.loads(pathlib.Path(path).read_text(encoding="utf-8")) for path in blessings)
    infrastructure.pop("checks", None)
    return {
        "model_fingerprint": model.fingerprint,
        "model_id": model.id,
        "model": model.properties,
        "evaluation": evaluation,
        "infrastructure": infrastructure,
    }
