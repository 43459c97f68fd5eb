"""The history: add runs, ask for series, take runs out. One transaction a run; safe under many writers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from perfgate.errors import DataError, UsageError
from perfgate.history import (
    HISTORY_SCHEMA,
    METRICS,
    CaseRow,
    HistoryRun,
    LaunchRow,
    Promotion,
    Pruned,
    RunRow,
)
from perfgate.history.rows import (
    case_row,
    case_values,
    check,
    history_run,
    iso,
    key_digest,
    launch_values,
    named,
    pack,
    point,
    run_values,
    thin,
    unpack,
)
from perfgate.history.schema import cases, connect, environments, launches, runs, translated
from perfgate.records import Environment, RunResult, digest
from perfgate.records.trend import Point
from perfgate.util.times import instant

_LAUNCH_FIELDS = LaunchRow.__struct_fields__


def open_history(url_or_path: str, *, must_exist: bool = False) -> History:
    """Open a history, and bring its schema up to date: an SQLite file (made where there is none, unless
    `must_exist`), or `postgresql://…`.

    Raises `UsageError` for an address that names no database, `InfrastructureError` for one that does not
    answer, `DataError` for one that is damaged or of a newer perfgate.
    """
    engine, where = connect(url_or_path, must_exist=must_exist)
    return History(engine, where)


class History:
    """An open history. `where` names the database without its password.

    Every method may raise `InfrastructureError` (unreachable, full, locked) and `DataError` (damaged).
    """

    def __init__(self, engine: sa.Engine, where: str) -> None:
        self.where = where
        self._engine = engine
        self._writer = engine.execution_options(write=True)

    def __enter__(self) -> History:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._engine.dispose()

    def add(self, result: RunResult, *, samples: bool = False, branch: str = "") -> bool:
        """Add a run; False, and nothing changes, where the same run is there already.

        Of every launch's samples the median is kept, or all of them with `samples`.
        Raises `DataError` where another run has this id, or no database could hold the result.
        """
        return self.add_entry(history_run(result, samples=samples, branch=branch))

    def add_entry(self, entry: HistoryRun) -> bool:
        """Add a run as an export holds it; otherwise as `add`."""
        check(entry)
        values = run_values(entry)
        with translated(self.where), self._writer.begin() as connection:
            values["environment"] = _environment_key(connection, entry.result.environment)
            new = _insert_new(connection, runs, "run_id", values)
            key, content = connection.execute(
                sa.select(runs.c.id, runs.c.content).where(runs.c.run_id == values["run_id"])
            ).one()
            if content != entry.content:
                raise DataError(
                    "is in the history with other content",
                    where=f"run {values['run_id']}",
                    fix="add the file that perfgate wrote, unchanged; a run's id never means two runs",
                )
            if new:
                _insert_cases(connection, entry, key)
        return new

    def runs(self, limit: int = 50) -> list[RunRow]:
        """The newest runs, newest first."""
        return self._run_rows(_RUNS.order_by(runs.c.created.desc(), runs.c.id.desc()).limit(limit))

    def run(self, run_id: str) -> RunRow:
        """One run's line. Raises `UsageError` where there is none."""
        if found := self._run_rows(_RUNS.where(runs.c.run_id == run_id)):
            return found[0]
        raise _unknown(run_id, self.where)

    def cases(self, run_id: str) -> list[CaseRow]:
        """The cases of a run, by id."""
        query = (
            sa.select(cases, launches.c.latency_ns)
            .join(runs, runs.c.id == cases.c.run)
            .outerjoin(launches, (launches.c.case_key == cases.c.id) & (launches.c.invalid == ""))
            .where(runs.c.run_id == run_id)
        )
        # Sorted here: databases sort text by rules of their own.
        return sorted(map(case_row, self._grouped(query)), key=lambda one: one.case_id)

    def series(
        self,
        case_id: str,
        metric: str = "latency_ns",
        *,
        device: str | None = None,
        toolchain: str | None = None,
        since: str | None = None,
        branch: str | None = None,
    ) -> list[Point]:
        """A metric of one case over all runs that measured it, oldest first.

        A point holds the valid launches only; a run without any has no point. `since` is ISO 8601, in UTC
        where it names no zone. Raises `UsageError` for a metric or a time that does not exist.
        """
        query = _series_query(case_id, metric)
        asked = (
            (environments.c.device, device),
            (environments.c.toolchain, toolchain),
            (runs.c.branch, branch),
        )
        query = query.where(*(column == value for column, value in asked if value is not None))
        if since is not None:
            query = query.where(runs.c.created >= _parse_instant(since))
        return [point(rows) for rows in self._grouped(query)]

    def case_ids(self, *, device: str | None = None) -> list[str]:
        """All cases ever seen, sorted; only those that ran on `device`, where it is given."""
        query = sa.select(cases.c.case_id).distinct()
        if device is not None:
            query = query.join(runs, runs.c.id == cases.c.run).join(environments)
            query = query.where(environments.c.device == device)
        return sorted(row.case_id for row in self._all(query))

    def environment(self, digest: str) -> Environment:
        """The environment of a point or run; where a digest leaves out what is only noted, the newest one.

        Raises `UsageError` where there is none.
        """
        matches = (environments.c.digest == digest) | (environments.c.key_digest == digest)
        rows = self._all(sa.select(environments).where(matches).order_by(environments.c.id.desc()).limit(1))
        if not rows:
            raise UsageError(
                f"has no environment {digest[:12]!r}", where=self.where, fix="take one of a point"
            )
        row = rows[0]
        return Environment(device=row.device, toolchain=row.toolchain, key=row.key, noted=row.noted)

    def entry(self, run_id: str) -> HistoryRun:
        """A run as it is exported; without samples, every launch of its result holds its median alone.

        Raises `UsageError` where there is none.
        """
        with translated(self.where), self._engine.connect() as connection:
            run = connection.execute(
                sa.select(runs.c.id, runs.c.content, runs.c.sampled, runs.c.branch, runs.c.payload).where(
                    runs.c.run_id == run_id
                )
            ).one_or_none()
            if run is None:
                raise _unknown(run_id, self.where)
            query = (
                sa.select(cases.c.case_id, *(launches.c[name] for name in _LAUNCH_FIELDS))
                .join(launches, launches.c.case_key == cases.c.id)
                .where(cases.c.run == run.id)
                .order_by(cases.c.id, launches.c.idx)
            )
            found: dict[str, list[LaunchRow]] = defaultdict(list)
            for case_id, *numbers in connection.execute(query):
                row = LaunchRow(**dict(zip(_LAUNCH_FIELDS, numbers, strict=True)))
                found[case_id].append(row)
        return HistoryRun(
            schema=HISTORY_SCHEMA,
            content=run.content,
            sampled=run.sampled,
            branch=run.branch,
            result=unpack(run.payload, self.where),
            launches={case_id: tuple(rows) for case_id, rows in found.items()},
        )

    def entries(self) -> Iterator[HistoryRun]:
        """All runs, oldest first, each read when it is asked for: an order that no import changes."""
        rows = self._all(sa.select(runs.c.created, runs.c.run_id))
        for _, run_id in sorted((row.created, row.run_id) for row in rows):
            yield self.entry(run_id)

    def prune(
        self,
        older_than_days: int,
        *,
        now: str,
        keep: Collection[str] = (),
        promoted: Collection[Promotion] = (),
        keep_samples: bool = False,
    ) -> Pruned:
        """Remove the runs created more than `older_than_days` before `now`, except the run ids and commits in
        `keep`, and runs that a promotion names. Of those that stay, the samples go, unless `keep_samples`.
        All of it happens, or nothing."""
        limit = _limit(now, older_than_days)
        removed: list[str] = []
        kept: list[str] = []
        thinned: list[str] = []
        with translated(self.where), self._writer.begin() as connection:
            query = sa.select(runs.c.id, runs.c.run_id, runs.c.created, runs.c.commit_sha, runs.c.sampled)
            for row in connection.execute(query.where(runs.c.created < limit).order_by(runs.c.created)).all():
                stays = row.run_id in keep or (row.commit_sha and row.commit_sha in keep)
                if not (stays or named(row.created, row.commit_sha, promoted)):
                    # Cases and launches go with it.
                    connection.execute(sa.delete(runs).where(runs.c.id == row.id))
                    removed.append(row.run_id)
                    continue
                kept.append(row.run_id)
                if row.sampled and not keep_samples:
                    _drop_samples(connection, row.id, self.where)
                    thinned.append(row.run_id)
        return Pruned(removed=tuple(removed), kept=tuple(kept), thinned=tuple(thinned))

    def _run_rows(self, query: sa.Select[Any]) -> list[RunRow]:
        return [RunRow(**{**row._mapping, "created": iso(row.created)}) for row in self._all(query)]

    def _grouped(self, query: sa.Select[Any]) -> Iterable[list[Any]]:
        """The rows of each run or case together."""
        grouped: dict[int, list[Any]] = defaultdict(list)
        for row in self._all(query):
            grouped[row.id].append(row)
        return grouped.values()

    def _all(self, query: sa.Select[Any]) -> Sequence[Any]:
        with translated(self.where), self._engine.connect() as connection:
            return connection.execute(query).all()


