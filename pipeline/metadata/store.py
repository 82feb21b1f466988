"""MetadataStore: runs, their executions and artifacts, and the lineage of artifacts.

The Runner is the only writer; each of its reports is one transaction. States are those of ML Metadata, TFX's store.
"""

import contextlib
import dataclasses
import os
import socket
import time
import types
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import sqlalchemy as sa

from seq2serve.components.base.artifact import Artifact
from seq2serve.components.base.errors import Seq2ServeError, UserError
from seq2serve.components.base.uris import is_remote
from seq2serve.pipeline.metadata.database import (
    ARTIFACTS,
    EVENTS,
    EXECUTIONS,
    FILES,
    IDENTITIES,
    PLACES,
    RUNS,
    Database,
)

State = Literal["RUNNING", "COMPLETE", "CACHED", "FAILED", "CANCELED"]
Direction = Literal["backward", "forward"]

# A run without a row in `places` is in the pipeline root that contains the store.
_ROOT = sa.func.coalesce(PLACES.c.root, "").label("root")
_PLACE = sa.func.coalesce(PLACES.c.place, "").label("place")


@dataclasses.dataclass(frozen=True)
class Place:
    """The location of the runs that this process adds to a shared store; empty for a root with its own store.

    Args:
        root: unique identifier of the pipeline root, the same on every machine.
        place: the machine and the root's path on it, as `machine:path`. Locks work within one place, so only there can
            killed runs be detected.
    """

    root: str = ""
    place: str = ""


