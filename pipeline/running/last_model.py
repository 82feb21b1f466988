"""The last model of a pipeline root, for `--warm-start last`."""

from collections.abc import Iterator

from seq2serve.components.base.artifact import Artifact
from seq2serve.components.base.errors import UserError
from seq2serve.components.base.progress import note
from seq2serve.components.base.uris import absolute_uri, is_remote
from seq2serve.pipeline.metadata.store import MetadataStore
from seq2serve.pipeline.running.state_folder import StateFolder, state_folder


def last_model(pipeline_root: str, task: str, metadata_url: str = "") -> str:
    """Returns the folder of the Model that was pushed last or, if none was, that was blessed last; says which it is.

    Args:
        pipeline_root: where it was trained, a path or a URL.
        task: name of its task.
        metadata_url: of a shared store; empty for the pipeline root's own.
    Raises:
        UserError: there is no such model, or it is not in a local folder.
    """
    state = StateFolder(state_folder(pipeline_root))
    store = MetadataStore(metadata_url or state.metadata_url) if metadata_url or state.has_own_store else None
    executions = list(_executions(store, pipeline_root if metadata_url else "", task)) if store else []
    pushed = (outputs["pushed_model"] for component, outputs in executions if component == "Pusher")
    blessings = (outputs["blessing"] for component, outputs in executions if component == "Evaluator")
    blessed = (blessing for blessing in blessings if blessing.properties["blessed"])
    verdict = next(pushed, None) or next(blessed, None)
    if store is None or verdict is None:
        raise UserError(
            f"--warm-start last: no model of {task} was pushed or blessed in the pipeline root {pipeline_root}; run "
            "once without --warm-start, or name a model's folder or another --pipeline-root",
            code="model-missing",
            task=task,
            path=pipeline_root,
        )
    ancestors = {row.artifact.id: row for row in store.lineage(verdict.id, "backward")}
    sources = [ancestors[number] for number in ancestors[verdict.id].sources]
    model = next(row.artifact.uri for row in sources if row.type == "Model")
    if is_remote(model):
        raise UserError(
            f"--warm-start last: the last model is {model}, and training starts only from a local folder; copy it, and "
            "pass the copy with --warm-start",
            code="model-remote",
            path=model,
        )
    version = verdict.properties.get("pushed_destination")
    note(f"warm start from the last {'pushed' if version else 'blessed'} model, {model} ({version or verdict.uri})")
    return model


def _executions(store: MetadataStore, root: str, task: str) -> Iterator[tuple[str, dict[str, Artifact]]]:
    """Yields (component, outputs) of what Pusher and Evaluator published for a task, newest first.

    Args:
        store: of one pipeline root, or of several.
        root: to which the outputs belong; empty for any.
    """
    prefix = f"{absolute_uri(root).rstrip('/')}/" if root else ""
    for run in reversed([run for run in store.runs() if run.pipeline == task]):
        for execution in reversed(store.executions_of_run(run.id)):
            if execution.state != "COMPLETE" or execution.component not in ("Pusher", "Evaluator"):
                continue
            outputs = store.outputs(execution.id, {})
            if all(artifact.uri.startswith(prefix) for artifact in outputs.values()):
                yield execution.component, outputs
