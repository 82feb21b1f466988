"""Reads the runs of a MetadataStore; a killed run is reported as CANCELED before the next run records it."""

import dataclasses
from typing import Any

from seq2serve.components.base.errors import UserError
from seq2serve.pipeline.metadata.store import Execution, MetadataStore, Run
from seq2serve.pipeline.running.state_folder import is_held, run_lock

_KILLED: dict[str, Any] = {"state": "CANCELED", "message": "killed"}  # as the next run will record it


def read_runs(store: MetadataStore) -> list[Run]:
    """Returns all runs, oldest first; killed runs have the state CANCELED."""
    killed = _killed_runs(store)
    return [dataclasses.replace(run, **_KILLED) if run.id in killed else run for run in store.runs()]


def read_run(store: MetadataStore, run_id: int) -> tuple[Run, list[Execution]]:
    """Returns a run and its executions; if the run was killed, they have the state CANCELED.

    Raises:
        UserError: there is no such run.
    """
    run = next((run for run in read_runs(store) if run.id == run_id), None)
    if run is None:
        raise UserError(f"no run {run_id} here; `seq2serve runs` lists all runs", code="run-missing", run=run_id)
    executions = store.executions_of_run(run_id)
    if run.state != "RUNNING":
        executions = [
            dataclasses.replace(execution, **_KILLED) if execution.state == "RUNNING" else execution
            for execution in executions
        ]
    return run, executions


def _killed_runs(store: MetadataStore) -> set[int]:
    """Returns the killed runs that no later run has swept: RUNNING, with a lock that no process holds.

    The store is not changed. The runs of other machines are left out, because their locks cannot be tried here.
    """
    unlocked = set()
    for run in store.runs():
        folder = store.folder(run.place) if run.state == "RUNNING" else None
        # A starting run holds "sweep" until it holds its own lock.
        if folder and not is_held(folder, "sweep") and not is_held(folder, run_lock(run.id)):
            unlocked.add(run.id)
    # Read the runs again: a run that ended meanwhile recorded its state before it released its lock.
    return {run.id for run in store.runs() if run.id in unlocked and run.state == "RUNNING"}
