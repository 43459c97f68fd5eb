"""The timed loop, which is pure: what is issued, waited for, recorded, and when it stops."""

from __future__ import annotations

from typing import Any

import pytest

from perfgate.engine.stream_loop import queued_samples
from perfgate.engine.tensorrt.stream import numpy_type
from perfgate.records import Protocol


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
