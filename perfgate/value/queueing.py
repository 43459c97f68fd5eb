"""What one server sustains: open-loop Poisson arrivals into a dynamic batcher, replaying measured launches.

The server runs one batch at a time. When it is free it takes what waits, at most `cap` requests; while fewer
wait it holds the oldest one back for `max_wait_s` at most (the queue delay of a dynamic batcher). A batch of
a size that was not measured takes the time between its measured neighbours; where the service is a CUDA
graph, which holds one shape, it is padded to the next that was, and so is any below the least. A seed replays
one launch of each size, in the order of its samples, so that the clusters of launches stay whole. Many seeds
and rates are simulated side by side, one step a batch.

Open loop and P99 at a rate are as in MLPerf Inference's server scenario; the tests hold the simulation
against Pollaczek-Khinchine's mean wait (M/D/1) and the exponential sojourn of M/M/1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SEEDS = 20
LATE_SHARE = 0.01  # of the requests may be later than a P99 limit
_REQUESTS = (2_000, 20_000)
_HORIZONS = (8, 40, 40)  # limits, pass by pass: a queue that grows must have the time to be late
_WARM = 0.1
_REPLAYED = 512
_RATES = 6  # tried inside the bracket, pass by pass
_CAPS = 3
_CURVE = (0.1, 0.25, 0.4, 0.55, 0.7, 0.8, 0.9, 0.95, 0.98)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Service:
    """The seconds that batches take: for each measured size its launches, each an array of samples. `padded`
    is a service that runs the measured sizes only."""

    times_s: Mapping[int, Sequence[Floats]]
    padded: bool = False

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(sorted(self.times_s))

    def median_s(self, size: int) -> float:
        """The median over launches of a launch's median, at a measured size."""
        return float(np.median([np.median(launch) for launch in self.times_s[size]]))

    def bound_per_s(self) -> float:
        """Requests a second of back-to-back full batches, at the best size."""
        return max(size / self.median_s(size) for size in self.sizes)


@dataclass(frozen=True)
class Batcher:
    """The limit on P99, and how long a request may be held back for company."""

    limit_s: float
    max_wait_s: float = 0.0


@dataclass(frozen=True)
class Sustained:
    """Requests a second at the limit: the median of the seeds, and their 5th and 95th percentile. 0 where the
    limit is not met at any load. `cap` is the largest batch that served it best."""

    per_s: float
    low: float
    high: float
    cap: int
    seeds: int


@dataclass(frozen=True)
class Lanes:
    """Simulations side by side, an entry each: the seed's row, requests a second, largest batch, requests."""

    seed: Ints
    rate: Floats
    cap: Ints
    count: Ints


def arrivals(seeds: int, count: int) -> Floats:
    """Poisson arrivals at one a second, a row a seed: the same for every stack."""
    gaps = np.stack([np.random.default_rng(seed).exponential(size=count) for seed in range(seeds)])
    return np.cumsum(gaps, axis=1)


def replay(service: Service, seeds: int, cap: int) -> Floats:
    """Seconds by seed, batch size - 1 and turn: one launch of each size, from a random sample on."""
    sizes = [size for size in service.sizes if size <= cap] or [service.sizes[0]]
    table = np.empty((seeds, cap, _REPLAYED))
    for seed in range(seeds):
        draw = np.random.default_rng([seed, 1])
        rows = []
        for size in sizes:
            launches = service.times_s[size]
            launch = np.asarray(launches[seed % len(launches)])
            first = int(draw.integers(len(launch)))
            rows.append(launch[(first + np.arange(_REPLAYED)) % len(launch)])
        wanted = np.arange(1, cap + 1)
        place = np.clip(np.searchsorted(sizes, wanted), 0, len(sizes) - 1)
        below = np.maximum(place - 1, 0)
        known = np.asarray(sizes)
        span = np.maximum(known[place] - known[below], 1)
        share = np.where(place == below, 0.0, (wanted - known[below]) / span)
        whole = (wanted <= known[0]) | service.padded
        share = np.where(whole, 1.0, np.clip(share, 0.0, 1.0))[:, None]
        taken = np.stack(rows)
        table[seed] = (1 - share) * taken[below] + share * taken[place]
    return table


