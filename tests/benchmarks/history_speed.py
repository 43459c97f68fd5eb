"""How fast the history answers with a million launches in it, on SQLite.

    python tests/benchmarks/history_speed.py --out history_speed.json

Makes a database of nightly runs (400 nights of 500 cases of 5 launches by default, inserted in bulk), then
measures in this process the series of one case over its last year, the list of cases and of runs, and the
import of one more run of as many cases; and, in fresh processes, `history show` and `history series`.
Every figure is the slowest of `--repeats`.

Targets: a series within 0.2 s, a command within 0.8 s, the import within 2 s.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import common
import sqlalchemy as sa

from perfgate.history.rows import history_run, key_digest, pack, read_export, write_export
from perfgate.history.schema import cases, environments, launches, runs
from perfgate.history.store import open_history
from perfgate.records import (
    RESULTS_SCHEMA,
    Case,
    CaseResult,
    Commit,
    EngineFacts,
    Environment,
    Launch,
    Measured,
    Protocol,
    RunResult,
    Tolerance,
    digest,
)
from perfgate.util.files import record_json, write_text
from perfgate.util.process import package_environment

TARGETS_S = {"series": 0.2, "show command": 0.8, "series command": 0.8, "import": 2.0}
ENVIRONMENT = Environment(device="nvidia-h200", toolchain="tensorrt-10.13", key={"driver": "580"})
_START = datetime(2026, 1, 1, tzinfo=timezone.utc)
_COMMAND = [
    sys.executable,
    "-m",
    "perfgate",
]


def fill(address: str, *, nights: int, count: int, repeats: int) -> None:
    """Insert the rows of `nights` runs of `count` cases of `repeats` launches, without their results."""
    with open_history(address) as history, history._writer.begin() as connection:
        values = {"digest": digest(ENVIRONMENT), "key_digest": key_digest(ENVIRONMENT), "id": 1}
        facts = {"device": ENVIRONMENT.device, "toolchain": ENVIRONMENT.toolchain, "key": {}, "noted": {}}
        connection.execute(sa.insert(environments), [{**values, **facts}])
        for night in range(1, nights + 1):
            connection.execute(sa.insert(runs), [_run_row(night)])
            keys = range(night * count, (night + 1) * count)
            connection.execute(sa.insert(cases), [_case_row(night, key, key - night * count) for key in keys])
            rows = [_launch_row(key, index) for key in keys for index in range(repeats)]
            connection.execute(sa.insert(launches), rows)


def _run_row(night: int) -> dict[str, Any]:
    created = _START + timedelta(days=night)
    empty = result(0, 0, 0, run_id=f"run-{night}", created=created)
    return {
        "id": night,
        "run_id": f"run-{night}",
        "created": created,
        "perfgate": "0.1.0",
        "commit_sha": f"{night:040x}",
        "dirty": False,
        "branch": "main",
        "environment": 1,
        "verdict": "PASS",
        "exit_code": 0,
        "content": digest(empty),
        "sampled": False,
        # As much as the results of hundreds of cases take, so that pages lie apart as they would.
        "payload": pack(empty) + bytes(200_000),
    }


def _case_row(night: int, key: int, number: int) -> dict[str, Any]:
    return {
        "id": key,
        "run": night,
        "case_id": case_id(number),
        "model": f"model{number}",
        "verdict": "PASS",
        "ratio": 1.001,
        "low": 0.999,
        "high": 1.003,
        "case_digest": "cd" * 32,
        "engine_digest": "ab" * 32,
    }


def _launch_row(key: int, index: int) -> dict[str, Any]:
    return {
        "case_key": key,
        "idx": index,
        "latency_ns": 1_000_000 + key % 1000 + index,
        "p99_ns": 1_100_000,
        "samples": 1000,
        "load_ns": 1_000_000_000,
        "first_inference_ns": 2_000_000,
        "peak_memory_bytes": 1 << 30,
        "throughput_qps": 1000.0,
        "invalid": "",
    }


def case_id(number: int) -> str:
    return f"model{number}/fp16/b8"


def result(count: int, repeats: int, samples: int, *, run_id: str, created: datetime) -> RunResult:
    """A measured run of `count` cases."""
    tolerance = Tolerance(ignore=0.005, catch=0.02)
    engine = EngineFacts(digest="ab" * 32, engine_bytes=1 << 26, layer_record="x" * 4_000)
    measured = []
    for number in range(count):
        series = [
            tuple(1_000_000 + 7 * n % 9_973 + index for n in range(samples)) for index in range(repeats)
        ]
        taken = [
            Launch(samples_ns=one, wall_ns=sum(one), load_ns=10**9, first_inference_ns=10**6)
            for one in series
        ]
        case = Case(
            id=case_id(number),
            model=f"model{number}",
            backend="tensorrt",
            precision="fp16",
            tolerance=tolerance,
        )
        outcome = Measured(engine=engine, launches=tuple(taken))
        measured.append(CaseResult(case=case, outcome=outcome, case_digest="cd" * 32))
    return RunResult(
        schema=RESULTS_SCHEMA,
        run_id=run_id,
        created=f"{created:%Y-%m-%dT%H:%M:%SZ}",
        perfgate="0.1.0",
        commit=Commit(sha="ef" * 20),
        environment=ENVIRONMENT,
        protocol=Protocol(),
        cases=tuple(measured),
    )


def slowest(action: Callable[[], object], repeats: int) -> float:
    """Seconds of the slowest of some repetitions."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return max(times)