_RUNS = sa.select(
    runs.c.run_id,
    runs.c.created,
    runs.c.perfgate,
    runs.c.commit_sha.label("commit"),
    runs.c.dirty,
    runs.c.branch,
    environments.c.digest.label("environment"),
    environments.c.device,
    environments.c.toolchain,
    runs.c.verdict,
    runs.c.exit_code,
    sa.select(sa.func.count())
    .select_from(cases)
    .where(cases.c.run == runs.c.id)
    .scalar_subquery()
    .label("cases"),
    runs.c.sampled,
).join(environments, environments.c.id == runs.c.environment)


def _series_query(case_id: str, metric: str) -> sa.Select[Any]:
    if metric not in METRICS:
        raise UsageError(
            f"no metric is named {metric!r}", where="series", fix=f"one of: {', '.join(METRICS)}"
        )
    return (
        sa.select(
            runs.c.id,
            runs.c.run_id,
            runs.c.created,
            runs.c.commit_sha,
            environments.c.key_digest,
            environments.c.device,
            environments.c.toolchain,
            cases.c.verdict,
            launches.c[metric].label("value"),
        )
        .select_from(cases)
        .join(runs, runs.c.id == cases.c.run)
        .join(environments, environments.c.id == runs.c.environment)
        .join(launches, launches.c.case_key == cases.c.id)
        .where(cases.c.case_id == case_id, launches.c.invalid == "")
        .order_by(runs.c.created, runs.c.id, launches.c.idx)
    )


