"""The runner: resolve inputs -> fingerprint -> reuse or execute into staging -> publish by rename, for each component.

Killed at any moment and run again, the result is the same. An execution is COMPLETE only through the transaction that
follows the rename of its outputs. The next run sweeps what a killed run left RUNNING, but keeps its scratch folder, so
that long work resumes.
"""

import collections
import contextlib
import dataclasses
import errno
import functools
import shutil
import socket
import time
from collections.abc import Iterator, Mapping

from seq2serve.components.base import interrupt
from seq2serve.components.base.artifact import Artifact, RawFiles
from seq2serve.components.base.component import Component, Context, Earlier, EarlierExecution, Node
from seq2serve.components.base.errors import ComponentError, Seq2ServeError, UserError
from seq2serve.components.base.progress import note
from seq2serve.components.base.uris import is_remote
from seq2serve.components.storage.files import local_copy
from seq2serve.pipeline.metadata.database import absolute_url
from seq2serve.pipeline.metadata.store import Execution, MetadataStore, Place, State
from seq2serve.pipeline.running.artifact_store import identity_of, root_of
from seq2serve.pipeline.running.fingerprint import (
    as_json,
    changes,
    content_fingerprint,
    execution_parts,
    fingerprint,
)
from seq2serve.pipeline.running.integrity import find_damage, is_present, record_files
from seq2serve.pipeline.running.listeners import ConsoleListener, RunListener
from seq2serve.pipeline.running.machines.chief import led_machines
from seq2serve.pipeline.running.pipeline import NodeResult, Pipeline, RunResult
from seq2serve.pipeline.running.raw_files import resolve_raw_files
from seq2serve.pipeline.running.root import PipelineRoot, open_root
from seq2serve.pipeline.running.state_folder import run_lock