def measure(address: str, folder: Path, options: common.Options) -> dict[str, float]:
    """Seconds by what was measured."""
    since = f"{_START + timedelta(days=options.nights - 365):%Y-%m-%d}"
    wanted = case_id(options.cases // 2)
    found = {}
    with open_history(address) as history:
        assert len(history.series(wanted, since=since)) >= min(365, options.nights)
        found["series"] = slowest(lambda: history.series(wanted, since=since), options.repeats)
        found["case ids"] = slowest(history.case_ids, options.repeats)
        device = ENVIRONMENT.device
        found["case ids of a device"] = slowest(lambda: history.case_ids(device=device), options.repeats)
        found["list of runs"] = slowest(history.runs, options.repeats)

    def command(*args: str) -> Callable[[], object]:
        line = [*_COMMAND, "history", *args, "--database", address]
        return lambda: subprocess.run(line, capture_output=True, check=True, env=package_environment())

    found["show command"] = slowest(command("show", f"run-{options.nights}"), options.repeats)
    found["series command"] = slowest(command("series", wanted, "--since", since), options.repeats)
    new = result(
        options.cases,
        options.launches,
        options.samples,
        run_id="new",
        created=_START + timedelta(days=options.nights + 1),
    )
    with open_history(address) as history:
        found["import"] = slowest(lambda: history.add(new), 1)
        assert history.run("new").cases == options.cases
        write_export(folder / "export", [history.entry("new")])
    with open_history(str(folder / "second.sqlite")) as other:
        found["import of its export"] = slowest(
            lambda: [other.add_entry(one) for one in read_export(folder / "export")], 1
        )
    assert history_run(new, samples=False).launches
    results = folder / "results.json"
    write_text(results, record_json(new))
    found["add command, another database"] = slowest(
        lambda: subprocess.run(
            [*_COMMAND, "history", "add", str(results), "--database", str(folder / "third.sqlite")],
            capture_output=True,
            check=True,
            env=package_environment(),
        ),
        1,
    )
    return found


def show(found: dict[str, float]) -> str:
    lines = [f"{'measured':32}{'seconds':>9}{'target':>9}  on target"]
    for name, seconds in found.items():
        target = TARGETS_S.get(name)
        verdict = "" if target is None else "yes" if seconds <= target else "NO"
        lines.append(f"{name:32}{seconds:9.3f}{target or '':>9}  {verdict}".rstrip())
    return "\n".join(lines)


def run(options: common.Options) -> int:
    with tempfile.TemporaryDirectory() as name:
        address = str(Path(name) / "history.sqlite")
        start = time.perf_counter()
        fill(address, nights=options.nights, count=options.cases, repeats=options.launches)
        rows = options.nights * options.cases * options.launches
        size = Path(address).stat().st_size / 2**20
        print(f"{rows:,} launches, {size:.0f} MiB, made in {time.perf_counter() - start:.0f} s")
        found = measure(address, Path(name), options)
    print(show(found))
    if options.out:
        table = {"schema": "perfgate-trt/benchmark-history/v1", "launches": rows, "seconds": found}
        options.out.write_text(json.dumps(table, indent=2) + "\n")
    return 0


OPTIONS = [
    common.option("--nights", type=int, default=400),
    common.option("--cases", type=int, default=500),
    common.option("--launches", type=int, default=5),
    common.option("--samples", type=int, default=500, help="Samples a launch of the imported run."),
    common.option("--repeats", type=int, default=5),
    common.option("--out", type=Path, help="Write the figures as JSON."),
]

if __name__ == "__main__":
    sys.exit(common.main(run, __doc__, OPTIONS))
