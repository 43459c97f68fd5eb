"""The history on SQLite and on PostgreSQL: what goes in comes out, once, whole, and in order."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import history_runs
import msgspec
import pytest
import sqlalchemy as sa
from history_runs import ENVIRONMENT, case, launch, run, snapshot

from perfgate.errors import DataError, InfrastructureError, UsageError
from perfgate.history import METRICS, Promotion, store as store_module
from perfgate.history.rows import (
    history_run,
    key_digest,
    mark_promoted,
    read_export,
    summary,
    thin,
    write_export,
)
from perfgate.history.store import open_history
from perfgate.records import Environment, RunResult, digest
from perfgate.records.trend import Point
from perfgate.util.files import record_json

if TYPE_CHECKING:
    from history_databases import Databases

pytest_plugins = ["history_databases"]

NOW = "2026-03-01T00:00:00Z"


def test_a_run_comes_back(database: str) -> None:
    first, second = run(1), run(2)
    with open_history(database) as history:
        assert history.runs() == []
        assert history.add(first)
        assert history.add(second, samples=True)
        assert history.entry(first.run_id).result == thin(first)
        assert history.entry(second.run_id).result == second
        rows = history.runs()
        assert [row.run_id for row in rows] == ["run-0002", "run-0001"]
        assert history.runs(limit=1) == rows[:1]
        assert rows[1].created == first.created
        assert rows[1].cases == 2
        assert rows[1].verdict == "PASS"
        assert history.environment(rows[0].environment) == ENVIRONMENT
        skipped, measured = history.cases("run-0001")[::-1]
        assert (skipped.latency_ns, skipped.verdict, skipped.engine_digest) == (None, "", "")
        assert measured.ratio == 1.0 + 1 / 3
        assert measured.engine_digest == "ab" * 32
        assert measured.launches == 2


def test_a_launch_is_summed_up_as_a_baseline_does() -> None:
    from perfgate.records import columns

    launches = [launch(1001, samples=count) for count in (1, 2, 101, 1200)]
    expected = columns(launches)
    assert tuple(expected) == METRICS
    for metric in METRICS:
        assert tuple(getattr(summary(one), metric) for one in launches) == expected[metric]


def test_a_series_is_ordered_by_time_and_leaves_invalid_launches_out(database: str) -> None:
    elsewhere = msgspec.structs.replace(ENVIRONMENT, device="other", noted={"python": "3.12"})
    late = run(9, case("net/fp16/b8", launch(4000), launch(1000)), environment=elsewhere)
    broken = run(4, case("net/fp16/b8", launch(1, invalid="thermal")))
    with open_history(database) as history:
        for one in (late, run(3), run(1), broken):
            assert history.add(one, branch="main" if one is late else "")
        points = history.series("net/fp16/b8")
        assert [point.run_id for point in points] == ["run-0001", "run-0003", "run-0009"]
        assert all(isinstance(point, Point) for point in points)
        assert len(points[0].values) == 2
        assert points[2].value == pytest.approx((points[2].values[0] * points[2].values[1]) ** 0.5)
        assert points[0].environment == key_digest(ENVIRONMENT)
        assert history.environment(points[0].environment) == ENVIRONMENT
        assert history.series("net/fp16/b8", "samples")[0].values == (20.0, 20.0)
        assert [one.run_id for one in history.series("net/fp16/b8", device="other")] == ["run-0009"]
        assert [one.run_id for one in history.series("net/fp16/b8", branch="main")] == ["run-0009"]
        assert history.series("net/fp16/b8", toolchain="none") == []
        since = history.series("net/fp16/b8", since="2026-01-02T00:03:00Z")
        assert [one.run_id for one in since] == ["run-0003", "run-0009"]
        assert history.series("net/fp16/b8", since="2026-01-02T01:03:00+01:00") == since
        assert history.case_ids() == ["net/fp16/b8", "other/fp16/b1"]
        assert history.case_ids(device="other") == ["net/fp16/b8"]
        assert history.series("nothing") == []


def test_what_is_only_noted_makes_no_other_environment_of_a_point(database: str) -> None:
    noted = msgspec.structs.replace(ENVIRONMENT, noted={"uuid": "2"})
    driver = msgspec.structs.replace(ENVIRONMENT, key={**ENVIRONMENT.key, "driver": "590"})
    with open_history(database) as history:
        for number, environment in enumerate((ENVIRONMENT, noted, driver), 1):
            history.add(run(number, environment=environment))
        first, second, third = history.series("net/fp16/b8")
        assert first.environment == second.environment != third.environment
        assert history.environment(first.environment) == noted
        assert history.environment(digest(ENVIRONMENT)) == ENVIRONMENT
        with pytest.raises(UsageError, match="no environment"):
            history.environment("0" * 64)


def test_zero_has_a_geometric_mean(database: str) -> None:
    none = msgspec.structs.replace(launch(1000), peak_memory_bytes=0)
    with open_history(database) as history:
        history.add(run(1, case("a", none, launch(1000))))
        assert history.series("a", "peak_memory_bytes")[0].value == 0.0


def test_the_same_run_twice_changes_nothing(database: str) -> None:
    with open_history(database) as history:
        assert history.add(run(1))
        before = snapshot(database)
        assert not history.add(run(1))
        assert not history.add(run(1), samples=True)
        assert snapshot(database) == before
        with pytest.raises(DataError, match="run run-0001: is in the history with other content"):
            history.add(run(1, case("net/fp16/b8", launch(1001))))
        assert snapshot(database) == before


@pytest.mark.parametrize("samples", [False, True])
def test_an_export_makes_the_same_history(databases: Databases, tmp_path: Path, samples: bool) -> None:
    address, other = databases.make(), databases.make()
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    with open_history(address) as history:
        # Added in another order than they happened.
        for number in (3, 1, 2):
            history.add(run(number), samples=samples, branch="main")
        history.add(run(4, run(1).cases[0], summary=None, created="2026-01-02T00:00:00.250+00:00"))
        assert write_export(first, history.entries()) == 4
    with open_history(other) as history:
        assert [history.add_entry(entry) for entry in read_export(first)] == [True] * 4
        assert [history.add_entry(entry) for entry in read_export(first)] == [False] * 4
        # The results themselves are the same runs too.
        assert not history.add(run(2))
        write_export(second, history.entries())
    assert second.read_bytes() == first.read_bytes()
    assert snapshot(other) == snapshot(address)
    assert first.read_text().startswith('{"schema":"perfgate-trt/history/v1",')


def test_both_databases_export_the_same_bytes(postgres: str, tmp_path: Path) -> None:
    from history_databases import Databases

    files = []
    for kind in ("sqlite", "postgresql"):
        with open_history(Databases(kind, tmp_path / "equal", postgres).make()) as history:
            for number in (2, 1):
                history.add(run(number))
            files.append(tmp_path / kind)
            write_export(files[-1], history.entries())
    assert files[0].read_bytes() == files[1].read_bytes()


def test_an_interrupted_import_leaves_nothing(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with open_history(database) as history:
        history.add(run(1))
        before = snapshot(database)
        monkeypatch.setattr(store_module, "launch_values", interrupt)
        with pytest.raises(KeyboardInterrupt):
            history.add(run(2))
        assert snapshot(database) == before
        monkeypatch.undo()
        assert history.add(run(2))


CHILD = """
import sys, os
sys.path.insert(0, {folder!r})
from history_runs import run
from perfgate.history import store
from perfgate.history.store import open_history
address, start, count, end = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
if end == "die":
    store.launch_values = lambda *_: os._exit(9)
