"""Migrations, and databases that are old, new, foreign, damaged, full, locked or not there."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from history_runs import case, launch, run, snapshot

from perfgate.errors import DataError, InfrastructureError, OutputError, PerfgateError, UsageError
from perfgate.history import schema
from perfgate.history.schema import REVISIONS, VERSION_TABLE, connect, metadata, upgrade
from perfgate.history.store import History, open_history

if TYPE_CHECKING:
    from history_databases import Databases

pytest_plugins = ["history_databases"]


def test_revisions_are_those_of_the_migrations() -> None:
    found = ScriptDirectory(str(schema._MIGRATIONS)).walk_revisions()
    assert tuple(one.revision for one in found)[::-1] == REVISIONS


def test_the_migrations_make_the_tables_that_are_queried(database: str) -> None:
    with open_history(database) as history, history._engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": VERSION_TABLE, "compare_type": True}
        )
        assert compare_metadata(context, metadata) == []


def old_database(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A populated database of schema 0001, as the perfgate of its time made it."""
    with monkeypatch.context() as patch:
        patch.setattr(schema, "REVISIONS", ("0001",))
        engine, where = connect(address)
        before = sa.MetaData()
        before.reflect(engine)
        assert "engine_digest" not in before.tables["cases"].columns
        # Today's code writes all of today's columns: for a moment there is one.
        with engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE cases ADD COLUMN engine_digest TEXT DEFAULT ''")
        history = History(engine, where)
        history.add(run(1))
        history.add(run(2, case("a", launch(1000), engine="12"), case("b", launch(1000), engine="34")))
        with engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE cases DROP COLUMN engine_digest")
        history.close()


def test_a_populated_old_database_is_migrated(databases: Databases, monkeypatch: pytest.MonkeyPatch) -> None:
    if sqlite3.sqlite_version_info < (3, 35):
        pytest.skip("this SQLite drops no column")
    old, new = databases.make(), databases.make()
    old_database(old, monkeypatch)
    with open_history(old) as history:
        assert [one.engine_digest for one in history.cases("run-0002")] == ["12" * 32, "34" * 32]
        entries = list(history.entries())
    with open_history(new) as history:
        assert all(history.add_entry(entry) for entry in entries)
    assert snapshot(old) == snapshot(new)


def test_a_migration_that_breaks_changes_nothing(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(connection: sa.Connection, revision: str) -> None:
        upgrade(connection, revision)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(schema, "upgrade", broken)
        with pytest.raises(KeyboardInterrupt):
            open_history(database)
    with open_history(database) as history:
        assert history.add(run(1))


def test_a_newer_schema_is_refused(database: str) -> None:
    with open_history(database) as history, history._writer.begin() as connection:
        connection.exec_driver_sql(f"UPDATE {VERSION_TABLE} SET version_num = '0099'")
    with pytest.raises(DataError, match=r"newer perfgate \(schema 0099") as caught:
        open_history(database)
    assert caught.value.fix == "pip install --upgrade perfgate"


def test_tables_of_others_are_left_alone(database: str, databases: Databases) -> None:
    url = database if databases.kind == "postgresql" else f"sqlite:///{database}"
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE runs (id INTEGER)")
    engine.dispose()
    with pytest.raises(DataError, match="tables that perfgate did not make, such as runs"):
        open_history(database)


@pytest.mark.parametrize("damage", ["text", "pages", "payload"])
def test_a_damaged_file(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite"
    if damage == "text":
        path.write_text("no database at all " * 100)
    else:
        with open_history(str(path)) as history:
            for number in range(1, 20):
                history.add(run(number))
    if damage == "pages":
        data = bytearray(path.read_bytes())
        data[4096:] = b"\x5a" * (len(data) - 4096)
        path.write_bytes(data)
    if damage == "payload":
        with opened(path) as connection:
            connection.execute("UPDATE runs SET payload = X'00'")
            connection.commit()
    with pytest.raises(DataError, match="damaged") as caught, open_history(str(path)) as history:
        history.runs()
        history.entry("run-0001")
    assert caught.value.fix and str(path) in str(caught.value)


def opened(path: Path) -> contextlib.closing[sqlite3.Connection]:
    return contextlib.closing(sqlite3.connect(path))


def test_a_full_disk(tmp_path: Path) -> None:
    path = str(tmp_path / "h.sqlite")
    with open_history(path) as history:
        history.add(run(1))
        before = snapshot(path)

        @sa.event.listens_for(history._engine, "begin")
        def limit(connection: sa.Connection) -> None:
            connection.exec_driver_sql("PRAGMA max_page_count = 1")

        with pytest.raises(InfrastructureError, match="no space left"):
            history.add(run(2, *(case(f"{'x' * 200}{n}", launch(1000)) for n in range(500))))
    assert snapshot(path) == before


def test_a_locked_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "_BUSY_S", 0.1)
    path = tmp_path / "h.sqlite"
    with open_history(str(path)) as history, opened(path) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(InfrastructureError, match="in use by another process"):
            history.add(run(1))
        assert history.runs() == []


def test_a_folder_in_place_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="unable to open"):
        open_history(str(tmp_path))
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be made"):
        open_history(str(tmp_path / "file/history.sqlite"))


def test_no_history_yet(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no history yet"):
        open_history(str(tmp_path / "none"), must_exist=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "address",
    [
        "mysql://user:secret-word@host/name",
        "sqlite://",
        "nonsense://",
        "://user:secret-word@",
        "postgresql://user:secret-word@host:port/name",
    ],
)
def test_an_address_of_nothing(address: str) -> None:
    with pytest.raises(UsageError, match="not a database that perfgate can use") as caught:
        open_history(address)
    assert "secret-word" not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "postgresql+psycopg://me:secret-word@127.0.0.1:1/name",
        "postgresql://me@127.0.0.1:1/name?password=secret-word",
        "postgres://me:secret-word@no-such-host.invalid/name",
    ],
)
def test_an_unreachable_server_never_shows_the_password(address: str) -> None:
    with pytest.raises(InfrastructureError, match="cannot be reached") as caught:
        open_history(address)
    assert caught.value.exit_code == 3
    assert caught.value.fix
    error: BaseException | None = caught.value
    while error is not None:
        assert "secret-word" not in f"{error} {error!r}"
        error = error.__cause__


@pytest.mark.parametrize("change", [{"password": "secret-word"}, {"database": "none"}, {"username": "none"}])
def test_a_server_that_refuses(postgres: str, change: dict[str, str]) -> None:
    url = sa.make_url(postgres).set(**change)  # type: ignore[arg-type]
    with pytest.raises(InfrastructureError) as caught:
        open_history(url.render_as_string(hide_password=False))
    assert "secret-word" not in str(caught.value)
    assert "***" in str(caught.value)


def test_a_path_like_any_other(tmp_path: Path) -> None:
    path = tmp_path / "50% of #1?mode=x" / "history.sqlite"
    with open_history(str(path)) as history:
        assert history.add(run(1))
    assert path.is_file()
    with open_history(f"sqlite:///{tmp_path}/plain.sqlite") as history:
        assert history.runs() == []


@pytest.mark.parametrize(
    ("cause", "kind"),
    [
        (sqlite3.OperationalError("attempt to write a readonly database"), OutputError),
        (sqlite3.OperationalError("disk I/O error"), InfrastructureError),
        (sqlite3.ProgrammingError("something"), DataError),
    ],
)
def test_other_errors_have_a_meaning(cause: Exception, kind: type[PerfgateError]) -> None:
    assert type(schema._meaning(sa.exc.DBAPIError(None, None, cause), "here")) is kind
