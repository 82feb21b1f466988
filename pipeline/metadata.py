"""MetadataStore: which run executed what, from which artifacts, and what came of it.

Comes in: the runner's reports, each one transaction. Goes out: executions to reuse, artifacts, and their lineage.
Read next: database.py for the tables; runner.py, the only writer; history.py, which prints. States are those of ML
Metadata (TFX's store).
"""

import contextlib
import dataclasses
import os
import socket
import time
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import sqlalchemy as sa

from components.artifact import Artifact, is_remote
from components.errors import Seq2ServeError, UserError
from pipeline.database import ARTIFACTS, EVENTS, EXECUTIONS, IDENTITIES, PLACES, RUNS, Database

State = Literal["RUNNING", "COMPLETE", "CACHED", "FAILED", "CANCELED"]
Direction = Literal["backward", "forward"]

# What is not there stands for the pipeline root in which the store itself lies.
_ROOT = sa.func.coalesce(PLACES.c.root, "").label("root")
_PLACE = sa.func.coalesce(PLACES.c.place, "").label("place")


@dataclasses.dataclass(frozen=True)
class Place:
    """Where the runs of a shared store are that this process adds; left empty for a root with a store of its own.

    Args:
        root: identity of the pipeline root, the same from every machine that reaches it.
        place: the machine and the root's path on it: what its locks hold for, hence where the dead are known as such.
    """

    root: str = ""
    place: str = ""


