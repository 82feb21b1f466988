"""What happened, as text: runs, one run's components, and the lineage of an artifact.

Comes in: a MetadataStore. Goes out: lines for a terminal or a pipe.
Read next: metadata.py, where it comes from; __main__.py, which prints it.
"""

import time

from components.errors import UserError
from pipeline.metadata import Ancestry, Execution, MetadataStore, Run


def runs_text(store: MetadataStore) -> str:
    """Returns a table of all runs, oldest first; of a store that roots share, with the place of each."""
    runs = store.runs()
    shared = any(run.place for run in runs)
    rows = [("RUN", "PIPELINE", "STARTED", "SECONDS", "STATE", "RAN", "REUSED", *["PLACE"] * shared, "MESSAGE")]
    for run in runs:
        states = [execution.state for execution in store.executions_of_run(run.id)]
        reused = states.count("CACHED")
        counts = (str(len(states) - reused), str(reused))
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
    if run_id not in [run.id for run in store.runs()]:
        raise UserError(f"no run {run_id} here; `seq2serve runs` lists them")
    rows = [("COMPONENT", "STATE", "SECONDS", "ARTIFACTS", "REASON")]
    for execution in store.executions_of_run(run_id):
        outputs = store.outputs(execution.reuses or execution.id, {})
        artifacts = ", ".join(f"{artifact.id} {key}" for key, artifact in outputs.items())
        rows.append((execution.component, execution.state, _seconds(execution), artifacts, execution.reason))
    return _table(rows)


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
