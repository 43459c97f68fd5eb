"""The simulated server against one played by hand, and against a real one recorded under open-loop arrivals.

The recording is `tests/benchmarks/data/gpu/open-loop-h100.json`; which script made it is said in
`tests/benchmarks/README.md`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from perfgate.value.queueing import Batcher, Lanes, Service, arrivals, p99_by_rate, replay, simulate

RECORDED: dict[str, Any] = json.loads(
    (Path(__file__).resolve().parents[1] / "benchmarks/data/gpu/open-loop-h100.json").read_text()
)
NEVER = 1e12
Floats = NDArray[np.float64]


def latencies(due: Sequence[float] | Floats, table: Floats, max_wait_s: float = 0.0) -> Floats:
    """The simulated latency of each request; NaN for the first tenth, which only warms the queue up."""
    cap, count = table.shape[1], len(due)
    trace = np.concatenate([due, np.full(cap + 1, NEVER)])[None, :]
    lanes = Lanes(seed=np.zeros(1, np.int64), rate=np.ones(1), cap=np.array([cap]), count=np.array([count]))
    _, kept = simulate(trace, table, lanes, Batcher(NEVER, max_wait_s), keep=True)
    assert np.isnan(kept[0, count:]).all(), "nobody is served who did not come"
    return kept[0, :count]


def ends(due: Sequence[float], cap: int, max_wait_s: float, taken_s: Sequence[float] = (0.0,)) -> list[float]:
    """When each request was done, with the seconds that one batch after another takes."""
    table = np.tile(np.asarray(taken_s), (1, cap, 1))
    found: list[float] = (latencies(due, table, max_wait_s) + np.asarray(due)).tolist()
    return found


@pytest.mark.parametrize(
    ("free", "expected"),
    [
        # Two wait, the batch of three is not full, the oldest has waited 0.1 s of 0.5 s: not yet.
        (1.1, [1.5, 1.5, 3.5, 3.5, 8.5]),
        (1.6, [1.6, 1.6, 3.5, 3.5, 8.5]),  # its time is up: what waits goes
        (2.5, [2.5, 2.5, 3.5, 3.5, 8.5]),  # the third is not due yet
        (3.5, [3.5, 3.5, 3.5, 3.6, 8.5]),
        (9.0, [9.0, 9.0, 9.0, 9.0, 9.0]),  # three at once, the cap, then two
    ],
)
def test_the_batcher(free: float, expected: list[float]) -> None:
    """A request at 0 goes alone when its 0.5 s are over, and holds the server until it is `free`."""
    taken_s = [free - 0.5, 0, 0, 0, 0, 0]
    assert ends([0.0, 1.0, 1.1, 3.0, 3.1, 8.0], 3, 0.5, taken_s)[1:] == pytest.approx(expected)


def test_never_more_than_the_cap_go_together() -> None:
    """Five wait when the server is free; three go, and two have to wait for them."""
    found = ends([0.0, 1.0, 1.1, 3.0, 3.1, 8.0], 3, 0.5, [8.5, 1.0, 2.0, 0, 0, 0])
    assert found[1:] == pytest.approx([10.0, 10.0, 10.0, 12.0, 12.0])


def test_a_full_batch_does_not_wait() -> None:
    assert ends([1.0, 1.1, 1.2], 3, 60.0) == pytest.approx([1.2, 1.2, 1.2])
    assert ends([1.1], 3, 60.0) == pytest.approx([61.1]), "the last one waits its time out"


def test_everything_that_was_due_is_served_once_and_in_order() -> None:
    due = arrivals(1, 300)[0] / 4000
    table = replay(Service({size: [np.full(20, 1e-3)] for size in (1, 8)}), 1, 8)
    found = latencies(due, table)
    done = (found + due)[30 + 8 :]  # a batch that began in the warm-up is not counted
    assert not np.isnan(done).any() and (np.diff(done) >= 0).all()
    assert (found[30 + 8 :] >= 1e-3 - 1e-12).all(), "nothing is served before it is due"
    batches = np.unique(done.round(9), return_counts=True)[1]
    assert 1 < batches.max() <= 8


def test_arrivals_are_made_again_from_their_seed() -> None:
    first, second = arrivals(2, 5000)
    assert np.array_equal(first, arrivals(1, 5000)[0]) and not np.array_equal(first, second)
    assert second[-1] == pytest.approx(5000, rel=0.1)


def played(due: Floats, cap: int, taken_s: float) -> Floats:
    """Latencies of a server whose batches all take the same time, one batch after another."""
    done: list[float] = []
    free, first = 0.0, 0
    while first < len(due):
        start = max(free, float(due[first]))
        size = int((due[first : first + cap] <= start).sum())
        free = start + taken_s
        done += [free] * size
        first += size
    return np.asarray(done) - due


def test_the_simulation_of_an_ideal_server_is_the_server() -> None:
    """A server whose batches take exactly 10 ms, played by hand: measured and simulated P99 agree."""
    service = Service({1: [np.full(20, 0.010)], 4: [np.full(20, 0.010)]}, padded=True)
    due = np.cumsum(np.random.default_rng(1).exponential(scale=1 / 150, size=2000))
    seen, told = played(due, 4, 0.010), latencies(due, replay(service, 1, 4))
    counted = ~np.isnan(told)
    assert told[counted] == pytest.approx(seen[counted], abs=1e-9) and counted.sum() > 1790
    measured = float(np.percentile(seen[200:], 99))
    assert np.nanpercentile(told, 99) / measured == pytest.approx(1, abs=1e-6)
    ((rate, other_traces),) = p99_by_rate(service, Batcher(limit_s=1.0), 4, rates=[150])
    assert rate == 150 and measured == pytest.approx(other_traces, rel=0.2)


def recorded_service(*, padded: bool) -> Service:
    """The medians of the recorded service times: its samples were not kept."""
    medians = {int(size): one["median_ms"] / 1e3 for size, one in RECORDED["service"].items()}
    return Service({size: [np.array([seconds])] for size, seconds in medians.items()}, padded=padded)


def test_the_recorded_rates_are_shares_of_the_bound() -> None:
    bound = recorded_service(padded=True).bound_per_s()
    shares = [row["rate_per_s"] / bound for row in RECORDED["rates"]]
    assert shares == pytest.approx([0.3, 0.5, 0.7, 0.85, 0.95])
    assert all(row["complete"] for row in RECORDED["rates"]), "the server kept up"


@pytest.mark.parametrize("padded", [True, False])
def test_the_simulation_says_again_what_it_said_of_the_real_server(padded: bool) -> None:
    """Up to 70 % of the bound constant service times do; beyond, the tail is that of the samples."""
    rows = [row for row in RECORDED["rates"] if row["share"] < 0.8]
    said_ms = [row["p99_other_traces_ms"][1] if padded else row["p99_interpolated_ms"] for row in rows]
    found = p99_by_rate(
        recorded_service(padded=padded), Batcher(limit_s=1.0), 32, rates=[row["rate_per_s"] for row in rows]
    )
    assert [p99 * 1e3 for _, p99 in found] == pytest.approx(said_ms, rel=0.1)


def test_the_published_ratios_are_the_recorded_ones() -> None:
    """Simulated over measured P99, as README.md states them."""
    rows = RECORDED["rates"]
    assert [round(row["p99_simulated_ms"] / row["p99_measured_ms"], 2) for row in rows] == [
        0.94, 0.79, 0.92, 1.01, 1.08,
    ]  # fmt: skip
    assert all(0.25 < row["p99_interpolated_ms"] / row["p99_measured_ms"] < 0.55 for row in rows)
    slower = [one["under_load_ms"] / one["median_ms"] for one in RECORDED["service"].values()]
    assert slower == pytest.approx([1, 1, 1], abs=0.05), "the engine is as quick under load as alone"
