"""The database of the MetadataStore, SQLite or PostgreSQL: tables, transactions and error messages."""

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa

from seq2serve.components.base.errors import Seq2ServeError, UserError

_DRIVERS = {
    "sqlite": "sqlite",
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}
_TIMEOUT = 60.0  # seconds to wait for a server to restart, or for another writer to finish
_SCHEMA_LOCK = 0x5E92  # an arbitrary number that must be the same in all versions

# Times are seconds since 1970. The tables use no feature of only one database. A later version adds tables, which are
# created if they are missing, and never columns, which the stores of earlier versions would lack.
METADATA = sa.MetaData()
RUNS = sa.Table(
    "runs",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("pipeline", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("message", sa.Text, nullable=False, default=""),
    sa.Column("started", sa.Float, nullable=False),
    sa.Column("finished", sa.Float),
)
# The place of each run in a shared store. A run without a row is in the pipeline root that contains the store.
PLACES = sa.Table(
    "places",
    METADATA,
    sa.Column("run_id", sa.ForeignKey("runs.id"), primary_key=True),
    sa.Column("root", sa.String(32), nullable=False),
    sa.Column("place", sa.Text, nullable=False),
)
# One row: a unique identifier of the store, whose URL may differ between machines.
IDENTITIES = sa.Table(
    "identities",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("identity", sa.String(32), nullable=False),
)
EXECUTIONS = sa.Table(
    "executions",
    METADATA,
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
ARTIFACTS = sa.Table(
    "artifacts",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("uri", sa.Text, nullable=False),
    sa.Column("fingerprint", sa.String(64), nullable=False),
    sa.Column("properties", sa.JSON, nullable=False),
    sa.UniqueConstraint("uri", "fingerprint"),
)
# The files of an artifact, as FileRecords. An artifact of an earlier version has no row.
FILES = sa.Table(
    "files",
    METADATA,
    sa.Column("artifact_id", sa.ForeignKey("artifacts.id"), primary_key=True),
    sa.Column("files", sa.JSON, nullable=False),
)
EVENTS = sa.Table(
    "events",
    METADATA,
    sa.Column("execution_id", sa.ForeignKey("executions.id"), primary_key=True),
    sa.Column("role", sa.String(6), primary_key=True),  # input, output, or prior: read of an earlier execution
    sa.Column("key", sa.String(255), primary_key=True),
    sa.Column("artifact_id", sa.ForeignKey("artifacts.id"), nullable=False, index=True),
)


class Database:
    """Transactions on one database; missing tables are created.

    Args:
        url: for SQLite, such as `sqlite:////runs/metadata.sqlite`, or for PostgreSQL, such as
            `postgresql://user@host/seq2serve`.
    Raises:
        UserError: the URL is invalid, its driver is not installed, or the database cannot be opened or written.
    """

    def __init__(self, url: str) -> None:
        self._engine = _make_engine(url)
        self.is_server = self._engine.dialect.name == "postgresql"
        self._was_reached = False
        with self.write() as connection:
            if self.is_server:  # two processes that create the tables at once would fail
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_SCHEMA_LOCK)))
            METADATA.create_all(connection)
        self._was_reached = True

    def __str__(self) -> str:
        return self._engine.url.render_as_string(hide_password=True)

    @property
    def folder(self) -> Path | None:
        """Returns the folder of SQLite's file; None for a server."""
        return None if self.is_server else Path(os.path.abspath(self._engine.url.database)).parent

    @contextlib.contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """Yields a connection whose statements form one transaction.

        Raises:
            IntegrityError: a constraint was violated.
            UserError: the database cannot be opened or written.
            Seq2ServeError: any other failure of the database.
        """
        with self._explained(), self._connected() as connection, connection.begin():
            yield connection

    def read(self, query: sa.Select) -> list[sa.Row]:
        """Returns the rows of a query; raises as `write` does."""
        with self._explained(), self._connected() as connection:
            return list(connection.execute(query))

    def _connected(self) -> sa.Connection:
        """Connects; retries if a server that was reachable before is not, because it may be restarting."""
        start = time.monotonic()
        while True:
            try:
                return self._engine.connect()
            except sa.exc.OperationalError:
                if not (self.is_server and self._was_reached) or time.monotonic() - start > _TIMEOUT:
                    raise
                time.sleep(0.5)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns a database error (not writable, not a database, disk full) into one message."""
        try:
            yield
        except sa.exc.IntegrityError:
            raise
        except sa.exc.DBAPIError as error:
            reason = " ".join(str(error.orig).split())
            is_unusable = any(words in reason for words in ("unable to open", "readonly", "not a database"))
            is_user_error = is_unusable or (self.is_server and not self._was_reached)
            hint = "; is the disk full?" if "disk" in reason else ""
            raise (UserError if is_user_error else Seq2ServeError)(
                f"metadata store {self}: {reason}{hint}",
                code="metadata-store-unusable" if is_user_error else "metadata-store-failed",
                url=str(self),
            ) from error


def sqlite_url(path: Path) -> str:
    """Returns the URL of an SQLite file; `?` and `%` in its name are escaped."""
    return sa.URL.create("sqlite", database=os.path.abspath(path)).render_as_string()


def absolute_url(url: str) -> str:
    """Returns a URL with an absolute path for SQLite, so that it does not depend on the working directory."""
    if not url.startswith("sqlite:///"):
        return url
    parsed = sa.make_url(url)
    return parsed.set(database=os.path.abspath(parsed.database)).render_as_string()


def _make_engine(url: str) -> sa.Engine:
    try:
        parsed = sa.make_url(url)
        driver = _DRIVERS[parsed.drivername]
        if driver == "sqlite" and (parsed.host or parsed.database in (None, "", ":memory:")):
            raise sa.exc.ArgumentError("no file")  # a database in memory is lost with its connection
    except (sa.exc.ArgumentError, KeyError) as error:
        # The message omits the URL, which may contain a password.
        raise UserError(
            "the URL of the metadata store is invalid: pass one of SQLite (sqlite:////folder/metadata.sqlite) or "
            "PostgreSQL (postgresql://user@host/database)",
            code="metadata-url-invalid",
        ) from error
    try:
        # No pool: a running component may fork, so no connection may be open meanwhile.
        engine = sa.create_engine(parsed.set(drivername=driver), poolclass=sa.pool.NullPool)
    except ImportError as error:
        raise UserError(
            f"no driver for PostgreSQL ({error}); install it with: pip install 'seq2serve[postgres]'",
            code="driver-missing",
        ) from error
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _set_up_sqlite)
    return engine


def _set_up_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    """Makes an SQLite connection safe for several processes: readers never wait, writers wait for each other."""
    connection.execute(f"PRAGMA busy_timeout = {1000 * _TIMEOUT:.0f}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA foreign_keys = ON")
