"""Empty databases of both kinds for the tests: SQLite files, and a PostgreSQL server of our own."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa

PASSWORD = "se/cret@word"


@dataclass
class Databases:
    """Makes empty databases of one kind; `make` returns an address."""

    kind: str
    folder: Path
    server: str = ""
    count: int = 0

    def make(self) -> str:
        self.count += 1
        if self.kind == "sqlite":
            return str(self.folder / f"history-{self.count}.sqlite")
        name = f"h{abs(hash(str(self.folder)))}_{self.count}"
        engine = sa.create_engine(self.server, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql(f'CREATE DATABASE "{name}"')
        engine.dispose()
        return sa.make_url(self.server).set(database=name).render_as_string(hide_password=False)


def find_postgres() -> Path | None:
    """The folder of PostgreSQL's server programs: on the PATH, or where Debian puts the newest."""
    if found := shutil.which("pg_ctl"):
        return Path(found).resolve().parent
    folders = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/pg_ctl")]
    return max(folders, key=lambda path: float(path.parent.name), default=None)


@contextlib.contextmanager
def postgres_server(folder: Path) -> Iterator[str]:
    """A PostgreSQL server of our own in `folder`, with a password; skips where none is installed."""
    programs = find_postgres()
    if programs is None:
        pytest.skip("PostgreSQL's server is not installed: apt-get install postgresql")
    root = os.geteuid() == 0
    if root:
        if subprocess.run(["id", "postgres"], capture_output=True).returncode:
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
        shutil.chown(folder, "postgres")
    prefix = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if root else []
    secret = folder / "password"
    secret.write_text(PASSWORD)
    data, log = folder / "data", folder / "log"

    def call(program: str, *args: str | Path) -> None:
        command = [*prefix, str(programs / program), *map(str, args)]
        with (folder / "out").open("ab") as sink:
            done = subprocess.run(command, cwd=folder, stdout=sink, stderr=sink, timeout=120)
        assert done.returncode == 0, (folder / "out").read_text() + (log.read_text() if log.exists() else "")

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    call("initdb", "-D", data, "-U", "perfgate", "-A", "scram-sha-256", "--pwfile", secret, "--no-sync")
    options = (
        f"-p {port} -h 127.0.0.1 -k {folder} -c fsync=off -c synchronous_commit=off -c shared_buffers=16MB"
    )
    call("pg_ctl", "-D", data, "-l", log, "-o", options, "-w", "start")
    try:
        url = sa.URL.create("postgresql+psycopg", "perfgate", PASSWORD, "127.0.0.1", port, "postgres")
        yield url.render_as_string(hide_password=False)
    finally:
        call("pg_ctl", "-D", data, "-m", "immediate", "stop")


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    # Not below pytest's own folder: the path of a socket is short, and only its owner may enter that one.
    with tempfile.TemporaryDirectory(prefix="perfgate-pg-") as folder:
        Path(folder).chmod(0o755)
        with postgres_server(Path(folder)) as address:
            yield address


@pytest.fixture(params=["sqlite", "postgresql"])
def databases(request: pytest.FixtureRequest, tmp_path: Path) -> Databases:
    server = request.getfixturevalue("postgres") if request.param == "postgresql" else ""
    return Databases(request.param, tmp_path, server)


@pytest.fixture
def database(databases: Databases) -> str:
    return databases.make()
