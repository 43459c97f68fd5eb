"""The timed loop, which is pure: what is issued, waited for, recorded, and when it stops."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from perfgate.engine.stream_loop import Lane, Slot, queued_samples
from perfgate.engine.tensorrt.stream import numpy_type
from perfgate.errors import CaseError
from perfgate.records import Mode, Protocol


class FakeSlot:
    """A slot whose query takes `ns` of a clock that only moves when somebody waits."""

    def __init__(self, world: list[Any], name: str, ns: int) -> None:
        self.world, self.name, self.ns = world, name, ns
        self.enqueue_ns = 7
        self.flying = False

    def issue(self) -> None:
        assert not self.flying, "issued again before it was waited for"
        self.flying = True
        self.world.append(("issue", self.name))

    def wait(self) -> None:
        assert self.flying, "waited for without a query"
        self.flying = False
        self.world[0] += self.ns
        self.world.append(("wait", self.name))

    def latency_ns(self) -> int:
        return self.ns

    def parts_ns(self) -> tuple[int, int, int]:
        return 1, self.ns - 2, 1


def run(monkeypatch: pytest.MonkeyPatch, ring: list[Any], protocol: Protocol, **more: Any) -> Any:
    world = ring[0].world
    monkeypatch.setattr("perfgate.engine.stream_loop.time.perf_counter_ns", lambda: world[0])
    return queued_samples(ring, protocol, **{"transfers": False, **more})


def test_two_queries_are_queued_and_the_first_of_each_slot_is_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world: list[Any] = [0]
    ring = [FakeSlot(world, "a", 100), FakeSlot(world, "b", 100)]
    samples = run(monkeypatch, ring, Protocol(duration_ns=1000, min_samples=5))
    assert len(samples.samples_ns) == 10
    assert samples.wall_ns == 1000
    assert samples.other_ns == {"enqueue": (7,) * 10}
    assert world[1:5] == [("issue", "a"), ("issue", "b"), ("wait", "a"), ("issue", "a")]
    assert not any(slot.flying for slot in ring)
    # Two were dropped before, and two that were still in flight afterwards.
    assert sum(kind == "wait" for kind, _ in world[1:]) == 14


def test_min_samples_outlasts_the_duration(monkeypatch: pytest.MonkeyPatch) -> None:
    ring = [FakeSlot([0], "a", 1000)]
    assert len(run(monkeypatch, ring, Protocol(duration_ns=1, min_samples=30)).samples_ns) == 30


def test_max_samples_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ring = [FakeSlot([0], "a", 1)]
    protocol = Protocol(duration_ns=1 << 40, min_samples=1, max_samples=50)
    assert len(run(monkeypatch, ring, protocol).samples_ns) == 50


def test_transfers_add_their_series(monkeypatch: pytest.MonkeyPatch) -> None:
    ring = [FakeSlot([0], "a", 10)]
    samples = run(monkeypatch, ring, Protocol(duration_ns=50, min_samples=5), transfers=True)
    assert samples.other_ns == {
        "enqueue": (7,) * 5,
        "h2d": (1,) * 5,
        "gpu_compute": (8,) * 5,
        "d2h": (1,) * 5,
    }


@pytest.mark.parametrize(
    ("onnx_type", "size"), [("float", 4), ("float16", 2), ("bfloat16", 2), ("int64", 8), ("bool", 1)]
)
def test_numpy_types(onnx_type: str, size: int) -> None:
    assert numpy_type(onnx_type).itemsize == size


class FakeLane(Lane):
    """A lane whose work takes nanoseconds of its own clock: copies in 10, execution 100, copies out 20."""

    def __init__(self, *, accepts: bool = True) -> None:
        self.stream, self.accepts, self.now = None, accepts, 0

    def event(self) -> Any:
        event = SimpleNamespace(query=lambda: True, synchronize=lambda: None)
        event.record = lambda _: setattr(event, "ns", self.now)
        return event

    def elapsed_ms(self, begin: Any, end: Any) -> float:
        return float(end.ns - begin.ns) / 1e6

    def send(self) -> None:
        self.now += 10

    def fetch(self) -> None:
        self.now += 20

    def launch(self) -> bool:
        self.now += 100
        return self.accepts


@pytest.mark.parametrize("wait", ["spin", "block"])
def test_a_query_with_transfers_spans_its_copies(wait: Any) -> None:
    ring = [Slot(FakeLane(), Mode(drive="enqueue", transfers=True, wait=wait))]
    samples = queued_samples(ring, Protocol(duration_ns=1, min_samples=3, max_samples=3), transfers=True)
    assert samples.samples_ns == (130,) * 3
    parts = {name: values for name, values in samples.other_ns.items() if name != "enqueue"}
    assert parts == {"h2d": (10,) * 3, "gpu_compute": (100,) * 3, "d2h": (20,) * 3}


def test_a_query_without_transfers_is_the_execution_alone() -> None:
    slot = Slot(FakeLane(), Mode(drive="enqueue"))
    slot.issue()
    slot.wait()
    assert slot.latency_ns() == 100


def test_a_launch_that_is_refused_is_an_error() -> None:
    with pytest.raises(CaseError, match="refused"):
        Slot(FakeLane(accepts=False), Mode(drive="enqueue")).issue()
