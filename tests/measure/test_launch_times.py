"""What a launch tells of loading, where its runner tells it apart."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import pytest

from perfgate.measure import launch as module
from perfgate.measure.launch import EngineTarget
from perfgate.records import Case, Protocol, Tolerance

PROTOCOL = Protocol(warmup_ns=0, duration_ns=0, min_samples=3, max_samples=3)


class FakeRunner:
    """Loads at once, and infers nothing."""

    inputs = ()
    deserialisation_ns: int | None = None
    first_inference_ns: int | None = None

    def __enter__(self) -> FakeRunner:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def bind(self, arrays: object) -> None: ...

    def infer(self) -> None: ...

    def take(self, protocol: Protocol) -> Any:
        return types.SimpleNamespace(samples_ns=(7, 8, 9), wall_ns=24, other_ns={})


@pytest.mark.parametrize("told", [True, False])
def test_the_first_execution_is_the_one_that_loading_ran(monkeypatch: pytest.MonkeyPatch, told: bool) -> None:
    runner = FakeRunner()
    if told:
        runner.deserialisation_ns, runner.first_inference_ns = 5_000_000_000, 9_000_000_000
    backend = types.SimpleNamespace(kind="cpu", load=lambda *_: runner)
    monkeypatch.setattr(module, "get_backend", lambda *_: backend)
    limits = Tolerance(ignore=0.1, catch=0.3)
    case = Case(id="net/fp32", model="net", backend="onnxruntime", precision="fp32", tolerance=limits)
    found = module._launch_engine(EngineTarget(engine=str(Path("net")), case=case, folder=""), PROTOCOL)
    assert found.deserialisation_ns == (5_000_000_000 if told else None)
    assert (found.first_inference_ns == 9_000_000_000) is told
