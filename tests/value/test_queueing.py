"""The simulation against queueing theory, and what a dynamic batcher does by hand."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from numpy.typing import NDArray

from perfgate.value.queueing import (
    Batcher,
    Lanes,
    Service,
    arrivals,
    p99_by_rate,
    replay,
    simulate,
    sustained,
)

SEEDS, COUNT = 20, 12_000
FOREVER = Batcher(limit_s=1e9)


def flat(*sizes_s: tuple[int, float]) -> Service:
    """Batches that always take the same time."""
    return Service({size: [np.full(50, seconds)] for size, seconds in sizes_s})


def latencies(table: NDArray[np.float64], rate: float, batcher: Batcher = FOREVER) -> NDArray[np.float64]:
    cap = table.shape[1]
    lanes = Lanes(
        seed=np.arange(SEEDS),
        rate=np.full(SEEDS, rate),
        cap=np.full(SEEDS, cap),
        count=np.full(SEEDS, COUNT),
    )
    _, kept = simulate(arrivals(SEEDS, COUNT + cap + 1), table, lanes, batcher, keep=True)
    return kept[~np.isnan(kept)]


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_the_mean_wait_of_m_d_1(load: float) -> None:
    """Pollaczek-Khinchine: rho / (2 (1 - rho)) service times."""
    seen = latencies(replay(flat((1, 1.0)), SEEDS, 1), load).mean() - 1
    assert seen == pytest.approx(load / (2 * (1 - load)), rel=0.05)


@pytest.mark.parametrize("load", [0.5, 0.7])
def test_the_sojourn_of_m_m_1(load: float) -> None:
    """Exponential with rate mu - lambda: its mean, and its P99 = ln(100) / (mu - lambda)."""
    table = np.random.default_rng(5).exponential(size=(SEEDS, 1, 2 * COUNT))
    seen = latencies(table, load)
    assert seen.mean() == pytest.approx(1 / (1 - load), rel=0.05)
    assert np.percentile(seen, 99) == pytest.approx(math.log(100) / (1 - load), rel=0.08)


def test_capacity_of_m_d_1_lies_where_its_tail_meets_the_limit() -> None:
    """Below the found rate the simulated P99 is within the limit, above it is not."""
    service, batcher = flat((1, 1e-3)), Batcher(limit_s=5e-3)
    found = sustained(service, batcher)
    below, above = p99_by_rate(service, batcher, 1, rates=[found.per_s * 0.97, found.per_s * 1.03])
    assert below[1] < 5e-3 < above[1]
    assert found.low <= found.per_s <= found.high < 1000
    assert found.seeds >= 20


def test_a_batcher_by_hand() -> None:
    """Arrivals at 1, 2, 3, 10 s; a batch of at most 2 takes 4 s: (1), then (2, 3), then (10)."""
    trace = np.array([[1.0, 2.0, 3.0, 10.0, 1e9, 1e9, 1e9]])
    table = np.full((1, 2, 1), 4.0)
    lanes = Lanes(seed=np.array([0]), rate=np.array([1.0]), cap=np.array([2]), count=np.array([4]))
    late, kept = simulate(trace, table, lanes, Batcher(limit_s=6.5), keep=True)
    assert kept[0, :4].tolist() == [4.0, 7.0, 6.0, 4.0]
    assert late[0] == 0.25


def test_a_batcher_waits_for_company_and_no_longer() -> None:
    """The second arrives within the wait and fills the batch; the third goes alone after its wait."""
    trace = np.array([[1.0, 1.5, 10.0, 1e9, 1e9]])
    table = np.full((1, 2, 1), 1.0)
    lanes = Lanes(seed=np.array([0]), rate=np.array([1.0]), cap=np.array([2]), count=np.array([3]))
    _, kept = simulate(trace, table, lanes, Batcher(limit_s=9, max_wait_s=2.0), keep=True)
    assert kept[0, :3].tolist() == [1.5, 1.0, 3.0]


def test_between_measured_batches_times_are_interpolated_and_below_them_padded() -> None:
    table = replay(flat((2, 10.0), (4, 20.0), (8, 40.0)), 1, 8)[0, :, 0]
    assert table.tolist() == [10.0, 10.0, 15.0, 20.0, 25.0, 30.0, 35.0, 40.0]


def test_a_cuda_graph_is_padded_to_the_next_measured_batch() -> None:
    graph = Service(flat((2, 10.0), (4, 20.0), (8, 40.0)).times_s, padded=True)
    assert replay(graph, 1, 8)[0, :, 0].tolist() == [10.0, 10.0, 20.0, 20.0, 40.0, 40.0, 40.0, 40.0]
    assert replay(graph, 1, 4)[0, :, 0].tolist() == [10.0, 10.0, 20.0, 20.0]


def test_a_seed_replays_one_launch_whole() -> None:
    launches = [np.arange(100.0) + 1000 * number for number in range(3)]
    table = replay(Service({1: launches}), 6, 1)[:, 0, :]
    for seed in range(6):
        assert set(table[seed] // 1000) == {seed % 3}
        steps = np.diff(table[seed])
        assert set(steps) == {1.0, -99.0}, "in the samples' own order, from the start again at the end"


def test_a_limit_below_the_service_time_is_met_by_no_load() -> None:
    found = sustained(flat((1, 1e-3), (8, 2e-3)), Batcher(limit_s=0.5e-3))
    assert (found.per_s, found.low, found.high) == (0, 0, 0)


def test_capacity_never_exceeds_full_batches_back_to_back() -> None:
    service = flat((1, 1e-3), (8, 2e-3), (32, 5e-3))
    loose = sustained(service, Batcher(limit_s=0.1))
    tight = sustained(service, Batcher(limit_s=7e-3))
    assert 0 < tight.per_s < loose.per_s <= service.bound_per_s() == pytest.approx(6400)
    assert loose.per_s > 0.97 * 6400


def test_both_stacks_meet_the_same_arrivals_and_two_runs_agree() -> None:
    assert np.array_equal(arrivals(3, 50), arrivals(3, 50))
    service, batcher = flat((1, 1e-3), (8, 2e-3)), Batcher(limit_s=10e-3)
    assert sustained(service, batcher) == sustained(service, batcher)


def test_it_is_quick() -> None:
    """An H200's ResNet-50 at a loose limit, the slowest kind: seconds of processor time, not minutes."""
    service = flat((1, 0.45e-3), (8, 0.54e-3), (32, 1.32e-3))
    began = time.process_time()
    sustained(service, Batcher(limit_s=0.08))
    assert time.process_time() - began < 20