def _insert_cases(connection: sa.Connection, entry: HistoryRun, run_key: int) -> None:
    if not entry.result.cases:
        return
    connection.execute(sa.insert(cases), case_values(entry, run_key))
    keys = connection.execute(sa.select(cases.c.case_id, cases.c.id).where(cases.c.run == run_key))
    if rows := launch_values(entry, {row.case_id: row.id for row in keys}):
        connection.execute(sa.insert(launches), rows)


def _insert_new(connection: sa.Connection, table: sa.Table, unique: str, values: dict[str, Any]) -> bool:
    """Insert a row unless another writer was first; it waits for one that has not ended yet."""
    if connection.dialect.name == "postgresql":
        insert = postgresql.insert(table).values(values).on_conflict_do_nothing(index_elements=[unique])
        return connection.execute(insert.returning(table.c.id)).first() is not None
    # SQLite before 3.35 has no RETURNING, and psycopg's count of rows is not passed on.
    other = sqlite.insert(table).values(values).on_conflict_do_nothing(index_elements=[unique])
    return connection.execute(other).rowcount == 1


def _environment_key(connection: sa.Connection, environment: Environment) -> int:
    whole = digest(environment)
    values = {
        "digest": whole,
        "key_digest": key_digest(environment),
        "device": environment.device,
        "toolchain": environment.toolchain,
        "key": environment.key,
        "noted": environment.noted,
    }
    query = sa.select(environments.c.id).where(environments.c.digest == whole)
    found: int | None = connection.scalar(query)
    if found is None:
        _insert_new(connection, environments, "digest", values)
        found = connection.scalar(query)
    assert found is not None
    return found


def _drop_samples(connection: sa.Connection, run_key: int, where: str) -> None:
    payload = connection.scalar(sa.select(runs.c.payload).where(runs.c.id == run_key))
    assert payload is not None
    thinned = pack(thin(unpack(payload, where)))
    connection.execute(sa.update(runs).where(runs.c.id == run_key).values(payload=thinned, sampled=False))


def _limit(now: str, days: int) -> datetime:
    if days < 0:
        raise UsageError("is below zero", where="--older-than", fix="a number of days")
    try:
        return _parse_instant(now) - timedelta(days=days)
    except OverflowError as error:
        raise UsageError("is longer than time itself", where="--older-than", fix="fewer days") from error


def _parse_instant(text: str) -> datetime:
    try:
        return instant(text)
    except ValueError as error:
        raise UsageError(
            f"is not a time: {text[:40]!r}", where="since", fix="such as 2026-01-31 or 2026-01-31T12:00:00Z"
        ) from error


def _unknown(run_id: str, where: str) -> UsageError:
    return UsageError(f"has no run {run_id[:80]!r}", where=where, fix="perfgate history list shows them")
