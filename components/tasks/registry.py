"""The registry of tasks. Components receive the Task itself, so their fingerprints do not follow the other tasks."""

import functools
import pathlib
import tomllib
from collections.abc import Mapping
from typing import Any

from seq2serve.components.base.errors import UserError, did_you_mean
from seq2serve.components.tasks.classification.task import Classification
from seq2serve.components.tasks.language_model.task import LanguageModel
from seq2serve.components.tasks.task import Task
from seq2serve.components.tasks.translation.task import Translation

TASKS: dict[str, Task] = {task.name: task for task in (Translation(), Classification(), LanguageModel())}
DEFAULT_TASK = Translation.name


@functools.cache
def presets_of(task: str) -> Mapping[str, Any]:
    """Returns preset -> sections of settings that a task needs in it, and under `common` those it needs in all."""
    path = pathlib.Path(__file__).parent / task / "presets.toml"
    return tomllib.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def get_task(name: str) -> Task:
    """Returns the task of that name.

    Raises:
        UserError: no task has that name; the message suggests the closest match.
    """
    if name not in TASKS:
        raise UserError(
            f"unknown task {name!r}{did_you_mean(name, TASKS)}; the tasks are {', '.join(TASKS)}",
            code="name-unknown",
            kind="task",
            name=name,
        )
    return TASKS[name]