@dataclasses.dataclass(frozen=True)
class Execution:
    """One execution of a component, or (state CACHED) the reuse of an earlier one.

    `parts` are the parts of the fingerprint; `reuses` is the execution whose outputs a CACHED one reuses.
    """

    id: int
    run_id: int
    component: str
    fingerprint: str
    parts: dict
    state: State
    reason: str
    message: str
    reuses: int | None
    started: float
    finished: float | None
    root: str
    place: str


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a pipeline; `place` is that of its Place."""

    id: int
    pipeline: str
    state: State
    message: str
    started: float
    finished: float | None
    place: str


@dataclasses.dataclass(frozen=True)
class FileRecord:
    """A file of a published artifact.

    `path` is relative to the artifact; `modified` is the time of its last change in nanoseconds since 1970, 0 if that
    is unknown; `sha256` is empty if it was not read.
    """

    path: str
    bytes: int
    modified: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Ancestry:
    """An artifact and its origin: `component` made it in `run_id` from the artifacts `sources`.

    Raw files have the component "" and the run 0. `splits` has, for sources of which only some splits were read, number
    of the source -> these splits.
    """

    artifact: Artifact
    type: str
    component: str
    run_id: int
    sources: tuple[int, ...]
    splits: Mapping[int, tuple[str, ...]] = dataclasses.field(default_factory=dict)


class MetadataStore:
    """The metadata of one pipeline root, or of several that share it. Every method that writes is one transaction.

    Args:
        url: of a database, see database.py.
        place: of the runs that are added, and of those that `unfinished_runs` returns; may be set later.
    Raises:
        UserError: the database cannot be opened or written.
    """

    def __init__(self, url: str, place: Place = Place()) -> None:
        self._database = Database(url)
        self.place = place

    def __str__(self) -> str:
        return str(self._database)

    def identity(self) -> str:
        """Returns a unique identifier of the store, which every client sees; created on first use."""
        query = sa.select(IDENTITIES.c.identity)
        if not self._database.read(query):
            # If two processes do this at once, the primary key lets only the first insert succeed.
            with contextlib.suppress(sa.exc.IntegrityError):
                self._insert(IDENTITIES, {"id": 1, "identity": uuid.uuid4().hex})
        return self._database.read(query)[0].identity

    def begin_run(self, pipeline: str) -> int:
        """Records the start of a run. Returns its id."""
        row = {"pipeline": pipeline, "state": "RUNNING", "started": time.time()}
        with self._database.write() as connection:
            run_id = connection.execute(sa.insert(RUNS), row).inserted_primary_key[0]
            if self.place.root:
                connection.execute(sa.insert(PLACES), {"run_id": run_id, **dataclasses.asdict(self.place)})
        return run_id

    def end_run(self, run_id: int, state: State, message: str = "") -> None:
        """Records the end of a run, unless it has been recorded already."""
        self._end(RUNS, run_id, state, message)

    def begin_execution(self, run_id: int, component: str, fingerprint: str, parts: dict, reason: str) -> int:
        """Records the start of an execution. Returns its id, which is also the name of its folders."""
        row = {"run_id": run_id, "component": component, "fingerprint": fingerprint, "parts": parts}
        return self._insert(EXECUTIONS, {**row, "reason": _text(reason), "state": "RUNNING", "started": time.time()})

    def end_execution(self, execution_id: int, state: State, message: str) -> None:
        """Records the end of an execution without outputs, unless it has been recorded already."""
        self._end(EXECUTIONS, execution_id, state, message)

    def publish(
        self,
        execution_id: int,
        inputs: Mapping[str, Artifact],
        outputs: Mapping[str, Artifact],
        files: Mapping[str, Sequence[FileRecord]] = types.MappingProxyType({}),
        prior: Sequence[Artifact] = (),
    ) -> dict[str, Artifact]:
        """Completes an execution: state, artifacts and events in one transaction.

        Args:
            execution_id: a RUNNING execution.
            inputs: input key -> published artifact.
            outputs: output key -> artifact at its final location, without an id.
            files: output key -> the files of the artifact, to find damaged ones later.
            prior: published artifacts of earlier executions that it has read; they are not part of its lineage.
        Returns:
            The outputs with their ids.
        Raises:
            Seq2ServeError: the execution is no longer RUNNING.
        """
        with self._database.write() as connection:
            if not _finish(connection, EXECUTIONS, execution_id, "COMPLETE", ""):
                raise Seq2ServeError(
                    f"execution {execution_id} was marked as abandoned by another run; run again",
                    code="execution-abandoned",
                    execution=execution_id,
                )
            published = {}
            for key, artifact in outputs.items():
                published[key] = dataclasses.replace(artifact, id=_insert_artifact(connection, artifact))
            events = [("input", key, artifact.id) for key, artifact in inputs.items()]
            events += [("output", key, artifact.id) for key, artifact in published.items()]
            events += [("prior", str(artifact.id), artifact.id) for artifact in prior]
            rows = [
                {"execution_id": execution_id, "role": role, "key": key, "artifact_id": artifact_id}
                for role, key, artifact_id in events
            ]
            connection.execute(sa.insert(EVENTS), rows)
            for key, records in files.items():
                connection.execute(sa.insert(FILES), _file_row(published[key].id, records))
        return published

    def record_reuse(self, run_id: int, execution: Execution, reason: str) -> None:
        """Records that a run reuses the outputs of an earlier execution."""
        now = time.time()
        row = {"run_id": run_id, "component": execution.component, "fingerprint": execution.fingerprint, "parts": {}}
        end = {"state": "CACHED", "reason": reason, "reuses": execution.id, "started": now, "finished": now}
        self._insert(EXECUTIONS, {**row, **end})

    def record_source(self, artifact: Artifact) -> Artifact:
        """Records an artifact that no component made, once per URI and content. Returns it with its id."""
        query = sa.select(ARTIFACTS.c.id).where(
            ARTIFACTS.c.uri == artifact.uri, ARTIFACTS.c.fingerprint == artifact.fingerprint
        )
        rows = self._database.read(query)
        if not rows:
            # If two runs record the same files at once, the unique constraint lets only the first insert succeed.
            with contextlib.suppress(sa.exc.IntegrityError), self._database.write() as connection:
                _insert_artifact(connection, artifact)
            rows = self._database.read(query)
        return dataclasses.replace(artifact, id=rows[0].id)

    def executions(self, fingerprint: str) -> list[Execution]:
        """Returns the executions of a fingerprint, newest first, without those that reuse another."""
        query = _executions().where(EXECUTIONS.c.fingerprint == fingerprint, EXECUTIONS.c.state != "CACHED")
        return self._read_executions(query.order_by(EXECUTIONS.c.id.desc()))

    def execution(self, execution_id: int) -> Execution:
        """Returns one execution."""
        return self._read_executions(_executions().where(EXECUTIONS.c.id == execution_id))[0]

    def executions_of_root(self) -> set[int]:
        """Returns the ids of all executions in this root, from all machines."""
        query = sa.select(EXECUTIONS.c.id).outerjoin(PLACES, PLACES.c.run_id == EXECUTIONS.c.run_id)
        return {row.id for row in self._database.read(query.where(self.place.root == _ROOT))}

    def published(self, artifact_type: type[Artifact]) -> list[tuple[int, Artifact]]:
        """Returns the artifacts of a type in this root, from all machines, newest first, with their execution."""
        query = (
            sa.select(ARTIFACTS, EVENTS.c.execution_id)
            .join(EVENTS, sa.and_(EVENTS.c.artifact_id == ARTIFACTS.c.id, EVENTS.c.role == "output"))
            .join(EXECUTIONS, EXECUTIONS.c.id == EVENTS.c.execution_id)
            .outerjoin(PLACES, PLACES.c.run_id == EXECUTIONS.c.run_id)
            .where(ARTIFACTS.c.type == artifact_type.__name__, self.place.root == _ROOT)
            .order_by(ARTIFACTS.c.id.desc())
        )
        return [(row.execution_id, _artifact(row, artifact_type)) for row in self._database.read(query)]

    def prior(self, artifact_id: int) -> list[Ancestry]:
        """Returns the artifacts of earlier executions that the execution which made an artifact has read."""
        made, read = EVENTS.alias("made"), EVENTS.alias("read")
        query = (
            sa.select(read.c.artifact_id)
            .join(made, sa.and_(made.c.execution_id == read.c.execution_id, made.c.role == "output"))
            .where(made.c.artifact_id == artifact_id, read.c.role == "prior")
        )
        numbers = [row.artifact_id for row in self._database.read(query)]
        return [row for number in numbers for row in self.lineage(number, "backward") if row.artifact.id == number]

    def unfinished_runs(self) -> list[int]:
        """Returns the runs of this place that are RUNNING or have a RUNNING execution.

        The store cannot tell live runs from killed ones; try their locks, on the machine of the place.
        """
        executions = sa.select(EXECUTIONS.c.run_id).where(EXECUTIONS.c.state == "RUNNING")
        query = (
            sa.select(RUNS.c.id)
            .outerjoin(PLACES)
            .where(sa.or_(RUNS.c.state == "RUNNING", RUNS.c.id.in_(executions)))
            .where(self.place.root == _ROOT, self.place.place == _PLACE)
            .order_by(RUNS.c.id)
        )
        return [row.id for row in self._database.read(query)]

    def executions_of_run(self, run_id: int) -> list[Execution]:
        """Returns the executions of a run, in order."""
        return self._read_executions(_executions().where(EXECUTIONS.c.run_id == run_id).order_by(EXECUTIONS.c.id))

    def latest(self, pipeline: str, component: str) -> Execution | None:
        """Returns a pipeline's newest COMPLETE execution of a component in this root, to compare fingerprints with."""
        query = (
            _executions()
            .join(RUNS, RUNS.c.id == EXECUTIONS.c.run_id)
            .where(RUNS.c.pipeline == pipeline, EXECUTIONS.c.component == component)
            .where(EXECUTIONS.c.state == "COMPLETE", self.place.root == _ROOT)
            .order_by(EXECUTIONS.c.id.desc())
            .limit(1)
        )
        return next(iter(self._read_executions(query)), None)

    def completed(self, component: str) -> list[Execution]:
        """Returns the COMPLETE executions of a component in this root, newest first."""
        query = _executions().where(EXECUTIONS.c.component == component, EXECUTIONS.c.state == "COMPLETE")
        return self._read_executions(query.where(self.place.root == _ROOT).order_by(EXECUTIONS.c.id.desc()))

    def outputs(self, execution_id: int, types: Mapping[str, type[Artifact]]) -> dict[str, Artifact]:
        """Returns the outputs of a COMPLETE execution: output key -> artifact, of the type in `types` for the key."""
        query = (
            sa.select(EVENTS.c.key, ARTIFACTS)
            .join(ARTIFACTS)
            .where(EVENTS.c.execution_id == execution_id, EVENTS.c.role == "output")
        )
        return {row.key: _artifact(row, types.get(row.key, Artifact)) for row in self._database.read(query)}

    def files(self, artifact_id: int) -> list[FileRecord]:
        """Returns the files of a published artifact; none if they were not recorded."""
        rows = self._database.read(sa.select(FILES.c.files).where(FILES.c.artifact_id == artifact_id))
        return [FileRecord(**file) for row in rows for file in row.files]

    def update_files(self, artifact_id: int, records: Sequence[FileRecord]) -> None:
        """Replaces the recorded files of a published artifact."""
        with self._database.write() as connection:
            row = _file_row(artifact_id, records)
            connection.execute(sa.update(FILES).where(FILES.c.artifact_id == artifact_id), row)

    def runs(self) -> list[Run]:
        """Returns all runs, oldest first."""
        query = sa.select(RUNS, _PLACE).outerjoin(PLACES).order_by(RUNS.c.id)
        return [Run(**row._mapping) for row in self._database.read(query)]

    def folder(self, place: str) -> Path | None:
        """Returns the pipeline root of a place; None if it is on another machine."""
        if not place:
            return self._database.folder
        machine, _, path = place.partition(":")
        return Path(path) if machine == socket.gethostname() else None

    def find_artifact(self, name: str) -> Artifact:
        """Finds an artifact by its id or by a path.

        Args:
            name: the id, or a path: the artifact's folder, a file in it, a raw file, or a folder that was pushed to.
        Returns:
            The newest matching artifact.
        Raises:
            UserError: no artifact matches.
        """
        query = sa.select(ARTIFACTS).order_by(ARTIFACTS.c.id.desc())
        if name.isdecimal():
            # Compare as text: the user may pass more digits than an integer column can hold.
            rows = self._database.read(query.where(sa.cast(ARTIFACTS.c.id, sa.Text) == name))
        else:
            folders = _with_parents(name)
            rows = [row for row in self._database.read(query) if folders & _paths(row)]
        if not rows:
            raise UserError(
                f"no artifact {name!r} here; `seq2serve runs RUN` lists the artifacts of a run",
                code="artifact-unknown",
                name=name,
            )
        return _artifact(rows[0], Artifact)

    def made_at(self, path: str) -> Artifact | None:
        """Returns the newest artifact of a component in a folder or a URL around `path`; None if there is none."""
        query = (
            sa.select(ARTIFACTS)
            .join(EVENTS, sa.and_(EVENTS.c.artifact_id == ARTIFACTS.c.id, EVENTS.c.role == "output"))
            .where(ARTIFACTS.c.uri.in_(_with_parents(path)))
            .order_by(ARTIFACTS.c.id.desc())
        )
        return next((_artifact(row, Artifact) for row in self._database.read(query)), None)

    def lineage(self, artifact_id: int, direction: Direction) -> list[Ancestry]:
        """Follows an artifact through the executions, in one recursive query.

        Args:
            artifact_id: where to start.
            direction: "backward" to the raw files, "forward" to everything made from it.
        Returns:
            The artifacts on the way, including the first, oldest first.
        """
        source, target = EVENTS.alias("source"), EVENTS.alias("target")
        near, far = (target, source) if direction == "backward" else (source, target)
        walk = sa.select(sa.literal(artifact_id).label("id")).cte("walk", recursive=True)
        walk = walk.union(
            sa.select(far.c.artifact_id)
            .join(near, near.c.execution_id == far.c.execution_id)
            .join(walk, walk.c.id == near.c.artifact_id)
            .where(source.c.role == "input", target.c.role == "output")
        )
        made, of = EVENTS.alias("made"), EVENTS.alias("of")
        query = (
            sa.select(
                ARTIFACTS,
                EXECUTIONS.c.component,
                EXECUTIONS.c.run_id,
                EXECUTIONS.c.parts,
                of.c.artifact_id.label("source"),
                of.c.key.label("input"),
            )
            .join(walk, walk.c.id == ARTIFACTS.c.id)
            .outerjoin(made, sa.and_(made.c.artifact_id == ARTIFACTS.c.id, made.c.role == "output"))
            .outerjoin(EXECUTIONS, EXECUTIONS.c.id == made.c.execution_id)
            .outerjoin(of, sa.and_(of.c.execution_id == EXECUTIONS.c.id, of.c.role == "input"))
            .order_by(ARTIFACTS.c.id, of.c.artifact_id)
        )
        return _ancestries(self._database.read(query))

    def _insert(self, table: sa.Table, row: dict) -> int:
        with self._database.write() as connection:
            return connection.execute(sa.insert(table), row).inserted_primary_key[0]

    def _end(self, table: sa.Table, row_id: int, state: State, message: str) -> None:
        with self._database.write() as connection:
            _finish(connection, table, row_id, state, message)

    def _read_executions(self, query: sa.Select) -> list[Execution]:
        return [Execution(**row._mapping) for row in self._database.read(query)]


