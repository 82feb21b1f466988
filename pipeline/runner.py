"""Pipeline and Runner: resolve inputs -> fingerprint -> reuse or execute -> publish, one component after the other.

Comes in: a Pipeline. Goes out: published artifacts, and a line a component that says whether it ran and why.
Read next: fingerprint.py (what counts as the same), root.py (folders and locks), metadata.py (what is remembered).

Killed at any moment and run again, the result is the same: an execution is COMPLETE only by the transaction that
follows the rename of its outputs; what a dead run left RUNNING is swept, its scratch folder kept to go on from.
"""

import contextlib
import dataclasses
import errno
import shutil
import socket
import sys
import time
from collections.abc import Iterator

from components import interrupt
from components.artifact import Artifact, is_remote
from components.component import Context, Node
from components.errors import ComponentError, Seq2ServeError, UserError
from pipeline.database import whole_url
from pipeline.fingerprint import as_json, changes, execution_parts, fingerprint, resolve_raw_files
from pipeline.metadata import Execution, MetadataStore, Place, State
from pipeline.root import PipelineRoot, identity_of, open_root, root_of


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """Components joined by channels, in the order in which they run.

    Args:
        name: executions are compared with earlier ones of the pipeline of this name.
        pipeline_root: the folder of artifacts and metadata, or a URL for the artifacts.
        nodes: every node, raw files included, each after those that feed it.
    Raises:
        TypeError: two nodes share an id, or a node stands before one that feeds it.
    """

    name: str
    pipeline_root: str
    nodes: tuple[Node, ...]

    def __post_init__(self) -> None:
        earlier: dict[str, Node] = {}
        for node in self.nodes:
            if node.id in earlier:
                raise TypeError(f"pipeline {self.name}: two nodes are called {node.id}")
            for key, channel in node.inputs.items():
                if earlier.get(channel.node.id) is not channel.node:
                    raise TypeError(
                        f"pipeline {self.name}: {channel} feeds {node.id}.inputs[{key!r}], but {channel.node.id} does "
                        f"not stand before {node.id} in nodes"
                    )
            earlier[node.id] = node


@dataclasses.dataclass(frozen=True)
class NodeResult:
    """What became of one node: its published outputs, whether they were reused, why, and how long it took."""

    outputs: dict[str, Artifact]
    reused: bool
    reason: str
    seconds: float


@dataclasses.dataclass(frozen=True)
class RunResult:
    """A run that completed. `nodes`: node id -> NodeResult, in the pipeline's order, raw files left out."""

    run_id: int
    pipeline: Pipeline
    nodes: dict[str, NodeResult]
    seconds: float

    def output(self, component: str, key: str) -> Artifact:
        """Returns a published artifact, such as `output("Pusher", "pushed_model")`."""
        return self.nodes[component].outputs[key]


