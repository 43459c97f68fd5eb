"""Between a run's result and what the history keeps of it: rows, packed results, export files. No SQL."""

from __future__ import annotations

import statistics
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import msgspec

from perfgate.errors import DataError
from perfgate.history import HISTORY_SCHEMA, CaseRow, HistoryRun, LaunchRow, Promotion
from perfgate.records import Baseline, CaseResult, Environment, Launch, Measured, RunResult, columns, digest
from perfgate.records.trend import Point
from perfgate.util.files import (
    BASELINE_LIMIT_BYTES,
    RESULTS_LIMIT_BYTES,
    read_record,
    refuse_repeated_keys,
    write_chunks,
)
from perfgate.util.times import instant

_MARK = f'{{"schema":"{HISTORY_SCHEMA}"'.encode()


def history_run(result: RunResult, *, samples: bool, branch: str = "") -> HistoryRun:
    """What is stored of a result. Raises `DataError` for a result that no database could hold."""
    try:
        content = digest(result)
    except UnicodeEncodeError as error:
        raise _unfit(result, "holds text that is not Unicode") from error
    entry = HistoryRun(
        schema=HISTORY_SCHEMA,
        content=content,
        sampled=samples,
        branch=branch,
        result=result if samples else thin(result),
        launches=_summaries(result),
    )
    check(entry)
    return entry


def check(entry: HistoryRun) -> None:
    """Raises `DataError` unless the entry agrees with itself and fits into the tables."""
    result = entry.result
    ids = [one.case.id for one in result.cases]
    if len(set(ids)) < len(ids):
        raise _unfit(result, "has two cases of one id")
    counts = {key: len(rows) for key, rows in entry.launches.items()}
    if counts != {key: len(launches) for key, launches in _measured(result)}:
        raise _unfit(result, "has other launches in its summary than in its cases")
    if entry.sampled and (entry.content != digest(result) or entry.launches != _summaries(result)):
        raise _unfit(result, "is not what its own digest and launches say")
    if any("\0" in text for text in _texts(entry)):
        raise _unfit(result, "has a NUL character in a name")
    try:
        instant(result.created)
    except ValueError as error:
        raise _unfit(result, f"was created at no time that exists: {result.created[:40]!r}") from error


def _unfit(result: RunResult, why: str) -> DataError:
    return DataError(why, where=f"run {result.run_id}", fix="add the results as perfgate wrote them")


def _texts(entry: HistoryRun) -> Iterator[str]:
    """Every text that becomes a column of its own; the rest is packed, where any character may be."""
    result = entry.result
    yield from (entry.branch, result.run_id, result.perfgate)
    yield from (result.environment.device, result.environment.toolchain)
    for one in result.cases:
        yield from (one.case.id, one.case.model, one.case_digest)
    for rows in entry.launches.values():
        yield from (row.invalid for row in rows)


def _measured(result: RunResult) -> Iterator[tuple[str, Sequence[Launch]]]:
    for one in result.cases:
        if isinstance(one.outcome, Measured):
            yield one.case.id, one.outcome.launches


def _summaries(result: RunResult) -> dict[str, tuple[LaunchRow, ...]]:
    return {key: tuple(summary(launch) for launch in launches) for key, launches in _measured(result)}


def summary(launch: Launch) -> LaunchRow:
    """A launch in numbers, rounded as baselines round them."""
    numbers: dict[str, Any] = {name: values[0] for name, values in columns([launch]).items()}
    return LaunchRow(**numbers, invalid=launch.invalid)


def thin(result: RunResult) -> RunResult:
    """The result with every launch's series of samples replaced by its median; all else stays."""
    return msgspec.structs.replace(result, cases=tuple(_thin_case(one) for one in result.cases))


def _thin_case(one: CaseResult) -> CaseResult:
    if not isinstance(one.outcome, Measured):
        return one
    outcome = msgspec.structs.replace(
        one.outcome,
        launches=tuple(_thin_launch(launch) for launch in one.outcome.launches),
        screen=tuple(_thin_launch(launch) for launch in one.outcome.screen),
    )
    return msgspec.structs.replace(one, outcome=outcome)


def _thin_launch(launch: Launch) -> Launch:
    other = {name: _median(series) for name, series in launch.other_ns.items()}
    return msgspec.structs.replace(launch, samples_ns=_median(launch.samples_ns), other_ns=other)


def _median(series: Sequence[int]) -> tuple[int, ...]:
    return (round(statistics.median(series)),) if series else ()


def pack(result: RunResult) -> bytes:
    """The result as compressed JSON. Raises `DataError` when it is larger than a results file may be."""
    data = msgspec.json.encode(result, order="deterministic")
    if len(data) > RESULTS_LIMIT_BYTES:
        raise _unfit(result, f"is larger than {RESULTS_LIMIT_BYTES >> 20} MiB")
    return zlib.compress(data, level=1 if len(data) > 1 << 22 else 6)


def unpack(payload: bytes, where: str) -> RunResult:
    """The stored result. Raises `DataError` when the database holds something else."""
    try:
        data = zlib.decompressobj().decompress(payload, RESULTS_LIMIT_BYTES)
        return msgspec.json.decode(data, type=RunResult)
    except (zlib.error, msgspec.MsgspecError, RecursionError) as error:
        raise DataError(
            f"is damaged: a stored result cannot be read ({error})",
            where=where,
            fix="restore it from a backup",
        ) from error


def case_values(entry: HistoryRun, run_key: int) -> list[dict[str, Any]]:
    """The rows of `cases` of a run."""
    return [{"run": run_key, **_case_value(one)} for one in entry.result.cases]