with open_history(address) as history:
    print(sum(history.add(run(number)) for number in range(start, start + count)), flush=True)
"""


def child(address: str, start: int, count: int, end: str = "stay") -> subprocess.Popen[str]:
    code = CHILD.format(folder=str(Path(history_runs.__file__).parent))
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", code, address, str(start), str(count), end],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )


def test_a_killed_import_leaves_nothing(database: str) -> None:
    process = child(database, 1, 1, "die")
    assert process.wait(60) == 9
    assert process.stdout is not None
    process.stdout.close()
    with open_history(database) as history:
        assert history.runs() == []
        assert history.add(run(1))


def test_two_writers_lose_nothing(database: str) -> None:
    """They also make the schema at once, and ten runs are added by both."""
    processes = [child(database, 1, 20), child(database, 11, 20)]
    added = [int(process.communicate(timeout=60)[0]) for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sum(added) == 30
    with open_history(database) as history:
        assert len(history.runs(limit=100)) == 30
        assert len(history.series("net/fp16/b8")) == 30
    assert len(snapshot(database)["environments"]) == 1


def test_pruning_keeps_what_is_promoted(database: str) -> None:
    with open_history(database) as history:
        for number in range(1, 6):
            history.add(run(number), samples=True)
        history.add(run(6, created="2026-02-28T00:00:00Z"))
        done = history.prune(
            30,
            now=NOW,
            keep={"run-0001", f"{2:040x}"},
            promoted={
                Promotion(created="2026-01-02T00:03:00Z", commit=f"{3:040x}"),
                Promotion(created="2026-01-02T00:04:00Z", commit="another"),
                Promotion(created="no time", commit=f"{5:040x}"),
            },
        )
        assert done.removed == ("run-0004", "run-0005")
        assert done.kept == done.thinned == ("run-0001", "run-0002", "run-0003")
        assert history.entry("run-0001").result == thin(run(1))
        assert history.entry("run-0001") == history_run(run(1), samples=False)
        assert len(history.series("net/fp16/b8")) == 4
        assert not history.add(run(1))
        assert len(history.prune(30, now=NOW, keep={"run-0001"}).removed) == 2
        assert [row.run_id for row in history.runs()] == ["run-0006", "run-0001"]
        assert len(snapshot(database)["launches"]) == 6
        with pytest.raises(UsageError, match="below zero"):
            history.prune(-1, now=NOW)
        with pytest.raises(UsageError, match="longer than time"):
            history.prune(10**6, now=NOW)


def test_pruning_can_keep_the_samples(database: str) -> None:
    with open_history(database) as history:
        history.add(run(1), samples=True)
        done = history.prune(1, now=NOW, keep={"run-0001"}, keep_samples=True)
        assert (done.removed, done.kept, done.thinned) == ((), ("run-0001",), ())
        assert history.entry("run-0001").result == run(1)


def test_points_are_marked_as_promoted() -> None:
    point = Point(
        run_id="r",
        created="2026-01-02T00:00:00Z",
        commit="c",
        environment="e",
        device="d",
        toolchain="t",
        verdict="PASS",
        value=1.0,
        values=(1.0,),
    )
    assert mark_promoted([point], {Promotion(created="2026-01-02T01:00:00+01:00", commit="c")})[0].promoted
    assert not mark_promoted([point], {Promotion(created=point.created, commit="other")})[0].promoted


NUL = case("a\0b", launch(1000))
TWICE = case("a", launch(1000))


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (run(1, created="yesterday"), "at no time"),
        (run(1, created="0001-01-01T00:00:00+14:00"), "at no time"),
        (run(1, NUL), "NUL"),
        (run(1, TWICE, TWICE), "two cases"),
        (run(1, environment=Environment(device="\0", toolchain="t", key={})), "NUL"),
    ],
)
def test_what_no_database_could_hold_is_refused(result: RunResult, message: str, database: str) -> None:
    with open_history(database) as history:
        with pytest.raises(DataError, match=message):
            history.add(result)
        assert history.runs() == []


def test_the_largest_and_strangest_are_held(database: str) -> None:
    huge = msgspec.structs.replace(
        launch(1000),
        samples_ns=((1 << 62) - 1, 1),
        load_ns=(1 << 62) - 1,
        peak_memory_bytes=(1 << 62) - 1,
        wall_ns=1,
    )
    odd = Environment(device="d", toolchain="t", key={"é\0'\"%s": "\0\u2028"}, noted={"k": "😀" * 900})
    result = run(1, case("é" * 300, huge), environment=odd, run_id="'; DROP TABLE runs; --")
    with open_history(database) as history:
        assert history.add(result, samples=True)
        assert history.entry(result.run_id).result == result
        assert history.environment(digest(odd)) == odd
        assert history.entry(result.run_id) == history_run(result, samples=True)


def test_questions_without_an_answer(database: str) -> None:
    with open_history(database) as history:
        with pytest.raises(UsageError, match="no run 'x'"):
            history.entry("x")
        with pytest.raises(UsageError, match="no metric is named 'id'"):
            history.series("net", "id")
        with pytest.raises(UsageError, match="is not a time"):
            history.series("net", since="soon")


def line(result: RunResult, **more: object) -> bytes:
    entry = msgspec.structs.replace(history_run(result, samples=True), **more)
    return msgspec.json.encode(entry, order="deterministic")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (line(run(1))[:-1], "is not a run"),
        (line(run(1)).replace(b'"sampled":true', b'"sampled":true,"sampled":true'), "twice"),
        (line(run(1)).replace(b'"sampled":true', b'"sampled":true,"more":1'), "more"),
        (line(run(1), content="0" * 64), "its own digest"),
        (line(run(1), launches={}), "other launches"),
        (line(run(1)).replace(b'"latency_ns":', b'"latency_ns":1'), "its own digest"),
        (b"[" * 100_000, "is not a run"),
    ],
)
def test_a_damaged_export_is_refused(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "export"
    path.write_bytes(line(run(2)) + b"\n" + data)
    with pytest.raises(DataError, match=message) as caught:
        list(read_export(path))
    assert "line 2" in str(caught.value) or "run run-0001" in str(caught.value)


def test_an_export_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> object:
        yield history_run(run(1), samples=False)
        raise InfrastructureError("gone")

    with pytest.raises(InfrastructureError):
        write_export(tmp_path / "out/export", broken())  # type: ignore[arg-type]
    assert list((tmp_path / "out").iterdir()) == []


def test_a_large_run_is_fast(tmp_path: Path) -> None:
    """Two seconds is the promise; a busy machine gets some more here."""
    import time

    cases = [
        case(f"net{n}/fp16/b1", *(launch(10_000 + n, samples=50, seed=s) for s in range(5)))
        for n in range(500)
    ]
    result = run(1, *cases)
    assert record_json(result)
    with open_history(str(tmp_path / "h.sqlite")) as history:
        start = time.perf_counter()
        assert history.add(result)
        assert time.perf_counter() - start < 6


def test_sqlite_is_set_up_for_many_readers_and_one_writer(tmp_path: Path) -> None:
    with open_history(str(tmp_path / "h.sqlite")) as history, history._engine.connect() as connection:
        assert connection.scalar(sa.text("PRAGMA journal_mode")) == "wal"
        assert connection.scalar(sa.text("PRAGMA foreign_keys")) == 1
        assert connection.scalar(sa.text("PRAGMA busy_timeout")) == 60_000