class Runner:
    """Runs one pipeline, and prints one line a component.

    Args:
        pipeline: what to run.
        beam_options: Beam's, verbatim; they change where components run, not what comes of it.
        verbose: passed on to the components.
        metadata_url: of the store that this root shares with others (see database.py); empty for its own.
    Raises:
        UserError: the pipeline root or the store cannot be written, or the store lacks what is in the root.
    """

    def __init__(
        self, pipeline: Pipeline, beam_options: tuple[str, ...] = (), verbose: bool = False, metadata_url: str = ""
    ) -> None:
        self.pipeline = pipeline
        self._context = Context(tuple(beam_options), verbose=verbose)
        self._root = open_root(pipeline.pipeline_root, self._context.beam_options)
        with self._root.lock("sweep"):
            self._store = _open_store(self._root, metadata_url)
            self._root.claim(self._store)
        self._refuse_unknown_folders()
        self._width = max(len(node.id) for node in pipeline.nodes if node.component)

    def run(self) -> RunResult:
        """Runs what has to run and reuses the rest.

        Returns:
            Every component's outputs.
        Raises:
            Seq2ServeError: a component failed; recorded, and its half-filled folders removed.
            KeyboardInterrupt: recorded; running again goes on.
        """
        start, results = time.monotonic(), {}
        with interrupt.listening(), self._recorded_run() as run_id:
            published: dict[Node, dict[str, Artifact]] = {}
            for node in self.pipeline.nodes:
                if node.component is None:
                    published[node] = {"files": self._store.record_source(resolve_raw_files(node.constant))}
                    continue
                inputs = {key: published[channel.node][channel.key] for key, channel in node.inputs.items()}
                results[node.id] = self._resolve(run_id, node, inputs)
                published[node] = results[node.id].outputs
        return RunResult(run_id, self.pipeline, results, time.monotonic() - start)

    @contextlib.contextmanager
    def _recorded_run(self) -> Iterator[int]:
        """Records a run and how it ends. Holds its lock all the while: a RUNNING run whose lock is free is dead."""
        with self._root.lock("sweep"), contextlib.ExitStack() as alive:
            self._sweep()
            run_id = self._store.begin_run(self.pipeline.name)
            alive.enter_context(self._root.lock(run_lock(run_id)))
            alive = alive.pop_all()
        with alive:
            try:
                yield run_id
                self._store.end_run(run_id, "COMPLETE")
            except BaseException as error:
                # On a full disk this fails too; the next run sweeps.
                with contextlib.suppress(Seq2ServeError):
                    self._store.end_run(run_id, _ended(error), str(error))
                raise
            finally:
                self._root.forget_lock(run_lock(run_id))

    def _refuse_unknown_folders(self) -> None:
        """Protects artifacts that the store lacks: new executions may get their numbers, hence their folders."""
        folders = {
            number: path for node in self.pipeline.nodes for number, path in self._root.published(node.id).items()
        }
        if unknown := folders.keys() - self._store.executions_of_root():
            raise UserError(
                f"{folders[max(unknown)]} is not in {self._store}, which may have been deleted or replaced, or be "
                f"another than it was made with; restore it, move the folders away, or name another --pipeline-root"
            )

    def _resolve(self, run_id: int, node: Node, inputs: dict[str, Artifact]) -> NodeResult:
        """Reuses what an earlier execution of the same fingerprint published, or executes."""
        start = time.monotonic()
        parts = execution_parts(node, inputs)
        digest = fingerprint(parts)
        reused = self._reuse(run_id, node, digest)
        if reused is None:
            with self._root.lock(digest, when_busy=lambda: self._say(node, "waits", "another run is at it")):
                # Whoever held the lock has completed it, or has failed or died.
                with self._root.lock("sweep"):
                    self._sweep()
                reused = self._reuse(run_id, node, digest)
                if reused is None:
                    reason = self._why(node, parts, digest)
                    outputs = self._execute(run_id, node, inputs, parts, reason)
                    return self._done(NodeResult(outputs, False, reason, time.monotonic() - start), node)
        reason, outputs = reused
        return self._done(NodeResult(outputs, True, reason, time.monotonic() - start), node)

    def _reuse(self, run_id: int, node: Node, digest: str) -> tuple[str, dict[str, Artifact]] | None:
        found = self._usable(digest, {key: channel.type for key, channel in node.outputs.items()})
        if found is None:
            return None
        execution, outputs = found
        reason = f"nothing changed since run {execution.run_id}"
        if execution.root != self._store.place.root:
            reason += f" at {execution.place or self._store}"
        self._store.record_reuse(run_id, execution, reason)
        return reason, outputs

    def _usable(self, digest: str, types: dict[str, type[Artifact]]) -> tuple[Execution, dict[str, Artifact]] | None:
        """Returns the newest execution of a fingerprint that is COMPLETE and whose outputs are there."""
        for execution in self._store.executions(digest):
            if execution.state == "COMPLETE":
                outputs = self._store.outputs(execution.id, types)
                if all(self._is_there(execution, artifact) for artifact in outputs.values()):
                    return execution, outputs
        return None

    def _is_there(self, execution: Execution, artifact: Artifact) -> bool:
        """Returns whether a published artifact exists, and is not another machine's root of the same path.

        What is in another root is taken where it is reached as this one is, from disks or from an object store.
        """
        if execution.root == self._store.place.root:
            return artifact.exists()
        root = root_of(artifact.uri)
        if is_remote(root) != self._root.is_remote or identity_of(root) != execution.root:
            return False
        with contextlib.suppress(Seq2ServeError):  # another's bucket may be closed to us
            return artifact.exists()
        return False

    def _why(self, node: Node, parts: dict, digest: str) -> str:
        """Says why a component has to run."""
        everywhere = self._store.executions(digest)
        same = [execution for execution in everywhere if execution.root == self._store.place.root]
        if same and same[0].state == "COMPLETE":
            outputs = self._store.outputs(same[0].id, {key: channel.type for key, channel in node.outputs.items()})
            gone = [artifact.uri for artifact in outputs.values() if not artifact.exists()]
            return f"its output {', '.join(gone)} is gone"
        if same and same[0].state == "FAILED":
            return "an earlier execution failed; trying again"
        if same:  # CANCELED; or still RUNNING, where another machine's run of this root died
            return "an earlier execution was interrupted; going on"
        if complete := [execution for execution in everywhere if execution.state == "COMPLETE"]:
            return f"its output at {complete[0].place or self._store} cannot be reached from here"
        previous = self._store.latest(self.pipeline.name, node.id)
        if previous is None:
            return "first run"
        found = changes(previous.parts, parts)
        return "; ".join(found[:3]) + (f"; and {len(found) - 3} more" if found[3:] else "")

    def _execute(
        self, run_id: int, node: Node, inputs: dict[str, Artifact], parts: dict, reason: str
    ) -> dict[str, Artifact]:
        """Runs a component into a staging folder and publishes what it made.

        Raises:
            Seq2ServeError: it failed; nothing of it is left but its scratch folder.
        """
        self._say(node, "runs", reason)
        digest = fingerprint(parts)
        execution_id = self._store.begin_execution(run_id, node.id, digest, parts, reason)
        try:
            staged = self._root.stage(node.id, execution_id, node.outputs, node.component.runs_beam)
            outputs = {key: channel.type(staged[key]) for key, channel in node.outputs.items()}
            self._call(node, inputs, outputs, self._root.scratch(digest))
            properties = {key: as_json(f"the properties of {key}", outputs[key].properties) for key in outputs}
            uris = self._root.publish(node.id, execution_id, node.outputs)
            made = {
                key: channel.type(uris[key], properties[key], fingerprint({"execution": digest, "output": key}))
                for key, channel in node.outputs.items()
            }
            published = self._store.publish(execution_id, inputs, made)
        except BaseException as error:
            raise self._failure(node, execution_id, error) from error
        self._root.remove_scratch(digest)
        return published

    def _call(self, node: Node, inputs: dict[str, Artifact], outputs: dict[str, Artifact], scratch: str) -> None:
        on_workers = node.component.runs_beam
        if self._root.is_remote and not on_workers:
            self._bring_compared()
        inputs = {key: self._root.within_reach(artifact, on_workers) for key, artifact in inputs.items()}
        context = dataclasses.replace(self._context, scratch=scratch)
        extra = {node.component.context: context} if node.component.context else {}
        try:
            node.component.function(**inputs, **outputs, **node.parameters, **extra)
        finally:
            interrupt.check()  # whatever the component made of it

    def _bring_compared(self) -> None:
        """Copies the earlier artifacts that some components look for beside their inputs, of every machine's runs."""
        kinds = [kind.__name__ for kind in Artifact.__subclasses__() if kind.compared]
        for artifact in self._store.published(kinds):
            with contextlib.suppress(FileNotFoundError):
                self._root.within_reach(artifact, on_workers=False)

    def _failure(self, node: Node, execution_id: int, error: BaseException) -> BaseException:
        """Records a failed execution, removes what it left, and returns the exception to raise."""
        failure = error if isinstance(error, KeyboardInterrupt) else self._explained(node, execution_id, error)
        # Where the disk has gone, these fail as well; the run's end frees its lock, and the next run sweeps.
        with contextlib.suppress(OSError, Seq2ServeError):
            self._root.unstage(execution_id)  # first: on a full disk the store can write no word before
            self._abandon(execution_id, _ended(error), str(failure))
        return failure

    def _abandon(self, execution_id: int, state: State, message: str) -> None:
        """Ends an execution that did not complete: first its folders, then its state, so that a kill loses neither."""
        execution = self._store.execution(execution_id)
        if execution.state == "RUNNING":
            self._root.discard(execution.component, execution_id)
            self._store.end_execution(execution_id, state, message)

    def _explained(self, node: Node, execution_id: int, error: BaseException) -> Seq2ServeError:
        if isinstance(error, Seq2ServeError):
            return type(error)(f"{node.id}: {error}")
        if _disk_is_full(error):
            return ComponentError(
                f"{node.id} failed: no space left on the disk (the pipeline root is {self._root.path}); free some, "
                f"then run again to go on"
            )
        message = f"{node.id} failed: {type(error).__name__}: {error}"
        with contextlib.suppress(OSError):
            message += f"\nStack trace: {self._root.write_log(node.id, execution_id, error)}"
        return ComponentError(message)

    def _sweep(self) -> None:
        """Ends what killed runs left RUNNING and removes their folders; call it holding the lock "sweep"."""
        for run_id in self._store.unfinished_runs():
            with self._root.try_lock(run_lock(run_id)) as dead:
                if not dead:
                    continue
                for execution in self._store.executions_of_run(run_id):
                    self._abandon(execution.id, "CANCELED", "killed")
                self._store.end_run(run_id, "CANCELED", "killed")
                self._root.forget_lock(run_lock(run_id))
        for digest in self._root.scratches():
            with self._root.try_lock(digest) as unused:
                # Killed after publishing: nothing is left to go on from.
                if unused and self._usable(digest, {}):
                    self._root.remove_scratch(digest)

    def _done(self, result: NodeResult, node: Node) -> NodeResult:
        verb = "reused" if result.reused else "ran"
        print(f"{_clear()}{node.id:{self._width}}  {verb:6}  {result.seconds:7.1f} s  {result.reason}", flush=True)
        return result

    def _say(self, node: Node, verb: str, reason: str) -> None:
        """Shows what is going on, on a terminal only, in a line that the component's result then replaces."""
        if sys.stdout.isatty():
            line = f"{node.id:{self._width}}  {verb:6}  {reason}"
            print(_clear() + line[: shutil.get_terminal_size().columns - 1], end="", flush=True)