def _executions() -> sa.Select:
    return sa.select(EXECUTIONS, _ROOT, _PLACE).outerjoin(PLACES, PLACES.c.run_id == EXECUTIONS.c.run_id)


def _text(text: str) -> str:
    """Returns a text with NUL escaped, which PostgreSQL cannot store."""
    return text.replace("\0", "\\0")


def _finish(connection: sa.Connection, table: sa.Table, row_id: int, state: State, message: str) -> bool:
    """Records the end of a run or an execution if it is RUNNING. Returns whether it was."""
    values = {"state": state, "message": _text(message), "finished": time.time()}
    running = sa.and_(table.c.id == row_id, table.c.state == "RUNNING")
    return connection.execute(sa.update(table).where(running), values).rowcount == 1


def _insert_artifact(connection: sa.Connection, artifact: Artifact) -> int:
    row = dataclasses.asdict(artifact)
    del row["id"]
    return connection.execute(sa.insert(ARTIFACTS), {**row, "type": type(artifact).__name__}).inserted_primary_key[0]


def _file_row(artifact_id: int, records: Sequence[FileRecord]) -> dict:
    return {"artifact_id": artifact_id, "files": [dataclasses.asdict(record) for record in records]}


def _artifact(row: sa.Row, artifact_type: type[Artifact]) -> Artifact:
    return artifact_type(row.uri, row.properties, row.fingerprint, row.id)


