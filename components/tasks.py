"""The tasks there are, by name.

Comes in: a task's name. Goes out: its Task.
Read next: task.py for what a Task says; then the file of each, which is named like it.
"""

import difflib

from components.errors import UserError
from components.task import Task
from components.task_classification import CLASSIFICATION
from components.task_language_model import LANGUAGE_MODEL
from components.task_translation import TRANSLATION

TASKS = {task.name: task for task in (TRANSLATION, CLASSIFICATION, LANGUAGE_MODEL)}


def get_task(name: str) -> Task:
    """Returns the Task of that name.

    Raises:
        UserError: there is none; names the nearest.
    """
    if name not in TASKS:
        near = difflib.get_close_matches(name, TASKS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise UserError(f"There is no task {name!r}{hint} Tasks: {', '.join(TASKS)}.")
    return TASKS[name]
