"""What happened, as text: runs, one run's components, and the lineage of an artifact.

Comes in: a MetadataStore. Goes out: lines for a terminal or a pipe.
Read next: metadata.py, where it comes from; __main__.py, which prints it.
"""

import dataclasses
import time

from components.errors import UserError
from pipeline.metadata import Ancestry, Execution, MetadataStore, Run
from pipeline.root import is_held
from pipeline.runner import run_lock

_KILLED = {"state": "CANCELED", "message": "killed"}  # what the next run will record


def runs_text(store: MetadataStore) -> str:
    """Returns a table of all runs, oldest first; of a store that roots share, with the place of each."""
    runs = read_runs(store)
    shared = any(run.place for run in runs)
    rows = [("RUN", "PIPELINE", "STARTED", "SECONDS", "STATE", "RAN", "REUSED", *["PLACE"] * shared, "MESSAGE")]
    for run in runs:
        states = [execution.state for execution in store.executions_of_run(run.id)]
        counts = (str(states.count("COMPLETE")), str(states.count("CACHED")))
        started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(run.started))
        message = run.message.partition("\n")[0]
        place = [run.place] * shared
        rows.append((str(run.id), run.pipeline, started, _seconds(run), run.state, *counts, *place, message))
    return _table(rows)


def run_text(store: MetadataStore, run_id: int) -> str:
    """Returns a table of what one run did: every component, why, and the artifacts it has given.

    Raises:
        UserError: there is no such run.
    """
    rows = [("COMPONENT", "STATE", "SECONDS", "ARTIFACTS", "REASON")]
    for execution in read_run(store, run_id)[1]:
        outputs = store.outputs(execution.reuses or execution.id, {})
        artifacts = ", ".join(f"{artifact.id} {key}" for key, artifact in outputs.items())
        rows.append((execution.component, execution.state, _seconds(execution), artifacts, execution.reason))
    return _table(rows)


def read_runs(store: MetadataStore) -> list[Run]:
    """Returns all runs, oldest first; those that were killed as the next run will record them, CANCELED."""
    dead = _dead_runs(store)
    return [dataclasses.replace(run, **_KILLED) if run.id in dead else run for run in store.runs()]


def read_run(store: MetadataStore, run_id: int) -> tuple[Run, list[Execution]]:
    """Returns a run and what it did with each component; of one that was killed as the next run will record it.

    Raises:
        UserError: there is no such run.
    """
    run = next((run for run in read_runs(store) if run.id == run_id), None)
    if run is None:
        raise UserError(f"no run {run_id} here; `seq2serve runs` lists them")
    executions = store.executions_of_run(run_id)
    if run.state != "RUNNING":
        executions = [dataclasses.replace(one, **_KILLED) if one.state == "RUNNING" else one for one in executions]
    return run, executions


def lineage_text(store: MetadataStore, name: str) -> str:
    """Returns where an artifact comes from, back to the raw files, and what was made of it.

    Args:
        store: where to look.
        name: the artifact's id or a path, see `MetadataStore.find_artifact`.
    Raises:
        UserError: there is no such artifact.
    """
    artifact = store.find_artifact(name)
    backward = store.lineage(artifact.id, "backward")
    forward = store.lineage(artifact.id, "forward")
    itself = [row for row in backward if row.artifact.id == artifact.id]
    parts = {
        "Artifact": itself,
        "Made from": [row for row in backward if row not in itself],
        "Made of it": [row for row in forward if row.artifact.id != artifact.id],
    }
    return "\n\n".join(f"{title}\n{_ancestry_table(rows)}" for title, rows in parts.items())


def _dead_runs(store: MetadataStore) -> set[int]:
    """Returns the runs that were killed, and that no later run has swept: RUNNING, and nobody holds their locks.

    The store is not written. Whether a run of another machine lives cannot be known here.
    """
    free = set()
    for run in store.runs():
        folder = store.folder(run.place) if run.state == "RUNNING" else None
        # A run that begins holds "sweep" until it holds its own lock.
        if folder and not is_held(folder, "sweep") and not is_held(folder, run_lock(run.id)):
            free.add(run.id)
    # One that ended meanwhile had recorded so before it let go of its lock.
    return {run.id for run in store.runs() if run.id in free and run.state == "RUNNING"}


def _ancestry_table(ancestries: list[Ancestry]) -> str:
    rows = [("ID", "TYPE", "MADE BY", "OF", "WHERE")]
    for ancestry in ancestries:
        maker = f"{ancestry.component}, run {ancestry.run_id}" if ancestry.component else "given"
        sources = ", ".join(map(str, ancestry.sources))
        rows.append((str(ancestry.artifact.id), ancestry.type, maker, sources, ancestry.artifact.uri))
    return _table(rows) if ancestries else "nothing"


def _seconds(period: Execution | Run) -> str:
    return "" if period.finished is None else f"{period.finished - period.started:.1f}"


def _table(rows: list[tuple[str, ...]]) -> str:
    """Aligns columns with spaces, so that the text stays easy to cut and to grep."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