class Runner:
    """Runs one pipeline; `store` is the metadata store of its runs.

    Args:
        pipeline: what to run.
        beam_options: Beam's own, verbatim; they change where components run, not their results.
        verbose: passed on to the components.
        metadata_url: URL of a metadata store that several pipeline roots share (see metadata/database.py); empty for
            the root's own.
        listener: receives the events of the run; by default, each component is a line on standard output.
    Raises:
        UserError: the pipeline root or the store cannot be written, or the root has artifacts that the store lacks.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        beam_options: tuple[str, ...] = (),
        verbose: bool = False,
        metadata_url: str = "",
        listener: RunListener | None = None,
    ) -> None:
        self.pipeline = pipeline
        self._context = Context(tuple(beam_options), verbose=verbose)
        self._listener = listener or ConsoleListener()
        root = open_root(pipeline.pipeline_root, self._context.beam_options)
        self._state, self._artifacts = root
        with self._state.lock("sweep"):
            self.store = _open_store(root, metadata_url)
            self._artifacts.claim(self.store)
        self._refuse_unknown_folders()

    def run(self) -> RunResult:
        """Runs the components whose inputs, parameters or code changed, and reuses the results of the others.

        Returns:
            Every component's outputs.
        Raises:
            Seq2ServeError: a component failed; this is recorded, and its partial outputs are removed.
            KeyboardInterrupt: this is recorded; the same call resumes the run.
        """
        start, results = time.monotonic(), dict[str, NodeResult]()
        machines = led_machines(self.pipeline.nodes, self._state.path)
        with interrupt.listening(), machines as self._machines, self._recorded_run() as run_id:
            self._write_config(run_id, results)
            self._listener.begin(run_id, [node.id for node in self.pipeline.nodes if node.component])
            published: dict[Node, dict[str, Artifact]] = {}
            for node in self.pipeline.nodes:
                if isinstance(node.constant, RawFiles):
                    published[node] = {"files": self.store.record_source(resolve_raw_files(node.constant))}
                    continue
                inputs = {key: published[channel.node][channel.key] for key, channel in node.inputs.items()}
                results[node.id] = self._resolve(run_id, node, inputs)
                self._listener.end(node.id, results[node.id])
                self._write_config(run_id, results)
                published[node] = results[node.id].outputs
        return RunResult(run_id, self.pipeline, results, time.monotonic() - start)

    @contextlib.contextmanager
    def _recorded_run(self) -> Iterator[int]:
        """Records a run and how it ends. Holds the run's lock: a RUNNING run whose lock is free was killed."""
        with self._state.lock("sweep"), contextlib.ExitStack() as alive:
            self._sweep()
            run_id = self.store.begin_run(self.pipeline.name)
            alive.enter_context(self._state.lock(run_lock(run_id)))
            alive = alive.pop_all()
        with alive:
            try:
                yield run_id
                self.store.end_run(run_id, "COMPLETE")
            except BaseException as error:
                # This fails too if the disk is full; the next run sweeps.
                with contextlib.suppress(Seq2ServeError):
                    self.store.end_run(run_id, _final_state(error), str(error))
                raise
            finally:
                self._state.forget_lock(run_lock(run_id))

    def _write_config(self, run_id: int, results: Mapping[str, NodeResult]) -> None:
        """Writes the effective config, with the settings that components have chosen."""
        outputs = [artifact for result in results.values() for artifact in result.outputs.values()]
        chosen = [artifact.properties.get("settings", {}) for artifact in outputs]
        if self.pipeline.config:
            self._state.write_text(f"configs/{run_id}.toml", self.pipeline.config(dict(collections.ChainMap(*chosen))))

    def _refuse_unknown_folders(self) -> None:
        """Protects artifacts that the store lacks: new executions could get their numbers and so their folders."""
        folders = {
            number: path for node in self.pipeline.nodes for number, path in self._artifacts.published(node.id).items()
        }
        if unknown := folders.keys() - self.store.executions_of_root():
            folder = folders[max(unknown)]
            raise UserError(
                f"{folder} is not in {self.store}, which may have been deleted or replaced, or may not be the store "
                f"that the pipeline root was created with; restore it, move the folders away, or name another "
                f"--pipeline-root",
                code="artifact-not-in-store",
                path=str(folder),
            )

    def _resolve(self, run_id: int, node: Node, inputs: dict[str, Artifact]) -> NodeResult:
        """Reuses what an earlier execution of the same fingerprint published, or executes."""
        start = time.monotonic()
        parts = execution_parts(node, inputs)
        digest = fingerprint(parts)
        reused = self._reuse(run_id, node, digest)
        if reused is None:
            busy = "another run is executing it"
            with self._state.lock(digest, when_busy=lambda: self._listener.update(node.id, "waiting", busy)):
                # The run that held the lock has completed the execution, or it has failed or was killed.
                with self._state.lock("sweep"):
                    self._sweep()
                reused = self._reuse(run_id, node, digest)
                if reused is None:
                    reason = self._reason(node, parts, digest)
                    outputs = self._execute(run_id, node, inputs, parts, reason)
                    return NodeResult(outputs, False, reason, time.monotonic() - start)
        reason, outputs = reused
        return NodeResult(outputs, True, reason, time.monotonic() - start)

    def _reuse(self, run_id: int, node: Node, digest: str) -> tuple[str, dict[str, Artifact]] | None:
        usable = self._usable(digest, _component(node).outputs)
        if usable is None:
            return None
        execution, outputs = usable
        reason = f"nothing changed since run {execution.run_id}"
        if execution.root != self.store.place.root:
            reason += f" at {execution.place or self.store}"
        self.store.record_reuse(run_id, execution, reason)
        return reason, outputs

    def _usable(self, digest: str, types: dict[str, type[Artifact]]) -> tuple[Execution, dict[str, Artifact]] | None:
        """Returns the newest execution of a fingerprint that is COMPLETE and whose outputs still exist."""
        for execution in self.store.executions(digest):
            if execution.state == "COMPLETE":
                outputs = self.store.outputs(execution.id, types)
                if all(self._is_reachable(execution, artifact) for artifact in outputs.values()):
                    return execution, outputs
        return None

    def _is_reachable(self, execution: Execution, artifact: Artifact) -> bool:
        """Returns whether a published artifact exists, and is not in another machine's root of the same path.

        Artifacts of another root are reused only if that root is reached like this one: on disk, or on an object store.
        """
        if execution.root == self.store.place.root:
            return self._is_intact(artifact)
        root = root_of(artifact.uri)
        if is_remote(root) != self._artifacts.is_remote or identity_of(root) != execution.root:
            return False
        with contextlib.suppress(Seq2ServeError):  # another root's bucket may not be readable from here
            return self._is_intact(artifact)
        return False

    def _is_intact(self, artifact: Artifact) -> bool:
        return is_present(artifact) and not self._damage(artifact)

    def _damage(self, artifact: Artifact) -> str:
        """Returns what is wrong with the files of a published artifact; empty if nothing is."""
        records = self.store.files(artifact.id)
        damage, current = find_damage(artifact, records)
        if not damage and current != records:
            self.store.update_files(artifact.id, current)
        return damage

    def _local_folder(self, component: str, key: str, execution_id: int) -> str:
        """Returns the local folder of an output that was just published; empty if it is only on an object store."""
        folder = self._state.path / component / key / str(execution_id)
        return str(folder) if folder.is_dir() else ""

    def _readable(self, artifact: Artifact, on_workers: bool) -> Artifact:
        """Returns a published artifact with a URI that a component can read; a damaged local copy is replaced."""
        copy = self._artifacts.local_copy(artifact, on_workers)
        if copy.uri != artifact.uri and (damage := find_damage(copy, self.store.files(artifact.id))[0]):
            note(f"warning: damaged copy of {artifact.uri}, copied again: {damage}")
            shutil.rmtree(copy.uri)
            copy = self._artifacts.local_copy(artifact, on_workers)
        return copy

    def _reason(self, node: Node, parts: dict, digest: str) -> str:
        """Returns why a component has to run."""
        executions = self.store.executions(digest)
        own = [execution for execution in executions if execution.root == self.store.place.root]
        if own and own[0].state == "COMPLETE":
            outputs = self.store.outputs(own[0].id, _component(node).outputs)
            missing = [artifact.uri for artifact in outputs.values() if not is_present(artifact)]
            damages = [damage for artifact in outputs.values() if (damage := self._damage(artifact))]
            return f"its output {', '.join(missing)} was deleted" if missing else f"damaged output: {damages[0]}"
        if own and own[0].state == "FAILED":
            return "retrying after an earlier failure"
        if own:  # CANCELED; or still RUNNING, if another machine's run of this root was killed
            return "resuming an interrupted execution"
        if complete := [execution for execution in executions if execution.state == "COMPLETE"]:
            return f"its output at {complete[0].place or self.store} is not reachable from here"
        previous = self.store.latest(self.pipeline.name, node.id)
        if previous is None:
            return "first run"
        differences = changes(previous.parts, parts)
        more = f"; and {len(differences) - 3} more" if differences[3:] else ""
        return "; ".join(differences[:3]) + more

    def _execute(
        self, run_id: int, node: Node, inputs: dict[str, Artifact], parts: dict, reason: str
    ) -> dict[str, Artifact]:
        """Runs a component into a staging folder and publishes its outputs.

        Raises:
            Seq2ServeError: it failed; only its scratch folder is left.
        """
        self._listener.update(node.id, "running", reason)
        component, digest = _component(node), fingerprint(parts)
        execution_id = self.store.begin_execution(run_id, node.id, digest, parts, reason)
        try:
            staged = self._artifacts.stage(node.id, execution_id, component.outputs, component.runs_beam)
            outputs = {key: kind(staged[key]) for key, kind in component.outputs.items()}
            context = dataclasses.replace(
                self._context,
                scratch=self._state.scratch(digest),
                earlier=tuple(self._earlier(node, parts)),
                machines=self._machines if component.uses_machines else None,
            )
            prior: list[Artifact] = []
            self._call(node, inputs, outputs, context, prior)
            properties = {key: as_json(f"the properties of {key}", outputs[key].properties) for key in outputs}
            fingerprints = {key: _output_fingerprint(digest, key, output) for key, output in outputs.items()}
            uris = self._artifacts.publish(node.id, execution_id, component.outputs)
            artifacts = {
                key: kind(uris[key], properties[key], fingerprints[key]) for key, kind in component.outputs.items()
            }
            files = {
                key: record_files(artifact, self._local_folder(node.id, key, execution_id))
                for key, artifact in artifacts.items()
            }
            published = self.store.publish(execution_id, inputs, artifacts, files, prior)
        except BaseException as error:
            raise self._failure(node, execution_id, error) from error
        self._state.remove_scratch(digest)
        return published

    def _call(
        self,
        node: Node,
        inputs: dict[str, Artifact],
        outputs: dict[str, Artifact],
        context: Context,
        prior: list[Artifact],
    ) -> None:
        """Calls a component; the artifacts of earlier executions that it reads are appended to `prior`."""
        component = _component(node)
        on_workers = component.runs_beam
        histories = {key: tuple(self._history(kind, prior)) for key, kind in component.histories.items()}
        inputs = {key: self._readable(artifact, on_workers) for key, artifact in inputs.items()}
        inputs |= {key: _with_splits(inputs[key], splits) for key, splits in component.splits.items() if key in inputs}
        extra = {component.context: context} if component.context else {}
        try:
            component.function(**inputs, **outputs, **histories, **node.parameters, **extra)
        finally:
            interrupt.check()  # even if the component swallowed the KeyboardInterrupt

    def _earlier(self, node: Node, parts: dict) -> Iterator[EarlierExecution]:
        """Yields the executions that differ from one only in parameters; none for Beam's workers, elsewhere perhaps."""
        component = _component(node)
        if not component.context or component.runs_beam:
            return
        for execution in self.store.completed(node.id):
            if all(execution.parts[key] == parts[key] for key in parts.keys() - {"parameters"}):
                outputs = self.store.outputs(execution.id, _component(node).outputs)
                yield EarlierExecution(execution.parts["parameters"], outputs, self._read_earlier)

    def _read_earlier(self, artifact: Artifact) -> Artifact | None:
        with contextlib.suppress(FileNotFoundError):
            return self._readable(artifact, on_workers=False) if self._is_intact(artifact) else None
        return None

    def _history(self, kind: type[Artifact], prior: list[Artifact]) -> Iterator[Earlier]:
        """Yields the published artifacts of a type, newest first; those that are read are appended to `prior`."""

        def read(artifact: Artifact) -> Artifact | None:
            copy = self._read_earlier(artifact)
            if copy and artifact not in prior:
                prior.append(artifact)
            return copy

        for execution_id, artifact in self.store.published(kind):
            yield Earlier(artifact, execution_id, functools.partial(read, artifact))

    def _failure(self, node: Node, execution_id: int, error: BaseException) -> BaseException:
        """Records a failed execution, removes its partial outputs, and returns the exception to raise."""
        failure = error if isinstance(error, KeyboardInterrupt) else self._explain(node, execution_id, error)
        # If the disk is gone, these fail too; the end of the run frees its lock, and the next run sweeps.
        with contextlib.suppress(OSError, Seq2ServeError):
            self._artifacts.unstage(execution_id)  # first: on a full disk the store cannot be written before
            self._abandon(execution_id, _final_state(error), str(failure))
        return failure

    def _abandon(self, execution_id: int, state: State, message: str) -> None:
        """Ends an incomplete execution: its folders first, then its state, so that a kill in between loses neither."""
        execution = self.store.execution(execution_id)
        if execution.state == "RUNNING":
            self._artifacts.discard(execution.component, execution_id)
            self.store.end_execution(execution_id, state, message)

    def _explain(self, node: Node, execution_id: int, error: BaseException) -> Seq2ServeError:
        """Returns the error that the user is told, naming the component."""
        if isinstance(error, Seq2ServeError):
            return error.in_component(node.id)
        if _is_disk_full(error):
            return ComponentError(
                f"{node.id} failed: no space left on the disk of the pipeline root {self._state.path}; free some space "
                f"and run the same command again to resume",
                code="disk-full",
                component=node.id,
            )
        message = f"{node.id} failed: {type(error).__name__}: {error}"
        with contextlib.suppress(OSError):
            message += f"\nStack trace: {self._state.write_log(node.id, execution_id, error)}"
        return ComponentError(message, code="component-failed", component=node.id)

    def _sweep(self) -> None:
        """Ends the executions that killed runs left RUNNING and removes their folders; call it holding "sweep"."""
        for run_id in self.store.unfinished_runs():
            with self._state.try_lock(run_lock(run_id)) as was_killed:
                if not was_killed:
                    continue
                for execution in self.store.executions_of_run(run_id):
                    self._abandon(execution.id, "CANCELED", "killed")
                self.store.end_run(run_id, "CANCELED", "killed")
                self._state.forget_lock(run_lock(run_id))
        for digest in self._state.scratches():
            with self._state.try_lock(digest) as unused:
                # Killed after publishing: there is nothing left to resume.
                if unused and self._usable(digest, {}):
                    self._state.remove_scratch(digest)


