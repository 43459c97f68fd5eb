"""The process of `open_loop.py`: one engine at several batch sizes, and a dynamic batcher in front of it."""

from __future__ import annotations

import contextlib
import gc
import time
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
from levels_child import inputs_of

from perfgate.engine import get_backend
from perfgate.engine.gpu import choose
from perfgate.records import Case, Record
from perfgate.util.process import serve

_SLEEP_S = 0.002  # a gap longer than this is slept through but for its last part
_OVERRUN = 1.5  # a rate that the server cannot keep up with is given up after so many of its seconds
_MEASURING = 0.2  # the share of all seconds that goes to service times


class OpenLoopRequest(Record):
    """`shares` are rates as shares of full batches back to back; `seconds` is for everything."""

    engine: str
    cases: tuple[Case, ...]
    folder: str
    device: str
    shares: tuple[float, ...]
    max_wait_s: float
    seconds: float
    seed: int


class Load(Record):
    """One rate: `done_s` and `sizes` are a batch's, in order. `planned` requests were to come, those of
    `done_s` were served. `behind_s` is the host's mean delay before a batch that could start."""

    rate_per_s: float
    planned: int
    done_s: tuple[float, ...]
    sizes: tuple[int, ...]
    taken_s: tuple[float, ...]
    behind_s: float


class OpenLoopReply(Record):
    """Service times by batch size, measured alone, and the loads."""

    times_s: dict[int, tuple[float, ...]]
    loads: tuple[Load, ...]


def due_times(rate_per_s: float, count: int, seed: int) -> list[float]:
    """Poisson arrivals in seconds; the parent makes the same again."""
    gaps = np.random.default_rng(seed).exponential(scale=1 / rate_per_s, size=count)
    found: list[float] = np.cumsum(gaps).tolist()
    return found


def batch_of(
    waiting: Sequence[float], first: int, cap: int, now: float, max_wait_s: float
) -> tuple[int, float]:
    """How many requests to take now (0: not yet), and when a batch may start at the earliest."""
    full = waiting[first + cap - 1] if first + cap <= len(waiting) else float("inf")
    start = min(waiting[first] + max_wait_s, full)
    if now < start:
        return 0, start
    return bisect_right(waiting, now, first, min(first + cap, len(waiting))) - first, start


def drive(
    due: Sequence[float], infer: Sequence[Callable[[], None]], max_wait_s: float, limit_s: float
) -> Load:
    """Serve the arrivals. `infer[k - 1]` runs a batch of k; latency counts from the time a request was due,
    whatever the server was doing then."""
    done, sizes, taken, behind = [], [], [], 0.0
    clock, cap, first, free = time.perf_counter, len(infer), 0, 0.0
    began = clock()
    while first < len(due):
        now = clock() - began
        if now > limit_s:
            break
        size, start = batch_of(due, first, cap, now, max_wait_s)
        if not size:
            if start - now > _SLEEP_S:
                time.sleep(start - now - _SLEEP_S / 2)
            continue
        infer[size - 1]()
        end = clock() - began
        behind += now - max(free, start)
        done.append(end)
        sizes.append(size)
        taken.append(end - now)
        first, free = first + size, end
    return Load(
        rate_per_s=0.0,
        planned=len(due),
        done_s=tuple(done),
        sizes=tuple(sizes),
        taken_s=tuple(taken),
        behind_s=behind / max(1, len(done)),
    )


def alone(infer: Mapping[int, Callable[[], None]], seconds: float) -> dict[int, tuple[float, ...]]:
    """Service times of every size, back to back, after a warm-up of a fifth of its share."""
    found = {}
    for size, run in infer.items():
        share = seconds / len(infer)
        began = time.perf_counter()
        while time.perf_counter() - began < share / 5:
            run()
        taken: list[float] = []
        while time.perf_counter() - began < share or len(taken) < 20:
            before = time.perf_counter()
            run()
            taken.append(time.perf_counter() - before)
        found[size] = tuple(taken[:20_000])
    return found


def work(request: OpenLoopRequest) -> OpenLoopReply:
    """Load the engine once a size, time each, then serve every rate."""
    backend = get_backend(request.cases[0].backend, request.device)
    choose(request.device)
    with contextlib.ExitStack() as stack:
        infer: dict[int, Callable[[], None]] = {}
        for case in request.cases:
            runner = stack.enter_context(backend.load(Path(request.engine), case))
            runner.bind(inputs_of(runner, case, Path(request.folder)))
            infer[case.items] = runner.infer
        gc.disable()
        times_s = alone(infer, request.seconds * _MEASURING)
        cap = max(infer)
        # A batch between two sizes is padded to the next one, as a server with fixed shapes does it.
        table = [infer[min(size for size in infer if size >= wanted)] for wanted in range(1, cap + 1)]
        bound = max(size / float(np.median(taken)) for size, taken in times_s.items())
        slot_s = request.seconds * (1 - _MEASURING) / len(request.shares)
        loads = []
        for number, share in enumerate(request.shares):
            rate = share * bound
            due = due_times(rate, max(200, int(rate * slot_s)), request.seed + number)
            load = drive(due, table, request.max_wait_s, max(slot_s, due[-1]) * _OVERRUN)
            loads.append(msgspec.structs.replace(load, rate_per_s=rate))
        infer.clear()  # they hold CUDA objects, which must go before the context does
        table.clear()
    return OpenLoopReply(times_s=times_s, loads=tuple(loads))


if __name__ == "__main__":
    serve(OpenLoopRequest, work)
