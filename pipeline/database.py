"""The database under the MetadataStore: its tables, its transactions, and its failures in plain words.

Comes in: an SQLAlchemy URL, of SQLite or PostgreSQL. Goes out: rows, and transactions that are all or nothing.
Read next: metadata.py, which says what is written and read.
"""

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa

from components.errors import Seq2ServeError, UserError

_DRIVERS = {
    "sqlite": "sqlite",
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}
_PATIENCE = 60.0  # seconds in which a server may restart, or another writer finish
_SCHEMA_LOCK = 0x5E92  # any number, as long as all versions have the same

# Times are seconds since 1970. Nothing in the tables is one database's own. Stores of earlier versions lack what was
# added later, so it stands in a table of its own, which is made when missing, and never as a column in an old one.
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
# Where a run is whose store is shared; one without a row is in the pipeline root that the store lies in.
PLACES = sa.Table(
    "places",
    METADATA,
    sa.Column("run_id", sa.ForeignKey("runs.id"), primary_key=True),
    sa.Column("root", sa.String(32), nullable=False),
    sa.Column("place", sa.Text, nullable=False),
)
# One row: what this store is known by, where its URL differs from machine to machine.
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
EVENTS = sa.Table(
    "events",
    METADATA,
    sa.Column("execution_id", sa.ForeignKey("executions.id"), primary_key=True),
    sa.Column("role", sa.String(6), primary_key=True),  # input or output
    sa.Column("key", sa.String(255), primary_key=True),
    sa.Column("artifact_id", sa.ForeignKey("artifacts.id"), nullable=False, index=True),
)


class Database:
    """Transactions on one database; its tables are made when missing.

    Args:
        url: of SQLite, such as `sqlite:////runs/metadata.sqlite`, or of PostgreSQL, such as
            `postgresql://user@host/seq2serve`.
    Raises:
        UserError: the URL is no such URL, its driver is not installed, or the database cannot be opened or written.
    """

    def __init__(self, url: str) -> None:
        self._engine = _make_engine(url)
        self.is_server = self._engine.dialect.name == "postgresql"
        self._was_reached = False
        with self.write() as connection:
            if self.is_server:  # or two who make the tables at once get in each other's way
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_SCHEMA_LOCK)))
            METADATA.create_all(connection)
        self._was_reached = True

    def __str__(self) -> str:
        return self._engine.url.render_as_string(hide_password=True)

    @property
    def folder(self) -> Path | None:
        """Returns the folder that SQLite's file is in; None for a server."""
        return None if self.is_server else Path(os.path.abspath(self._engine.url.database)).parent

    @contextlib.contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """Lends a connection whose statements are one transaction.

        Raises:
            IntegrityError: a constraint was violated.
            UserError: the database cannot be used as it is.
            Seq2ServeError: it failed.
        """
        with self._explained(), self._connected() as connection, connection.begin():
            yield connection

    def read(self, query: sa.Select) -> list[sa.Row]:
        """Returns the rows of a query; raises as `write` does."""
        with self._explained(), self._connected() as connection:
            return list(connection.execute(query))

    def _connected(self) -> sa.Connection:
        """Connects; to a server that has been there before, as soon as it is there again."""
        start = time.monotonic()
        while True:
            try:
                return self._engine.connect()
            except sa.exc.OperationalError:
                if not (self.is_server and self._was_reached) or time.monotonic() - start > _PATIENCE:
                    raise
                time.sleep(0.5)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns a database that cannot be used (not writable, not a database, disk full) into one plain message."""
        try:
            yield
        except sa.exc.IntegrityError:
            raise
        except sa.exc.DBAPIError as error:
            reason = " ".join(str(error.orig).split())
            known = any(words in reason for words in ("unable to open", "readonly", "not a database"))
            users_fault = known or (self.is_server and not self._was_reached)
            hint = "; is its disk full?" if "disk" in reason else ""
            raise (UserError if users_fault else Seq2ServeError)(f"metadata store {self}: {reason}{hint}") from error


def sqlite_url(path: Path) -> str:
    """Returns the URL of SQLite's file, in which `?` and `%`, where they are in its name, mean nothing else."""
    return sa.URL.create("sqlite", database=os.path.abspath(path)).render_as_string()


def whole_url(url: str) -> str:
    """Returns a URL with SQLite's path from the root, so that the same file has the same URL from everywhere."""
    if not url.startswith("sqlite:///"):
        return url
    parsed = sa.make_url(url)
    return parsed.set(database=os.path.abspath(parsed.database)).render_as_string()


def _make_engine(url: str) -> sa.Engine:
    try:
        parsed = sa.make_url(url)
        driver = _DRIVERS[parsed.drivername]
        if driver == "sqlite" and (parsed.host or parsed.database in (None, "", ":memory:")):
            raise sa.exc.ArgumentError("no file")  # what is in memory is gone with the connection
    except (sa.exc.ArgumentError, KeyError) as error:
        # Without the URL, which may hold a password.
        raise UserError(
            "the metadata store's URL is neither SQLite's (sqlite:////folder/metadata.sqlite) nor PostgreSQL's "
            "(postgresql://user@host/database)"
        ) from error
    try:
        # No pool: while a component runs, and forks whatever it likes, no connection is open.
        engine = sa.create_engine(parsed.set(drivername=driver), poolclass=sa.pool.NullPool)
    except ImportError as error:
        raise UserError(
            f"no driver for PostgreSQL ({error}); install it with: pip install 'seq2serve[postgres]'"
        ) from error
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _set_up_sqlite)
    return engine


def _set_up_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    """Makes an SQLite connection safe with other processes: readers never wait, writers wait for each other."""
    connection.execute(f"PRAGMA busy_timeout = {1000 * _PATIENCE:.0f}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA foreign_keys = ON")
