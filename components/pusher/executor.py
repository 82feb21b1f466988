"""The executor of Pusher."""

import json
import os
import pathlib
import shutil
from typing import Any

import portalocker

from seq2serve.components.base.artifact import InfraBlessing, Model, ModelBlessing, PushedModel
from seq2serve.components.base.errors import NotBlessedError, UserError
from seq2serve.components.base.progress import note
from seq2serve.components.base.uris import absolute_uri
from seq2serve.components.pusher.versions import check_destination, is_recorded, publish


def push(
    model: Model,
    model_blessing: ModelBlessing,
    infra_blessing: InfraBlessing,
    pushed_model: PushedModel,
    destination: str,
    task: str,
    keep_versions: int = 10,
) -> None:
    """Executes Pusher; see component.py for the arguments."""
    _check_blessed(("Evaluator", model_blessing, "BLESSED"), ("InfraValidator", infra_blessing, "INFRA_BLESSED"))
    folder = absolute_uri(destination)
    record = _record(model, task, model_blessing.path("BLESSED"), infra_blessing.path("INFRA_BLESSED"))
    try:
        check_destination(destination, task)
        version = publish(folder, model.path("Format-Serving"), record, keep_versions)
        is_new = is_recorded(folder, version, record)
    except (OSError, portalocker.LockException) as error:
        raise UserError(
            f"cannot push to {destination}: {_reason(error)}; no incomplete version is visible; free disk "
            f"space, or name another folder with --serving-dir, and rerun the command",
            code="push-failed",
            path=destination,
        ) from error
    if not is_new:
        note(f"Pusher: version {version} already has this model, so no version is added to {folder}")
    pushed = {"destination": f"{folder}/{version}", "version": version}
    pathlib.Path(pushed_model.path("pushed.json")).write_text(json.dumps(pushed, indent=2) + "\n", encoding="utf-8")
    pushed_model.properties.update(pushed=is_new, pushed_destination=pushed["destination"], pushed_version=version)


def _reason(error: Exception) -> str:
    """Returns the reason of an error; if a folder could not be copied, the reason for its first file."""
    return error.args[0][0][2] if isinstance(error, shutil.Error) else getattr(error, "strerror", "") or str(error)


def _check_blessed(*blessings: tuple[str, ModelBlessing | InfraBlessing, str]) -> None:
    reasons = {
        component: blessing.properties.get("reason", "no reason recorded")
        for component, blessing, name in blessings
        if not os.path.isfile(blessing.path(name))
    }
    if reasons:
        details = "; ".join(f"not blessed by {component}: {reason}" for component, reason in reasons.items())
        raise NotBlessedError(f"the model was not pushed; {details}", code="not-blessed", components=list(reasons))


def _record(model: Model, task: str, *blessings: str) -> dict[str, Any]:
    """Returns the record of a version: the model's origin, evaluation and latency."""
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
