"""Formats the history of a MetadataStore as text: runs, and the components of one run."""

import time

from seq2serve.components.base.errors import UserError
from seq2serve.pipeline.metadata.store import Execution, MetadataStore, Run
from seq2serve.pipeline.running.history import read_run, read_runs
from seq2serve.pipeline.running.state_folder import OWN_STORE, StateFolder, state_folder


def open_store(pipeline_root: str, metadata_url: str) -> MetadataStore:
    """Opens the metadata store of a pipeline root, or the shared store at a URL.

    Raises:
        UserError: the pipeline root has no store, or the store cannot be opened.
    """
    if metadata_url:
        return MetadataStore(metadata_url)
    state = StateFolder(state_folder(pipeline_root))
    if not state.has_own_store:
        path = state.path / OWN_STORE
        raise UserError(
            f"no runs in {pipeline_root}: file not found: {path}; pass the folder with --pipeline-root, or a shared "
            f"store with --metadata. For a URL, change to the folder in which the runs were started",
            code="metadata-store-missing",
            path=str(path),
        )
    return MetadataStore(state.metadata_url)


def runs_text(store: MetadataStore) -> str:
    """Returns a table of all runs, oldest first; for a shared store, with the location of each."""
    runs = read_runs(store)
    is_shared = any(run.place for run in runs)
    rows = [("RUN", "PIPELINE", "STARTED", "SECONDS", "STATE", "RAN", "REUSED", *["LOCATION"] * is_shared, "MESSAGE")]
    for run in runs:
        states = [execution.state for execution in store.executions_of_run(run.id)]
        counts = (str(states.count("COMPLETE")), str(states.count("CACHED")))
        started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(run.started))
        message = run.message.partition("\n")[0]
        place = [run.place] * is_shared
        rows.append((str(run.id), run.pipeline, started, _seconds(run), run.state, *counts, *place, message))
    return aligned(rows)


def run_text(store: MetadataStore, run_id: int) -> str:
    """Returns a table of the components of one run: state, duration, published artifacts, and why each ran.

    Raises:
        UserError: there is no such run.
    """
    rows = [("COMPONENT", "STATE", "SECONDS", "ARTIFACTS", "REASON")]
    for execution in read_run(store, run_id)[1]:
        outputs = store.outputs(execution.reuses or execution.id, {})
        artifacts = ", ".join(f"{artifact.id} {key}" for key, artifact in outputs.items())
        rows.append((execution.component, execution.state, _seconds(execution), artifacts, execution.reason))
    return aligned(rows)


def _seconds(period: Execution | Run) -> str:
    return "" if period.finished is None else f"{period.finished - period.started:.1f}"


def aligned(rows: list[tuple[str, ...]]) -> str:
    """Aligns columns with spaces, so that `cut` and `grep` work on the text."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
