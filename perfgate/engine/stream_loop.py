"""The timed loop of everything that queues work on a GPU: TensorRT's streams, and PyTorch's."""

from __future__ import annotations

import collections
import math
import time
import typing
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from perfgate.engine.interface import Samples, uncollected
from perfgate.errors import CaseError
from perfgate.records import Mode, Protocol

SLOTS = 2  # a stream: one query runs while the next one is enqueued
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


class Lane(ABC):
    """A CUDA stream with what a query does on it. `launch` enqueues one execution; False when refused."""

    stream: Any
    launch: Callable[[], bool]

    @abstractmethod
    def event(self) -> Any:
        """A CUDA event that takes the time, and that the host waits for as the mode has it."""

    @abstractmethod
    def elapsed_ms(self, begin: Any, end: Any) -> float:
        """CUDA's time between two events."""

    @abstractmethod
    def send(self) -> None:
        """Enqueue the copies in."""

    @abstractmethod
    def fetch(self) -> None:
        """Enqueue the copies out."""

    def refused(self) -> CaseError:
        """The error for a launch that was refused."""
        return CaseError("the execution was refused")


class Slot(Query):
    """One query in flight on a lane, between four events. `enqueue_ns` is the host's time to enqueue the
    execution."""

    def __init__(self, lane: Lane, mode: Mode) -> None:
        self._lane = lane
        self._spin, self._copies = mode.wait == "spin", mode.transfers
        self._begin, self._copied, self._computed, self._end = (lane.event() for _ in range(4))
        self.enqueue_ns = 0

    def issue(self) -> None:
        """Put one query on the stream. Raises `CaseError` when it is refused."""
        lane, stream = self._lane, self._lane.stream
        self._begin.record(stream)
        if self._copies:
            lane.send()
            self._copied.record(stream)
        before = time.perf_counter_ns()
        accepted = lane.launch()
        self.enqueue_ns = time.perf_counter_ns() - before
        if not accepted:
            raise lane.refused()
        if self._copies:
            self._computed.record(stream)
            lane.fetch()
        self._end.record(stream)

    def wait(self) -> None:
        """Return when the query is complete: by polling (`spin`), or asleep (`block`)."""
        if not self._spin:
            self._end.synchronize()
            return
        done = self._end.query
        while not done():
            pass

    def latency_ns(self) -> int:
        return nanoseconds(self._lane.elapsed_ms(self._begin, self._end))

    def parts_ns(self) -> tuple[int, int, int]:
        begin, copied, computed, end = self._begin, self._copied, self._computed, self._end
        pairs = (begin, copied), (copied, computed), (computed, end)
        h2d, execution, d2h = (nanoseconds(self._lane.elapsed_ms(*pair)) for pair in pairs)
        return h2d, execution, d2h


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
    with uncollected():
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
        least, most = protocol.min_samples, protocol.max_samples
        while (now - started < protocol.duration_ns or len(samples) < least) and len(samples) < most:
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
        for slot in ring:  # still in flight: nothing may be freed under them
            slot.wait()
    return Samples(
        samples_ns=tuple(samples),
        wall_ns=max(1, now - started),
        other_ns={name: tuple(values) for name, values in series.items()},
    )
