"""The real server of `tests/benchmarks/open_loop.py`: its batcher and sums by hand, a run on the CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import open_loop
import pytest
from open_loop_child import Load, OpenLoopReply, batch_of, drive, due_times

from perfgate.util.process import package_environment

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("now", "taken"),
    [
        (1.1, (0, 1.5)),  # two wait, the batch of three is not full, the oldest has waited 0.1 s of 0.5 s
        (1.6, (2, 1.5)),  # its time is up: what waits goes
        (2.5, (2, 1.5)),  # the third is not due yet
        (3.5, (3, 1.5)),
        (9.0, (3, 1.5)),  # never more than the cap
    ],
)
def test_the_batcher(now: float, taken: tuple[int, float]) -> None:
    assert batch_of([1.0, 1.1, 3.0, 3.1, 8.0], 0, 3, now, 0.5) == taken


def test_a_full_batch_does_not_wait() -> None:
    assert batch_of([1.0, 1.1, 1.2], 0, 3, 1.2, 60.0) == (3, 1.2)
    assert batch_of([1.0, 1.1], 1, 3, 1.2, 60.0) == (0, 61.1), "the last ones wait their time out"


def test_everything_that_was_due_is_served_once_and_in_order() -> None:
    served: list[int] = []
    due = due_times(4000, 300, seed=3)
    load = drive(due, [lambda k=k: served.append(k) for k in range(1, 9)], 0.0, 60.0)  # type: ignore[misc]
    assert sum(load.sizes) == 300 and list(load.sizes) == served
    assert list(load.done_s) == sorted(load.done_s)
    latencies = np.repeat(load.done_s, load.sizes) - np.asarray(due)
    assert (latencies > 0).all(), "nothing is served before it is due"


def test_a_server_that_cannot_keep_up_is_cut() -> None:
    load = drive([0.0] * 5, [lambda: None], 0.0, limit_s=-1.0)
    assert load.sizes == () and load.planned == 5


def test_arrivals_are_made_again_from_their_seed() -> None:
    assert due_times(100, 50, 7) == due_times(100, 50, 7) != due_times(100, 50, 8)
    assert due_times(100, 5000, 7)[-1] == pytest.approx(50, rel=0.1)


def test_the_simulation_of_an_ideal_server_is_the_server() -> None:
    """A server whose batches take exactly 10 ms, played by hand: measured and simulated P99 agree."""
    due = due_times(150, 2000, seed=1)
    done: list[float] = []
    sizes: list[int] = []
    free, first = 0.0, 0
    while first < len(due):
        start = max(free, due[first])
        size = sum(1 for one in due[first : first + 4] if one <= start)
        free = start + 0.010
        done.append(free)
        sizes.append(size)
        first += size
    load = Load(
        rate_per_s=150,
        planned=2000,
        done_s=tuple(done),
        sizes=tuple(sizes),
        taken_s=(0.010,) * len(done),
        behind_s=0.0,
    )
    reply = OpenLoopReply(times_s={1: (0.010,) * 20, 4: (0.010,) * 20}, loads=(load,))
    (row,) = open_loop.compare(reply, 0.0, seed=1)
    assert row["ratio"] == pytest.approx(1, abs=1e-6)
    assert row["complete"] and row["requests"] == 2000
    low, _, high = row["p99_other_traces_ms"]
    assert low * 0.8 < row["p99_measured_ms"] < high * 1.2
    assert open_loop.under_load_ms(reply, 4) == pytest.approx(10)


def test_a_whole_run_on_the_cpu(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    out = tmp_path / "open-loop.json"
    done = subprocess.run(
        [
            sys.executable, str(ROOT / "tests/benchmarks/open_loop.py"),
            "--backend", "onnxruntime", "--device", "cpu", "--model", str(ROOT / "models/tinyconv.toml"),
            "--precision", "fp32", "--sizes", "1", "4", "--shares", "0.3", "0.6", "--seconds", "2",
            "--out", str(out),
        ],
        capture_output=True,
        text=True,
        timeout=200,
        env=package_environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    body = json.loads(out.read_text())
    assert [round(row["share"], 1) for row in body["rates"]] == [0.3, 0.6]
    assert all(row["p99_measured_ms"] > 0 and row["p99_simulated_ms"] > 0 for row in body["rates"])
    assert "simulated" in done.stdout and "under load" in done.stdout
