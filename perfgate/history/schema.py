"""Tables, connections, migrations, and what a database's errors mean to a user."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import URL, Dialect, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.types import TypeDecorator

from perfgate.errors import DataError, InfrastructureError, OutputError, PerfgateError, UsageError

# Oldest first; the last one is what this version of perfgate writes.
REVISIONS: Final = ("0001", "0002")
# A name of its own: a PostgreSQL database may hold another program's `alembic_version`.
VERSION_TABLE: Final = "perfgate_schema"
_MIGRATIONS = Path(__file__).parent / "migrations"
_BUSY_S = 60.0
_CONNECT_S = 10
# Any number will do, as long as it is always the same: two processes must not migrate at once.
_MIGRATION_LOCK = 7_385_193_042


class UtcTime(TypeDecorator[datetime]):
    """An instant. SQLite knows no time zone, so it is stored there as UTC and comes back aware."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        zone = None if dialect.name == "sqlite" else timezone.utc
        return None if value is None else value.astimezone(timezone.utc).replace(tzinfo=zone)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=timezone.utc) if value.tzinfo is None else value.astimezone(timezone.utc)


# In SQLite only an INTEGER primary key numbers itself.
_KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
metadata = sa.MetaData()

environments = sa.Table(
    "environments",
    metadata,
    sa.Column("id", _KEY, primary_key=True),
    sa.Column("digest", sa.Text, nullable=False, unique=True),
    sa.Column("key_digest", sa.Text, nullable=False),
    sa.Column("device", sa.Text, nullable=False),
    sa.Column("toolchain", sa.Text, nullable=False),
    sa.Column("key", sa.JSON, nullable=False),
    sa.Column("noted", sa.JSON, nullable=False),
    sa.Index("ix_environments_key_digest", "key_digest"),
)
runs = sa.Table(
    "runs",
    metadata,
    sa.Column("id", _KEY, primary_key=True),
    sa.Column("run_id", sa.Text, nullable=False, unique=True),
    sa.Column("created", UtcTime, nullable=False),
    sa.Column("perfgate", sa.Text, nullable=False),
    sa.Column("commit_sha", sa.Text, nullable=False),
    sa.Column("dirty", sa.Boolean, nullable=False),
    sa.Column("branch", sa.Text, nullable=False),
    sa.Column("environment", _KEY, sa.ForeignKey("environments.id"), nullable=False),
    sa.Column("verdict", sa.Text, nullable=False),
    sa.Column("exit_code", sa.Integer, nullable=False),
    sa.Column("content", sa.Text, nullable=False),
    sa.Column("sampled", sa.Boolean, nullable=False),
    # Last, so that reading the other columns never touches its pages.
    sa.Column("payload", sa.LargeBinary, nullable=False),
    sa.Index("ix_runs_created", "created", "id"),
)
cases = sa.Table(
    "cases",
    metadata,
    sa.Column("id", _KEY, primary_key=True),
    sa.Column("run", _KEY, sa.ForeignKey("runs.id", ondelete="CASCADE"), nullable=False),
    sa.Column("case_id", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("verdict", sa.Text, nullable=False),
    sa.Column("ratio", sa.Double),
    sa.Column("low", sa.Double),
    sa.Column("high", sa.Double),
    sa.Column("case_digest", sa.Text, nullable=False),
    sa.Column("engine_digest", sa.Text, nullable=False, server_default=""),
    sa.UniqueConstraint("run", "case_id", name="uq_cases_run_case_id"),
    sa.Index("ix_cases_case_id", "case_id", "run"),
)
launches = sa.Table(
    "launches",
    metadata,
    sa.Column("case_key", _KEY, sa.ForeignKey("cases.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("idx", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("latency_ns", sa.BigInteger, nullable=False),
    sa.Column("p99_ns", sa.BigInteger, nullable=False),
    sa.Column("samples", sa.BigInteger, nullable=False),
    sa.Column("load_ns", sa.BigInteger, nullable=False),
    sa.Column("first_inference_ns", sa.BigInteger, nullable=False),
    sa.Column("peak_memory_bytes", sa.BigInteger, nullable=False),
    sa.Column("throughput_qps", sa.Double, nullable=False),
    sa.Column("invalid", sa.Text, nullable=False),
    # The launches of one case lie together on disk.
    sqlite_with_rowid=False,
)


def connect(url_or_path: str, *, must_exist: bool = False) -> tuple[sa.Engine, str]:
    """An engine at the newest schema, and the database's name without its password.

    Raises `UsageError` for an address that names no database, `InfrastructureError` for one that does not
    answer, `DataError` for one that is damaged, foreign, or of a newer perfgate.
    """
    url, where = _address(url_or_path, must_exist=must_exist)
    try:
        engine = _engine(url)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"needs the Python package {error.name}", where=where, fix="pip install 'perfgate[postgres]'"
        ) from error
    except NoSuchModuleError as error:
        raise _not_an_address(where) from error
    try:
        with translated(where):
            if url.get_backend_name() == "sqlite":
                _write_ahead(engine)
            _migrate(engine, where)
    except BaseException:
        engine.dispose()
        raise
    return engine, where


def _address(text: str, *, must_exist: bool) -> tuple[URL, str]:
    if "://" not in text:
        path = Path(text).absolute()
        if must_exist and not path.is_file():
            raise UsageError(
                "there is no history yet", where=text, fix="perfgate history add perfgate-out/results.json"
            )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"cannot be made: {error.strerror}", where=text, fix="choose another --database"
            ) from error
        return URL.create("sqlite", database=str(path)), text
    try:
        # Never in a message as it is: it may hold a password.
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise _not_an_address("--database") from None
    if url.drivername == "sqlite" and url.database:
        return _address(url.database, must_exist=must_exist)
    if url.drivername not in ("postgresql", "postgres", "postgresql+psycopg"):
        raise _not_an_address(url.drivername + "://…")
    return url.set(drivername="postgresql+psycopg"), _shown(url)


def _shown(url: URL) -> str:
    hidden = {name: "***" for name in url.query if "pass" in name.lower()}
    return url.update_query_dict(hidden).render_as_string(hide_password=True)


def _not_an_address(where: str) -> UsageError:
    return UsageError(
        "is not a database that perfgate can use",
        where=where,
        fix="a file such as .perfgate/history.sqlite, or postgresql://user:password@host/database",
    )


def _engine(url: URL) -> sa.Engine:
    if url.get_backend_name() != "sqlite":
        timeout = {} if "connect_timeout" in url.query else {"connect_timeout": _CONNECT_S}
        return sa.create_engine(url, connect_args=timeout, pool_pre_ping=True, hide_parameters=True)
    engine = sa.create_engine(url, connect_args={"timeout": _BUSY_S}, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, record: object) -> None:
        # perfgate begins transactions itself: the module's own way leaves DDL outside of them.
        connection.isolation_level = None
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = NORMAL")

    @event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        # A writer takes the lock at once: an upgrade from reader to writer fails without waiting.
        write = connection.get_execution_options().get("write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


def _write_ahead(engine: sa.Engine) -> None:
    """Switch the file to a write-ahead log: readers and one writer do not wait for each other.

    The switch does not use the busy timeout where two processes open a new file at once: it is tried again.
    """
    deadline = time.monotonic() + _BUSY_S
    raw = engine.raw_connection()
    try:
        while True:
            try:
                cursor = raw.cursor()
                cursor.execute("PRAGMA journal_mode = WAL")
                cursor.close()
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
    finally:
        raw.close()


def _migrate(engine: sa.Engine, where: str) -> None:
    with engine.connect() as connection:
        if _version(connection, where) == REVISIONS[-1]:
            return
    with engine.execution_options(write=True).begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
        # Another process may have migrated while this one waited.
        if _version(connection, where) != REVISIONS[-1]:
            upgrade(connection, REVISIONS[-1])


def upgrade(connection: sa.Connection, revision: str) -> None:
    """Migrate inside the connection's transaction, so that all of it happens or nothing."""
    # Imported when it is used: most commands find the newest schema and would pay half a second for it.
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    command.upgrade(config, revision)


def _version(connection: sa.Connection, where: str) -> str:
    """The schema's revision; empty for a database without tables of ours."""
    names = set(sa.inspect(connection).get_table_names())
    if VERSION_TABLE not in names:
        foreign = names if connection.dialect.name == "sqlite" else names & set(metadata.tables)
        if foreign:
            raise DataError(
                f"holds tables that perfgate did not make, such as {min(foreign)}",
                where=where,
                fix="name a database of its own with --database",
            )
        return ""
    version = connection.scalar(sa.select(sa.column("version_num")).select_from(sa.table(VERSION_TABLE)))
    if version not in REVISIONS:
        raise DataError(
            f"was written by a newer perfgate (schema {version}; this one knows {REVISIONS[-1]})",
            where=where,
            fix="pip install --upgrade perfgate",
        )
    return str(version)


@contextlib.contextmanager
def translated(where: str) -> Iterator[None]:
    """Turn the database's errors into perfgate's."""
    try:
        yield
    except DBAPIError as error:
        raise _meaning(error, where) from error
    except sqlite3.Error as error:  # while a connection is made, SQLAlchemy does not wrap it
        raise _meaning(DBAPIError(None, None, error), where) from error
    except SQLAlchemyError as error:
        raise DataError(
            f"cannot be read: {type(error).__name__}", where=where, fix="restore it from a backup"
        ) from error


def _meaning(error: DBAPIError, where: str) -> PerfgateError:
    cause = error.orig if error.orig is not None else error
    # The first line: the others repeat the statement or the address.
    text = str(cause).strip().partition("\n")[0][:300]
    state = getattr(cause, "sqlstate", None) or ""
    if "disk is full" in text or state == "53100":
        return InfrastructureError("no space left for the history", where=where, fix="free some space, again")
    if "locked" in text or state in ("40001", "40P01", "55P03"):
        return InfrastructureError("is in use by another process", where=where, fix="run again")
    if "malformed" in text or "not a database" in text or state[:2] in ("XX", "58"):
        return DataError(
            f"is damaged: {text}", where=where, fix="restore it from a backup, or move it away and add again"
        )
    if "readonly" in text or "unable to open" in text:
        return OutputError(f"cannot be written: {text}", where=where, fix="choose a writable --database")
    if isinstance(error, IntegrityError):
        return DataError(f"contradicts itself: {text}", where=where, fix="make the results anew")
    if state[:2] in ("42", "3D", "28") and state != "28P01":
        return InfrastructureError(
            f"refused: {text}", where=where, fix="the user needs rights to create and write tables there"
        )
    if type(cause).__name__ in ("OperationalError", "InterfaceError") or state[:2] in ("08", "28", "57"):
        return InfrastructureError(
            f"cannot be reached: {text}",
            where=where,
            fix="check host, port, user and password in --database or PERFGATE_HISTORY, and that it runs",
        )
    return DataError(f"refused the data: {text}", where=where, fix="make the results anew")