def _open_store(root: PipelineRoot, metadata_url: str) -> MetadataStore:
    """Opens the root's own store, or the one it shares; two stores would give the root's folders the same numbers."""
    if whole_url(metadata_url or root.metadata_url) == root.metadata_url:
        if root.shared_store:
            raise UserError(
                f"the pipeline root {root} keeps its metadata in {root.shared_store}; name that with --metadata, or "
                f"another --pipeline-root"
            )
        return MetadataStore(root.metadata_url)
    if root.has_own_store:
        raise UserError(
            f"the pipeline root {root} has a metadata store of its own, and cannot go on in one that it shares; "
            f"leave out --metadata, or name another --pipeline-root"
        )
    store = MetadataStore(metadata_url)
    store.place = Place(root.identity(), f"{socket.gethostname()}:{root.path}")  # now that the store could be reached
    return store


def _clear() -> str:
    """Returns what takes back a terminal's current line."""
    return "\r\x1b[2K" if sys.stdout.isatty() else ""


def run_lock(run_id: int) -> str:
    """Returns the name of the lock that a run holds for as long as it lives."""
    return f"run-{run_id}"


def _ended(error: BaseException) -> State:
    return "CANCELED" if isinstance(error, KeyboardInterrupt) else "FAILED"


def _disk_is_full(error: BaseException | None) -> bool:
    """Returns whether a full disk is behind an exception; Beam's workers pass it on as text."""
    while error is not None:
        if getattr(error, "errno", None) == errno.ENOSPC or "No space left on device" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
