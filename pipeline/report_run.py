"""What the metadata store knows of a run: its steps, what each made, how they are joined.

Comes in: a MetadataStore and a run's number. Goes out: a RunFacts, whole or as far as the run got.
Read next: report.py, which makes a page of it; report_data.py, report_training.py and report_quality.py, which open the
artifacts.
"""

import contextlib
import dataclasses
import os
from typing import Any

from components.artifact import Artifact, is_remote
from components.task import Task
from components.tasks import TASKS
from pipeline import history
from pipeline.metadata import Ancestry, Execution, MetadataStore, Run
from pipeline.root import PipelineRoot, open_root

_LARGE = ("examples", "transformed_examples")  # keys of outputs


@dataclasses.dataclass(frozen=True)
class Step:
    """What a run did with one component.

    Args:
        execution: of this run; its state is CACHED where an earlier one was reused.
        origin: the execution that did the work, `execution` itself or the one it reuses.
        outputs: output key -> published artifact; empty if it has published nothing.
        inputs: the components, or types of given files, that it takes from.
    """

    execution: Execution
    origin: Execution
    outputs: dict[str, Artifact]
    inputs: tuple[str, ...]

    @property
    def name(self) -> str:
        """Returns the component's name."""
        return self.execution.component

    @property
    def seconds(self) -> float | None:
        """Returns how long the work took, whenever it was done; None while it is not."""
        return None if self.origin.finished is None else self.origin.finished - self.origin.started

    @property
    def parameters(self) -> dict[str, Any]:
        """Returns the component's parameters, as JSON has them."""
        return self.origin.parts.get("parameters", {})


@dataclasses.dataclass(frozen=True)
class RunFacts:
    """A run, for people.

    Args:
        run: its record.
        steps: component -> Step, in the order in which they ran.
        given: files that were given, by type: "RawFiles", perhaps "SchemaFile", "TokenizerFiles", "ModelFiles".
        lineage: everything that the run made or took over, and what that was made from, oldest first.
        root: the pipeline root.
        remote_root: the same, where that is on an object store.
    """

    run: Run
    steps: dict[str, Step]
    given: dict[str, Artifact]
    lineage: tuple[Ancestry, ...]
    root: str
    remote_root: PipelineRoot | None = None

    @property
    def task(self) -> Task | None:
        """Returns what the model is to do; None for a pipeline of one's own, or a task that is no longer there."""
        return TASKS.get(self.run.pipeline)

    def output(self, component: str, key: str) -> Artifact | None:
        """Returns a published artifact of which the files are still there; None where there is none.

        Of one on an object store it is a copy, unless it is large and of little interest but for its properties.
        """
        found = self.steps[component].outputs.get(key) if component in self.steps else None
        if found and self.remote_root:
            if key in _LARGE:
                return found
            with contextlib.suppress(FileNotFoundError):
                found = self.remote_root.within_reach(found, on_workers=False)
        return found if found and os.path.isdir(found.uri) else None

    def parameters(self, component: str) -> dict[str, Any]:
        """Returns a component's parameters; empty if it did not come to it."""
        return self.steps[component].parameters if component in self.steps else {}


def read_run(store: MetadataStore, run_id: int, root: str) -> RunFacts:
    """Collects what a run did, however it ended.

    Args:
        store: of the pipeline root.
        run_id: of the run.
        root: the pipeline root.
    Raises:
        UserError: there is no such run.
    """
    run, executions = history.read_run(store, run_id)
    steps: dict[str, Step] = {}
    lineage: dict[int, Ancestry] = {}
    for execution in executions:
        origin = store.execution(execution.reuses) if execution.reuses else execution
        # By fingerprints: of an execution that failed the store knows no more.
        wanted = set(origin.parts.get("inputs", {}).values())
        inputs = [a.component or a.type for a in lineage.values() if a.artifact.fingerprint in wanted]
        outputs = store.outputs(origin.id, {})
        for output in outputs.values():
            lineage |= {ancestry.artifact.id: ancestry for ancestry in store.lineage(output.id, "backward")}
        given = [a.type for a in lineage.values() if not a.component and a.artifact.fingerprint in wanted]
        steps[execution.component] = Step(execution, origin, outputs, tuple(dict.fromkeys([*inputs, *given])))
    given = {ancestry.type: ancestry.artifact for ancestry in lineage.values() if not ancestry.component}
    remote_root = open_root(root) if is_remote(root) else None
    return RunFacts(run, steps, given, tuple(lineage[number] for number in sorted(lineage)), root, remote_root)