def _with_parents(name: str) -> set[str]:
    """Returns a path or a URL and all its parent folders."""
    if is_remote(name):
        parts = name.split("/")
        return {"/".join(parts[:end]) for end in range(3, len(parts) + 1)}
    path = Path(os.path.abspath(name))
    return {name, *map(str, (path, *path.parents))}


def _paths(row: sa.Row) -> set[str]:
    """Returns every path by which a user may refer to an artifact."""
    files = {file["path"] for file in row.properties.get("files", [])}  # raw files
    return {row.uri, row.properties.get("pushed_destination", row.uri)} | files


def _ancestries(rows: list[sa.Row]) -> list[Ancestry]:
    """Merges rows, one per artifact and source, into one Ancestry per artifact."""
    ancestries: dict[int, Ancestry] = {}
    for row in rows:
        if row.id not in ancestries:
            ancestries[row.id] = Ancestry(_artifact(row, Artifact), row.type, row.component or "", row.run_id or 0, ())
        if row.source is not None:
            earlier, read = ancestries[row.id], row.parts.get("inputs", {}).get(row.input)
            splits = {row.source: tuple(read)} if isinstance(read, dict) else {}
            sources = (*earlier.sources, row.source)
            ancestries[row.id] = dataclasses.replace(earlier, sources=sources, splits={**earlier.splits, **splits})
    return list(ancestries.values())
