"""The timed loop of everything that queues work on a GPU: TensorRT's streams, and PyTorch's."""

from __future__ import annotations

import collections
import gc
import math
import time
import typing
from collections.abc import Sequence

from perfgate.engine.interface import Samples
from perfgate.errors import CaseError
from perfgate.records import Protocol

_PARTS = ("h2d", "gpu_compute", "d2h")


class Query(typing.Protocol):
    """A place for one query in flight. `enqueue_ns` is the host's time to enqueue the last one."""

    enqueue_ns: int

    def issue(self) -> None:
        """Put one query on the stream."""

    def wait(self) -> None:
        """Return when the query is complete."""

    def latency_ns(self) -> int:
        """From its begin event to its end event."""

    def parts_ns(self) -> tuple[int, int, int]:
        """Copy in, execution, copy out; asked for with transfers only."""


def wait_for(event: typing.Any, *, spin: bool) -> None:
    """Return when a CUDA event is complete: by polling (`spin`), or asleep (`block`)."""
    if not spin:
        event.synchronize()
        return
    done = event.query
    while not done():
        pass


def nanoseconds(elapsed_ms: float) -> int:
    """CUDA's time between two events, at least one nanosecond. Raises `CaseError` for none at all."""
    if not math.isfinite(elapsed_ms):
        raise CaseError(f"CUDA gave an elapsed time of {elapsed_ms} ms")
    return max(1, round(elapsed_ms * 1e6))


def queued_samples(ring: Sequence[Query], protocol: Protocol, *, transfers: bool) -> Samples:
    """Keep every place of the ring in flight and take samples, oldest query first.

    The first query of each place finds an idle device and is not recorded. `wall_ns` spans the recorded
    queries' completions on the host's clock, so that samples over wall time is the throughput. `other_ns`
    has `enqueue` and, with transfers, `h2d`, `gpu_compute` and `d2h`. All in nanoseconds.
    """
    collecting = gc.isenabled()
    gc.disable()  # a collection in the middle of a query would be Python's time, not the model's
    try:
        return _loop(ring, protocol, transfers=transfers)
    finally:
        if collecting:
            gc.enable()


def _loop(ring: Sequence[Query], protocol: Protocol, *, transfers: bool) -> Samples:
    clock = time.perf_counter_ns
    samples: list[int] = []
    series: dict[str, list[int]] = {name: [] for name in ("enqueue", *(_PARTS if transfers else ()))}
    waiting = collections.deque(ring)
    for slot in ring:
        slot.issue()
    for _ in ring:  # each slot once without being recorded, and issued again at once
        waiting[0].wait()
        waiting[0].issue()
        waiting.rotate(-1)
    started = now = clock()
    done = 0
    least, most = protocol.min_samples, protocol.max_samples
    while (now - started < protocol.duration_ns or done < least) and done < most:
        slot = waiting[0]
        slot.wait()
        now = clock()
        samples.append(slot.latency_ns())
        series["enqueue"].append(slot.enqueue_ns)
        if transfers:
            for name, part in zip(_PARTS, slot.parts_ns(), strict=True):
                series[name].append(part)
        slot.issue()
        waiting.rotate(-1)
        done += 1
    for slot in ring:  # still in flight: nothing may be freed under them
        slot.wait()
    return Samples(
        samples_ns=tuple(samples),
        wall_ns=max(1, now - started),
        other_ns={name: tuple(values) for name, values in series.items()},
    )