def simulate(
    trace: Floats, table: Floats, lanes: Lanes, batcher: Batcher, *, keep: bool = False
) -> tuple[Floats, Floats]:
    """The share of late requests by lane, and where `keep` is set every latency (a row a lane, NaN where the
    lane had fewer). The first tenth of a lane's requests warms the queue up and is not counted."""
    total = len(lanes.seed)
    width = int(lanes.cap.max())
    kept = np.full((total, int(lanes.count.max()) + width), np.nan) if keep else np.empty((0, 0))
    place, free, late = np.zeros(total, np.int64), np.zeros(total), np.zeros(total)
    warm = (lanes.count * _WARM).astype(np.int64)
    column = np.arange(width)
    live = np.arange(total)
    turn = 0
    while live.size:
        seed, rate, cap, at = lanes.seed[live], lanes.rate[live], lanes.cap[live], place[live]
        window = trace[seed[:, None], at[:, None] + column] / rate[:, None]
        full = window[np.arange(live.size), cap - 1]
        start = np.maximum(free[live], np.minimum(window[:, 0] + batcher.max_wait_s, full))
        size = np.minimum(cap, (window <= start[:, None]).sum(axis=1))
        done = start + table[seed, size - 1, turn % table.shape[2]]
        taken = column < size[:, None]
        latency = done[:, None] - window
        counted = at >= warm[live]
        late[live] += ((latency > batcher.limit_s) & taken).sum(axis=1) * counted
        if keep:
            rows, columns = np.nonzero(taken & counted[:, None])
            kept[live[rows], at[rows] + columns] = latency[rows, columns]
        free[live] = done
        place[live] = at + size
        live = live[place[live] < lanes.count[live]]
        turn += 1
    return late / np.maximum(lanes.count - warm, 1), kept


def sustained(service: Service, batcher: Batcher, *, seeds: int = SEEDS) -> Sustained:
    """The greatest rate at which at most one request in a hundred is late, by bisection for every seed.

    No rate beyond back-to-back full batches is tried: a queue that grows forever meets a limit for a while.
    """
    fit = [size for size in service.sizes if service.median_s(size) <= batcher.limit_s]
    caps = fit[-_CAPS:] or [service.sizes[0]]
    trace = arrivals(seeds, _REQUESTS[1] + max(caps) + 1)
    best: Sustained | None = None
    for cap in sorted(caps, key=lambda cap: cap / service.median_s(cap), reverse=True):
        if best is not None and cap / service.median_s(cap) <= best.per_s:
            break  # not even its offline bound would be more
        table = replay(service, seeds, cap)
        low, high = np.zeros(seeds), cap / np.median(table[:, cap - 1], axis=1)
        for horizon in _HORIZONS:
            rates = low[:, None] + (high - low)[:, None] * np.arange(1, _RATES + 1) / (_RATES + 1)
            late, _ = simulate(trace, table, _lanes(rates, cap, batcher, horizon), batcher)
            low, high = _bracket(rates, late.reshape(rates.shape), low, high, margin=horizon == _HORIZONS[0])
        found = Sustained(
            per_s=float(np.median(low)),
            low=float(np.percentile(low, 5)),
            high=float(np.percentile(low, 95)),
            cap=cap,
            seeds=seeds,
        )
        if best is None or found.per_s > best.per_s:
            best = found
    assert best is not None
    return best


def _bracket(
    rates: Floats, late: Floats, low: Floats, high: Floats, *, margin: bool
) -> tuple[Floats, Floats]:
    """Every seed's last rate before the first that is late, and that one. With a `margin` the bracket begins
    one rate lower: a short horizon may have been too kind."""
    met = np.cumprod(late <= LATE_SHARE, axis=1).sum(axis=1)
    edges = np.concatenate([low[:, None], rates, high[:, None]], axis=1)
    row = np.arange(len(rates))
    return edges[row, np.maximum(met - margin, 0)], edges[row, met + 1]


def _lanes(rates: Floats, cap: int, batcher: Batcher, horizon: int) -> Lanes:
    """One lane a seed (a row of `rates`) and rate."""
    flat = rates.ravel()
    count = np.clip(flat * batcher.limit_s * horizon, *_REQUESTS).astype(np.int64)
    seed = np.repeat(np.arange(rates.shape[0]), rates.shape[1])
    return Lanes(seed=seed, rate=flat, cap=np.full(flat.size, cap), count=count)


def p99_by_rate(
    service: Service, batcher: Batcher, cap: int, *, rates: Sequence[float] = (), seeds: int = SEEDS
) -> list[tuple[float, float]]:
    """(requests a second, P99 in seconds) at `rates`, or at shares of the offline bound: seeds' medians."""
    nearest = max((size for size in service.sizes if size <= cap), default=service.sizes[0])
    wanted = rates or [share * cap / service.median_s(nearest) for share in _CURVE]
    trace = arrivals(seeds, _REQUESTS[1] + cap + 1)
    table = replay(service, seeds, cap)
    lanes = _lanes(np.tile(np.asarray(wanted), (seeds, 1)), cap, batcher, _HORIZONS[-1])
    _, kept = simulate(trace, table, lanes, batcher, keep=True)
    tails = np.nanpercentile(kept, 99, axis=1).reshape(seeds, len(wanted))
    return [(float(rate), float(p99)) for rate, p99 in zip(wanted, np.median(tails, axis=0), strict=True)]