def _component(node: Node) -> Component:
    assert node.component, f"{node.id} is not executed"
    return node.component


def _output_fingerprint(execution: str, key: str, output: Artifact) -> str:
    """Returns the fingerprint of an output that is not yet published; `execution` is that of its execution."""
    if not output.by_content:
        return fingerprint({"execution": execution, "output": key})
    with local_copy(output.uri) as folder:
        return content_fingerprint(folder)


def _with_splits(artifact: Artifact, splits: tuple[str, ...]) -> Artifact:
    """Returns an artifact for a component that reads only some splits; storage/shards.py refuses the others."""
    return dataclasses.replace(artifact, properties=artifact.properties | {"splits": list(splits)})


def _open_store(root: PipelineRoot, metadata_url: str) -> MetadataStore:
    """Opens the root's own store, or the shared one; two stores would give the root's folders the same numbers."""
    name = root.artifacts.name
    if absolute_url(metadata_url or root.state.metadata_url) == root.state.metadata_url:
        if root.artifacts.shared_store:
            raise UserError(
                f"the pipeline root {name} keeps its metadata in {root.artifacts.shared_store}; pass that with "
                f"--metadata, or name another --pipeline-root",
                code="metadata-store-shared",
                root=name,
            )
        return MetadataStore(root.state.metadata_url)
    if root.state.has_own_store:
        raise UserError(
            f"the pipeline root {name} has its own metadata store and cannot switch to a shared one; omit "
            f"--metadata, or name another --pipeline-root",
            code="metadata-store-own",
            root=name,
        )
    store = MetadataStore(metadata_url)
    # Only now that the store was reached: this writes to the root.
    store.place = Place(root.artifacts.identity(), f"{socket.gethostname()}:{root.state.path}")
    return store


def _final_state(error: BaseException) -> State:
    return "CANCELED" if isinstance(error, KeyboardInterrupt) else "FAILED"


def _is_disk_full(error: BaseException | None) -> bool:
    """Returns whether a full disk caused an exception; Beam's workers report it as text."""
    while error is not None:
        if getattr(error, "errno", None) == errno.ENOSPC or "No space left on device" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
