"""MetadataStore: which run executed what, from which artifacts, and what came of it.

Comes in: the runner's reports, each one transaction. Goes out: executions to reuse, artifacts, and their lineage.
Read next: runner.py, the only writer; lineage.py, which prints. States are those of ML Metadata (TFX's store).
"""

import contextlib
import dataclasses
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import sqlalchemy as sa

from components.artifact import Artifact
from components.errors import Seq2ServeError, UserError

State = Literal["RUNNING", "COMPLETE", "CACHED", "FAILED", "CANCELED"]
Direction = Literal["backward", "forward"]

# Times are seconds since 1970. Nothing here is SQLite's own, so that another database needs only another URL.
_METADATA = sa.MetaData()
_RUNS = sa.Table(
    "runs",
    _METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("pipeline", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("message", sa.Text, nullable=False, default=""),
    sa.Column("started", sa.Float, nullable=False),
    sa.Column("finished", sa.Float),
)
_EXECUTIONS = sa.Table(
    "executions",
    _METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("run_id", sa.ForeignKey("runs.id"), nullable=False, index=True),
    sa.Column("component", sa.Text, nullable=False, index=True),
    sa.Column("fingerprint", sa.String(64), nullable=False, index=True),
    sa.Column("parts", sa.JSON, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("message", sa.Text, nullable=False, default=""),
    sa.Column("reuses", sa.ForeignKey("executions.id")),
    sa.Column("started", sa.Float, nullable=False),
    sa.Column("finished", sa.Float),
)
_ARTIFACTS = sa.Table(
    "artifacts",
    _METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("uri", sa.Text, nullable=False),
    sa.Column("fingerprint", sa.String(64), nullable=False),
    sa.Column("properties", sa.JSON, nullable=False),
    sa.UniqueConstraint("uri", "fingerprint"),
)
_EVENTS = sa.Table(
    "events",
    _METADATA,
    sa.Column("execution_id", sa.ForeignKey("executions.id"), primary_key=True),
    sa.Column("role", sa.String(6), primary_key=True),  # input or output
    sa.Column("key", sa.String(255), primary_key=True),
    sa.Column("artifact_id", sa.ForeignKey("artifacts.id"), nullable=False, index=True),
)


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


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a pipeline."""

    id: int
    pipeline: str
    state: State
    message: str
    started: float
    finished: float | None


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
    """The history of a pipeline root. Every method that writes is one transaction.

    Args:
        url: an SQLAlchemy URL, such as `sqlite:////runs/metadata.sqlite`; tables are made when missing.
    Raises:
        UserError: the database cannot be opened or written.
    """

    def __init__(self, url: str) -> None:
        # No pool: while a component runs, and forks whatever it likes, no connection is open.
        self._engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
        if self._engine.dialect.name == "sqlite":
            sa.event.listen(self._engine, "connect", _set_up_sqlite)
        with self._write() as connection:
            _METADATA.create_all(connection)

    def begin_run(self, pipeline: str) -> int:
        """Records that a run of a pipeline begins. Returns its id."""
        row = {"pipeline": pipeline, "state": "RUNNING", "started": time.time()}
        return self._insert(_RUNS, row)

    def end_run(self, run_id: int, state: State, message: str = "") -> None:
        """Records how a run ended, unless that has been recorded already."""
        self._end(_RUNS, run_id, state, message)

    def begin_execution(self, run_id: int, component: str, fingerprint: str, parts: dict, reason: str) -> int:
        """Records that a component is about to run. Returns the execution's id, which names its folders."""
        row = {"run_id": run_id, "component": component, "fingerprint": fingerprint, "parts": parts, "reason": reason}
        return self._insert(_EXECUTIONS, {**row, "state": "RUNNING", "started": time.time()})

    def end_execution(self, execution_id: int, state: State, message: str) -> None:
        """Records how an execution ended that published nothing, unless that has been recorded already."""
        self._end(_EXECUTIONS, execution_id, state, message)

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
        with self._write() as connection:
            if not _finish(connection, _EXECUTIONS, execution_id, "COMPLETE", ""):
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
            connection.execute(sa.insert(_EVENTS), rows)
        return published

    def record_reuse(self, run_id: int, execution: Execution, reason: str) -> None:
        """Records that a run took over the outputs of an earlier execution."""
        now = time.time()
        row = {"run_id": run_id, "component": execution.component, "fingerprint": execution.fingerprint, "parts": {}}
        end = {"state": "CACHED", "reason": reason, "reuses": execution.id, "started": now, "finished": now}
        self._insert(_EXECUTIONS, {**row, **end})

    def record_source(self, artifact: Artifact) -> Artifact:
        """Records an artifact that no component made, once for every content. Returns it with its id."""
        known = sa.select(_ARTIFACTS.c.id).where(
            _ARTIFACTS.c.uri == artifact.uri, _ARTIFACTS.c.fingerprint == artifact.fingerprint
        )
        found = self._read(known)
        if not found:
            # Another run may be recording the same files: the unique constraint decides who was first.
            with contextlib.suppress(sa.exc.IntegrityError), self._write() as connection:
                _insert_artifact(connection, artifact)
            found = self._read(known)
        return dataclasses.replace(artifact, id=found[0].id)

    def executions(self, fingerprint: str) -> list[Execution]:
        """Returns the executions of a fingerprint that did not merely reuse another, newest first."""
        query = sa.select(_EXECUTIONS).where(_EXECUTIONS.c.fingerprint == fingerprint, _EXECUTIONS.c.state != "CACHED")
        return self._executions(query.order_by(_EXECUTIONS.c.id.desc()))

    def execution(self, execution_id: int) -> Execution:
        """Returns one execution."""
        return self._executions(sa.select(_EXECUTIONS).where(_EXECUTIONS.c.id == execution_id))[0]

    def last_execution(self) -> int:
        """Returns the newest execution's id; 0 if there is none."""
        return self._read(sa.select(sa.func.max(_EXECUTIONS.c.id).label("id")))[0].id or 0

    def unfinished_runs(self) -> list[int]:
        """Returns the runs that are RUNNING, or of which an execution is; alive or dead, the store cannot know."""
        runs = sa.select(_RUNS.c.id).where(_RUNS.c.state == "RUNNING")
        executions = sa.select(_EXECUTIONS.c.run_id).where(_EXECUTIONS.c.state == "RUNNING")
        return [row.id for row in self._read(runs.union(executions))]

    def executions_of_run(self, run_id: int) -> list[Execution]:
        """Returns what a run did, in order."""
        return self._executions(sa.select(_EXECUTIONS).where(_EXECUTIONS.c.run_id == run_id).order_by(_EXECUTIONS.c.id))

    def latest(self, pipeline: str, component: str) -> Execution | None:
        """Returns a pipeline's newest COMPLETE execution of a component, to tell what has changed since."""
        query = (
            sa.select(_EXECUTIONS)
            .join(_RUNS)
            .where(_RUNS.c.pipeline == pipeline, _EXECUTIONS.c.component == component)
            .where(_EXECUTIONS.c.state == "COMPLETE")
            .order_by(_EXECUTIONS.c.id.desc())
            .limit(1)
        )
        return next(iter(self._executions(query)), None)

    def outputs(self, execution_id: int, types: Mapping[str, type[Artifact]]) -> dict[str, Artifact]:
        """Returns what a COMPLETE execution published: output key -> artifact of the type given for the key."""
        query = (
            sa.select(_EVENTS.c.key, _ARTIFACTS)
            .join(_ARTIFACTS)
            .where(_EVENTS.c.execution_id == execution_id, _EVENTS.c.role == "output")
        )
        return {row.key: _artifact(row, types.get(row.key, Artifact)) for row in self._read(query)}

    def runs(self) -> list[Run]:
        """Returns all runs, oldest first."""
        return [Run(**row._mapping) for row in self._read(sa.select(_RUNS).order_by(_RUNS.c.id))]

    def find_artifact(self, name: str) -> Artifact:
        """Finds an artifact by what a person has of it.

        Args:
            name: its id; or a path: its folder or something inside, a raw file, a folder that was pushed to.
        Returns:
            The newest artifact that fits.
        Raises:
            UserError: none fits.
        """
        query = sa.select(_ARTIFACTS).order_by(_ARTIFACTS.c.id.desc())
        if name.isdecimal():
            found = self._read(query.where(_ARTIFACTS.c.id == int(name)))
        else:
            path = Path(os.path.abspath(name))
            folders = {name, *map(str, (path, *path.parents))}
            found = [row for row in self._read(query) if folders & _places(row)]
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
        source, target = _EVENTS.alias("source"), _EVENTS.alias("target")
        near, far = (target, source) if direction == "backward" else (source, target)
        walk = sa.select(sa.literal(artifact_id).label("id")).cte("walk", recursive=True)
        walk = walk.union(
            sa.select(far.c.artifact_id)
            .join(near, near.c.execution_id == far.c.execution_id)
            .join(walk, walk.c.id == near.c.artifact_id)
            .where(source.c.role == "input", target.c.role == "output")
        )
        made, of = _EVENTS.alias("made"), _EVENTS.alias("of")
        query = (
            sa.select(_ARTIFACTS, _EXECUTIONS.c.component, _EXECUTIONS.c.run_id, of.c.artifact_id.label("source"))
            .join(walk, walk.c.id == _ARTIFACTS.c.id)
            .outerjoin(made, sa.and_(made.c.artifact_id == _ARTIFACTS.c.id, made.c.role == "output"))
            .outerjoin(_EXECUTIONS, _EXECUTIONS.c.id == made.c.execution_id)
            .outerjoin(of, sa.and_(of.c.execution_id == _EXECUTIONS.c.id, of.c.role == "input"))
            .order_by(_ARTIFACTS.c.id, of.c.artifact_id)
        )
        return _ancestries(self._read(query))

    @contextlib.contextmanager
    def _write(self) -> Iterator[sa.Connection]:
        with _explained(str(self._engine.url)), self._engine.begin() as connection:
            yield connection

    def _read(self, query: sa.Select) -> list[sa.Row]:
        with _explained(str(self._engine.url)), self._engine.connect() as connection:
            return list(connection.execute(query))

    def _insert(self, table: sa.Table, row: dict) -> int:
        with self._write() as connection:
            return connection.execute(sa.insert(table), row).inserted_primary_key[0]

    def _end(self, table: sa.Table, row_id: int, state: State, message: str) -> None:
        with self._write() as connection:
            _finish(connection, table, row_id, state, message)

    def _executions(self, query: sa.Select) -> list[Execution]:
        return [Execution(**row._mapping) for row in self._read(query)]


def _finish(connection: sa.Connection, table: sa.Table, row_id: int, state: State, message: str) -> bool:
    """Ends what is RUNNING. Returns whether it was."""
    ended = {"state": state, "message": message, "finished": time.time()}
    running = sa.and_(table.c.id == row_id, table.c.state == "RUNNING")
    return connection.execute(sa.update(table).where(running), ended).rowcount == 1


def _insert_artifact(connection: sa.Connection, artifact: Artifact) -> int:
    row = dataclasses.asdict(artifact)
    del row["id"]
    return connection.execute(sa.insert(_ARTIFACTS), {**row, "type": type(artifact).__name__}).inserted_primary_key[0]


def _artifact(row: sa.Row, artifact_type: type[Artifact]) -> Artifact:
    return artifact_type(row.uri, row.properties, row.fingerprint, row.id)


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


def _set_up_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    """Makes an SQLite connection safe with other processes: readers never wait, writers wait for each other."""
    connection.execute("PRAGMA busy_timeout = 60000")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA foreign_keys = ON")


@contextlib.contextmanager
def _explained(url: str) -> Iterator[None]:
    """Turns a database that cannot be used (not writable, not a database, disk full) into one plain message."""
    try:
        yield
    except sa.exc.IntegrityError:
        raise
    except sa.exc.DatabaseError as error:
        users_fault = any(words in str(error.orig) for words in ("unable to open", "readonly", "not a database"))
        hint = "; is its disk full?" if "disk" in str(error.orig) else ""
        raise (UserError if users_fault else Seq2ServeError)(f"metadata store {url}: {error.orig}{hint}") from error