def _case_value(one: CaseResult) -> dict[str, Any]:
    judgement = one.judgement
    ratio = judgement.ratio if judgement else None
    engine = one.outcome.engine if isinstance(one.outcome, Measured) else None
    return {
        "case_id": one.case.id,
        "model": one.case.model,
        "verdict": judgement.verdict.value if judgement else "",
        "ratio": ratio.estimate if ratio else None,
        "low": ratio.low if ratio else None,
        "high": ratio.high if ratio else None,
        "case_digest": one.case_digest,
        "engine_digest": engine.digest if engine else "",
    }


def launch_values(entry: HistoryRun, case_keys: dict[str, int]) -> list[dict[str, Any]]:
    """The rows of `launches` of a run; `case_keys` are the keys of its cases by case id."""
    return [
        {"case_key": case_keys[key], "idx": index, **msgspec.structs.asdict(row)}
        for key, rows in entry.launches.items()
        for index, row in enumerate(rows)
    ]


def point(rows: Sequence[Any]) -> Point:
    """One run's rows of a series: one a valid launch, in order."""
    first = rows[0]
    values = tuple(float(row.value) for row in rows)
    return Point(
        run_id=first.run_id,
        created=iso(first.created),
        commit=first.commit_sha,
        environment=first.key_digest,
        device=first.device,
        toolchain=first.toolchain,
        verdict=first.verdict,
        value=geometric_mean(values),
        values=values,
    )


def case_row(rows: Sequence[Any]) -> CaseRow:
    """One case's rows: one a valid launch, or a single one without a number."""
    first = rows[0]
    values = [float(row.latency_ns) for row in rows if row.latency_ns is not None]
    return CaseRow(
        case_id=first.case_id,
        model=first.model,
        verdict=first.verdict,
        ratio=first.ratio,
        low=first.low,
        high=first.high,
        case_digest=first.case_digest,
        engine_digest=first.engine_digest,
        launches=len(values),
        latency_ns=geometric_mean(values) if values else None,
    )


def run_values(entry: HistoryRun) -> dict[str, Any]:
    """The row of `runs`, without the key of its environment."""
    result = entry.result
    return {
        "run_id": result.run_id,
        "created": instant(result.created),
        "perfgate": result.perfgate,
        "commit_sha": result.commit.sha,
        "dirty": result.commit.dirty,
        "branch": entry.branch,
        "verdict": result.summary.verdict.value if result.summary else "",
        "exit_code": result.summary.exit_code if result.summary else 0,
        "content": entry.content,
        "sampled": entry.sampled,
        "payload": pack(result),
    }


def key_digest(environment: Environment) -> str:
    """The digest of what must match for two measurements to be compared: without what is only noted."""
    return digest(msgspec.structs.replace(environment, noted={}))


def geometric_mean(values: Sequence[float]) -> float:
    """Zero where a value is: no memory seen, or nothing loaded."""
    return statistics.geometric_mean(values) if min(values) > 0 else 0.0


def iso(moment: datetime) -> str:
    """ISO 8601 in UTC; microseconds only where there are some."""
    return moment.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")


def is_export(path: Path) -> bool:
    """Whether a file is an export of a history rather than results; unreadable ones are neither."""
    try:
        with path.open("rb") as source:
            return source.read(len(_MARK)) == _MARK
    except OSError:
        return False


def write_export(path: Path, entries: Iterable[HistoryRun]) -> int:
    """Write one canonical JSON line a run, atomically and one at a time: a history may not fit into memory.

    Returns how many. Raises `OutputError`, or `InfrastructureError` when the disk is full.
    """
    # Canonical: fields in their order, the schema first, dictionaries sorted, defaults omitted.
    lines = (msgspec.json.encode(entry, order="deterministic") + b"\n" for entry in entries)
    return write_chunks(path, lines)


def read_export(path: Path) -> Iterator[HistoryRun]:
    """The runs of an export, one at a time. Raises `DataError` that names the file and line."""
    try:
        with path.open("rb") as source:
            lines = iter(lambda: source.readline(2 * RESULTS_LIMIT_BYTES + 1), b"")
            for number, line in enumerate(lines, start=1):
                yield _read_line(line, f"{path}: line {number}")
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=path) from error


def _read_line(line: bytes, where: str) -> HistoryRun:
    if len(line) > 2 * RESULTS_LIMIT_BYTES:
        raise DataError("is longer than a run can be", where=where)
    try:
        entry = msgspec.json.decode(line, type=HistoryRun)
        refuse_repeated_keys(line)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise DataError(
            f"is not a run of a history: {error}", where=where, fix="export it anew; it may be cut off"
        ) from error
    check(entry)
    return entry


def promotions(folder: Path) -> frozenset[Promotion]:
    """Which runs the baselines under `folder` come from. Raises `DataError` for a damaged baseline."""
    files = sorted(folder.glob("*/*/*.json"))
    baselines = (read_record(path, Baseline, limit_bytes=BASELINE_LIMIT_BYTES) for path in files)
    return frozenset(
        Promotion(created=case.promoted, commit=case.commit)
        for baseline in baselines
        for case in baseline.cases.values()
    )


def named(created: datetime, commit: str, promoted: Iterable[Promotion]) -> bool:
    """Whether one of the promotions is of this run; a time that nobody can read names none."""
    for one in promoted:
        try:
            if one.commit == commit and instant(one.created) == created:
                return True
        except ValueError:
            continue
    return False


def mark_promoted(points: Iterable[Point], promoted: Collection[Promotion]) -> list[Point]:
    """The points, with `promoted` set on those whose run a baseline names."""
    return [
        msgspec.structs.replace(one, promoted=named(instant(one.created), one.commit, promoted))
        for one in points
    ]
