"""The facts about a run in the metadata store: its steps, their outputs and their inputs."""

import contextlib
import copy
import dataclasses
import os
from typing import Any

from seq2serve.components.base.artifact import Artifact
from seq2serve.components.base.uris import is_remote
from seq2serve.components.tasks.registry import TASKS
from seq2serve.components.tasks.task import Task
from seq2serve.pipeline.metadata.store import Ancestry, Execution, MetadataStore, Run
from seq2serve.pipeline.running import history
from seq2serve.pipeline.running.artifact_store import ArtifactStore
from seq2serve.pipeline.running.fingerprint import was_input
from seq2serve.pipeline.running.root import open_root

_LARGE = ("examples", "transformed_examples")  # output keys


@dataclasses.dataclass(frozen=True)
class Step:
    """One component in a run.

    Args:
        execution: the execution of this run; its state is CACHED if it reuses an earlier execution.
        origin: the execution that did the work: `execution`, or the execution that it reuses.
        outputs: output key -> published artifact; empty if nothing was published.
        inputs: the components that made its inputs, and the types of the user's files among its inputs.
        prior: the results of earlier runs that it has read, to compare its own with them.
    """

    execution: Execution
    origin: Execution
    outputs: dict[str, Artifact]
    inputs: tuple[str, ...]
    prior: tuple[Ancestry, ...]

    @property
    def name(self) -> str:
        """Returns the name of the component."""
        return self.execution.component

    @property
    def seconds(self) -> float | None:
        """Returns how long `origin` took; None if it did not finish."""
        return None if self.origin.finished is None else self.origin.finished - self.origin.started

    @property
    def parameters(self) -> dict[str, Any]:
        """Returns the parameters of the component, as JSON values."""
        return self.origin.parts.get("parameters", {})


@dataclasses.dataclass(frozen=True)
class RunFacts:
    """The facts about a run.

    Args:
        run: its record.
        steps: component -> Step, in execution order.
        user_files: type -> artifact of the user's files: "RawFiles", and if used "SchemaFile", "TokenizerFiles" and
            "ModelFiles".
        lineage: all artifacts that the run made or reused, and their ancestors, oldest first.
        root: the pipeline root.
        remote_artifacts: of the pipeline root, if they are in an object store.
    """

    run: Run
    steps: dict[str, Step]
    user_files: dict[str, Artifact]
    lineage: tuple[Ancestry, ...]
    root: str
    remote_artifacts: ArtifactStore | None = None

    @property
    def task(self) -> Task | None:
        """Returns the task of the model; None for a custom pipeline, or a task that no longer exists."""
        return TASKS.get(self.run.pipeline)

    @property
    def raw_files(self) -> list[dict[str, Any]]:
        """Returns path, bytes and sha256 of each data file; empty if no component has processed them."""
        return self.user_files["RawFiles"].properties["files"] if "RawFiles" in self.user_files else []

    def output(self, component: str, key: str) -> Artifact | None:
        """Returns a published artifact; None if there is none or its files are deleted.

        An artifact in an object store is copied to this machine, unless it is large and only its properties are of
        interest.
        """
        artifact = self.steps[component].outputs.get(key) if component in self.steps else None
        if artifact and self.remote_artifacts:
            if key in _LARGE:
                return artifact
            with contextlib.suppress(FileNotFoundError):
                artifact = self.remote_artifacts.local_copy(artifact, on_workers=False)
        return artifact if artifact and os.path.isdir(artifact.uri) else None

    @property
    def recipe(self) -> dict[str, Any]:
        """Returns the settings of model, training and decoding that the run used; empty if it did not reach Trainer."""
        values = self.output("Tuner", "best_hyperparameters")
        recipe = copy.deepcopy(self.parameters("Trainer").get("recipe", {}))
        for name, value in values.properties["settings"].items() if values and recipe else ():
            section, _, key = name.partition(".")
            recipe[section][key] = value
        return recipe

    def parameters(self, component: str) -> dict[str, Any]:
        """Returns the parameters of a component; empty if the run did not reach it."""
        return self.steps[component].parameters if component in self.steps else {}


def read_run(store: MetadataStore, run_id: int, root: str) -> RunFacts:
    """Reads the facts about a run, whether it completed or failed.

    Args:
        store: metadata store of the pipeline root.
        run_id: number of the run.
        root: the pipeline root.
    Raises:
        UserError: there is no such run.
    """
    run, executions = history.read_run(store, run_id)
    steps: dict[str, Step] = {}
    lineage: dict[int, Ancestry] = {}
    for execution in executions:
        origin = store.execution(execution.reuses) if execution.reuses else execution
        # Inputs are matched by fingerprint, because the store has no input events of failed executions.
        inputs = [a.component or a.type for a in lineage.values() if was_input(a.artifact, origin.parts)]
        outputs = store.outputs(origin.id, {})
        for output in outputs.values():
            lineage |= {ancestry.artifact.id: ancestry for ancestry in store.lineage(output.id, "backward")}
        files = [a.type for a in lineage.values() if not a.component and was_input(a.artifact, origin.parts)]
        prior = tuple(store.prior(next(iter(outputs.values())).id)) if outputs else ()
        steps[execution.component] = Step(execution, origin, outputs, tuple(dict.fromkeys([*inputs, *files])), prior)
    # Those of the first component that read some: results that are reused may come from earlier files.
    files_first = [ancestry for ancestry in lineage.values() if not ancestry.component]
    user_files = {ancestry.type: ancestry.artifact for ancestry in reversed(files_first)}
    remote = open_root(root).artifacts if is_remote(root) else None
    return RunFacts(run, steps, user_files, tuple(lineage[number] for number in sorted(lineage)), root, remote)