@dataclasses.dataclass(frozen=True)
class Execution:
    """One row of the history: a component that ran, or (state CACHED) an earlier execution that was reused.

    `parts` is what the fingerprint is made of; `reuses` is the execution whose outputs a CACHED one stands for.
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
    """One run of a pipeline, at a `place`, see Place."""

    id: int
    pipeline: str
    state: State
    message: str
    started: float
    finished: float | None
    place: str


@dataclasses.dataclass(frozen=True)
class Ancestry:
    """An artifact with where it comes from: `component` of `run_id` made it of the artifacts `sources`.

    Raw files have no component: "" and 0.
    """

    artifact: Artifact
    type: str
    component: str
    run_id: int
    sources: tuple[int, ...]


class MetadataStore:
    """The history of a pipeline root, or of many. Every method that writes is one transaction.

    Args:
        url: of a database, see database.py.
        place: of the runs that are added, and of those that `unfinished_runs` tells of; may be set later.
    Raises:
        UserError: the database cannot be opened or written.
    """

    def __init__(self, url: str, place: Place = Place()) -> None:
        self._database = Database(url)
        self.place = place

    def __str__(self) -> str:
        return str(self._database)

    def identity(self) -> str:
        """Returns a name that no other store has, the same for all who use this one."""
        query = sa.select(IDENTITIES.c.identity)
        if not self._database.read(query):
            # Another process may be doing the same: the primary key decides who was first.
            with contextlib.suppress(sa.exc.IntegrityError):
                self._insert(IDENTITIES, {"id": 1, "identity": uuid.uuid4().hex})
        return self._database.read(query)[0].identity

    def begin_run(self, pipeline: str) -> int:
        """Records that a run of a pipeline begins. Returns its id."""
        row = {"pipeline": pipeline, "state": "RUNNING", "started": time.time()}
        with self._database.write() as connection:
            run_id = connection.execute(sa.insert(RUNS), row).inserted_primary_key[0]
            if self.place.root:
                connection.execute(sa.insert(PLACES), {"run_id": run_id, **dataclasses.asdict(self.place)})
        return run_id

    def end_run(self, run_id: int, state: State, message: str = "") -> None:
        """Records how a run ended, unless that has been recorded already."""
        self._end(RUNS, run_id, state, message)

    def begin_execution(self, run_id: int, component: str, fingerprint: str, parts: dict, reason: str) -> int:
        """Records that a component is about to run. Returns the execution's id, which names its folders."""
        row = {"run_id": run_id, "component": component, "fingerprint": fingerprint, "parts": parts}
        return self._insert(EXECUTIONS, {**row, "reason": _text(reason), "state": "RUNNING", "started": time.time()})

    def end_execution(self, execution_id: int, state: State, message: str) -> None:
        """Records how an execution ended that published nothing, unless that has been recorded already."""
        self._end(EXECUTIONS, execution_id, state, message)

    def publish(
        self, execution_id: int, inputs: Mapping[str, Artifact], outputs: Mapping[str, Artifact]
    ) -> dict[str, Artifact]:
        """Completes an execution: state, artifacts and events in one transaction, all or nothing.

        Args:
            execution_id: a RUNNING execution.
            inputs: input key -> published artifact.
            outputs: output key -> artifact where it now lies, without an id.
        Returns:
            outputs with their ids.
        Raises:
            Seq2ServeError: the execution is not RUNNING any more.
        """
        with self._database.write() as connection:
            if not _finish(connection, EXECUTIONS, execution_id, "COMPLETE", ""):
                raise Seq2ServeError(f"execution {execution_id} was declared dead by another run; run again")
            published = {}
            for key, artifact in outputs.items():
                published[key] = dataclasses.replace(artifact, id=_insert_artifact(connection, artifact))
            events = [("input", key, artifact.id) for key, artifact in inputs.items()]
            events += [("output", key, artifact.id) for key, artifact in published.items()]
            rows = [
                {"execution_id": execution_id, "role": role, "key": key, "artifact_id": artifact_id}
                for role, key, artifact_id in events
            ]
            connection.execute(sa.insert(EVENTS), rows)
        return published

    def record_reuse(self, run_id: int, execution: Execution, reason: str) -> None:
        """Records that a run took over the outputs of an earlier execution."""
        now = time.time()
        row = {"run_id": run_id, "component": execution.component, "fingerprint": execution.fingerprint, "parts": {}}
        end = {"state": "CACHED", "reason": reason, "reuses": execution.id, "started": now, "finished": now}
        self._insert(EXECUTIONS, {**row, **end})

    def record_source(self, artifact: Artifact) -> Artifact:
        """Records an artifact that no component made, once for every content. Returns it with its id."""
        known = sa.select(ARTIFACTS.c.id).where(
            ARTIFACTS.c.uri == artifact.uri, ARTIFACTS.c.fingerprint == artifact.fingerprint
        )
        found = self._database.read(known)
        if not found:
            # Another run may be recording the same files: the unique constraint decides who was first.
            with contextlib.suppress(sa.exc.IntegrityError), self._database.write() as connection:
                _insert_artifact(connection, artifact)
            found = self._database.read(known)
        return dataclasses.replace(artifact, id=found[0].id)

    def executions(self, fingerprint: str) -> list[Execution]:
        """Returns the executions of a fingerprint that did not merely reuse another, newest first."""
        query = _executions().where(EXECUTIONS.c.fingerprint == fingerprint, EXECUTIONS.c.state != "CACHED")
        return self._found(query.order_by(EXECUTIONS.c.id.desc()))

    def execution(self, execution_id: int) -> Execution:
        """Returns one execution."""
        return self._found(_executions().where(EXECUTIONS.c.id == execution_id))[0]

    def executions_of_root(self) -> set[int]:
        """Returns the ids of all executions in this root, from whatever machine."""
        query = sa.select(EXECUTIONS.c.id).outerjoin(PLACES, PLACES.c.run_id == EXECUTIONS.c.run_id)
        return {row.id for row in self._database.read(query.where(self.place.root == _ROOT))}

    def published(self, types: Iterable[str]) -> list[Artifact]:
        """Returns what has been published in this root, from whatever machine, of artifacts of some types."""
        query = (
            sa.select(ARTIFACTS)
            .join(EVENTS, sa.and_(EVENTS.c.artifact_id == ARTIFACTS.c.id, EVENTS.c.role == "output"))
            .join(EXECUTIONS, EXECUTIONS.c.id == EVENTS.c.execution_id)
            .outerjoin(PLACES, PLACES.c.run_id == EXECUTIONS.c.run_id)
            .where(ARTIFACTS.c.type.in_(list(types)), self.place.root == _ROOT)
            .order_by(ARTIFACTS.c.id)
        )
        return [_artifact(row, Artifact) for row in self._database.read(query)]

    def unfinished_runs(self) -> list[int]:
        """Returns the runs of this place that are RUNNING, or of which an execution is.

        Whether they are alive or dead the store cannot know, only who tries their locks where they hold.
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
        """Returns what a run did, in order."""
        return self._found(_executions().where(EXECUTIONS.c.run_id == run_id).order_by(EXECUTIONS.c.id))

    def latest(self, pipeline: str, component: str) -> Execution | None:
        """Returns a pipeline's newest COMPLETE execution of a component in this root, to tell what has changed."""
        query = (
            _executions()
            .join(RUNS, RUNS.c.id == EXECUTIONS.c.run_id)
            .where(RUNS.c.pipeline == pipeline, EXECUTIONS.c.component == component)
            .where(EXECUTIONS.c.state == "COMPLETE", self.place.root == _ROOT)
            .order_by(EXECUTIONS.c.id.desc())
            .limit(1)
        )
        return next(iter(self._found(query)), None)

    def outputs(self, execution_id: int, types: Mapping[str, type[Artifact]]) -> dict[str, Artifact]:
        """Returns what a COMPLETE execution published: output key -> artifact of the type given for the key."""
        query = (
            sa.select(EVENTS.c.key, ARTIFACTS)
            .join(ARTIFACTS)
            .where(EVENTS.c.execution_id == execution_id, EVENTS.c.role == "output")
        )
        return {row.key: _artifact(row, types.get(row.key, Artifact)) for row in self._database.read(query)}

    def runs(self) -> list[Run]:
        """Returns all runs, oldest first."""
        query = sa.select(RUNS, _PLACE).outerjoin(PLACES).order_by(RUNS.c.id)
        return [Run(**row._mapping) for row in self._database.read(query)]

    def folder(self, place: str) -> Path | None:
        """Returns the pipeline root of the runs of a place, None where that is on another machine."""
        if not place:
            return self._database.folder
        machine, _, path = place.partition(":")
        return Path(path) if machine == socket.gethostname() else None

    def find_artifact(self, name: str) -> Artifact:
        """Finds an artifact by what a person has of it.

        Args:
            name: its id; or a path: its folder or something inside, a raw file, a folder that was pushed to.
        Returns:
            The newest artifact that fits.
        Raises:
            UserError: none fits.
        """
        query = sa.select(ARTIFACTS).order_by(ARTIFACTS.c.id.desc())
        if name.isdecimal():
            # As a text: a person may give more digits than a database has for a number.
            found = self._database.read(query.where(sa.cast(ARTIFACTS.c.id, sa.Text) == name))
        else:
            folders = _with_parents(name)
            found = [row for row in self._database.read(query) if folders & _places(row)]
        if not found:
            raise UserError(f"no artifact {name!r} here; `seq2serve runs RUN` lists the artifacts of a run")
        return _artifact(found[0], Artifact)

    def lineage(self, artifact_id: int, direction: Direction) -> list[Ancestry]:
        """Follows an artifact through the executions, in one recursive query.

        Args:
            artifact_id: where to start.
            direction: "backward" to the raw files, "forward" to everything made of it.
        Returns:
            The artifacts on the way, the first one included, oldest first.
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
            sa.select(ARTIFACTS, EXECUTIONS.c.component, EXECUTIONS.c.run_id, of.c.artifact_id.label("source"))
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

    def _found(self, query: sa.Select) -> list[Execution]:
        return [Execution(**row._mapping) for row in self._database.read(query)]


def _executions() -> sa.Select:
    return sa.select(EXECUTIONS, _ROOT, _PLACE).outerjoin(PLACES, PLACES.c.run_id == EXECUTIONS.c.run_id)


def _text(text: str) -> str:
    """Returns what every database can keep of a text: PostgreSQL has no NUL."""
    return text.replace("\0", "\\0")


def _finish(connection: sa.Connection, table: sa.Table, row_id: int, state: State, message: str) -> bool:
    """Ends what is RUNNING. Returns whether it was."""
    ended = {"state": state, "message": _text(message), "finished": time.time()}
    running = sa.and_(table.c.id == row_id, table.c.state == "RUNNING")
    return connection.execute(sa.update(table).where(running), ended).rowcount == 1


def _insert_artifact(connection: sa.Connection, artifact: Artifact) -> int:
    row = dataclasses.asdict(artifact)
    del row["id"]
    return connection.execute(sa.insert(ARTIFACTS), {**row, "type": type(artifact).__name__}).inserted_primary_key[0]


def _artifact(row: sa.Row, artifact_type: type[Artifact]) -> Artifact:
    return artifact_type(row.uri, row.properties, row.fingerprint, row.id)


def _with_parents(name: str) -> set[str]:
    """Returns a path or a URL, and every folder that it is in."""
    if is_remote(name):
        parts = name.split("/")
        return {"/".join(parts[:end]) for end in range(3, len(parts) + 1)}
    path = Path(os.path.abspath(name))
    return {name, *map(str, (path, *path.parents))}


def _places(row: sa.Row) -> set[str]:
    """Returns every path under which a person may know an artifact."""
    files = {file["path"] for file in row.properties.get("files", [])}  # of the user's own
    return {row.uri, row.properties.get("pushed_destination", row.uri)} | files


def _ancestries(rows: list[sa.Row]) -> list[Ancestry]:
    found: dict[int, Ancestry] = {}
    for row in rows:
        earlier = found[row.id].sources if row.id in found else ()
        sources = earlier if row.source is None else (*earlier, row.source)
        found[row.id] = Ancestry(_artifact(row, Artifact), row.type, row.component or "", row.run_id or 0, sources)
    return list(found.values())
