"""The tail that a case's SLO is judged by: measured launches replayed under its load."""

from __future__ import annotations

import pytest

from perfgate.gate.verdict.evidence import ServiceLatency
from perfgate.records import Case, Environment, Failed, Launch, Measured, Mode, Outcome, Slo, Tolerance
from perfgate.run.service_latency import service_latency

CPU = Environment(device="cpu-x", toolchain="onnxruntime-1", key={"cpus": "2"})
GPU = Environment(device="nvidia-h200", toolchain="tensorrt-8.5.3.1", key={"gpu": "NVIDIA H200"})


def case(qps: float | None = 400.0, mode: Mode | None = None) -> Case:
    return Case(
        id="net/fp16/b1",
        model="net",
        backend="tensorrt",
        precision="fp16",
        tolerance=Tolerance(ignore=0.005, catch=0.02),
        mode=mode or Mode(),
        slo=Slo(service_p99_ms=20.0 if qps else None, service_qps=qps),
    )


def measured(*medians_ms: float, invalid: str = "") -> Measured:
    return Measured(
        engine=None,
        launches=tuple(
            Launch(
                samples_ns=(round(value * 1e6),) * 100,
                wall_ns=1,
                load_ns=1,
                first_inference_ns=1,
                invalid=invalid,
            )
            for value in medians_ms
        ),
    )


def seen(outcome: Outcome, qps: float) -> ServiceLatency:
    found = service_latency(case(qps), outcome, CPU)
    assert found is not None
    return found


def p99_ms(outcome: Outcome, qps: float) -> float:
    found = seen(outcome, qps).p99_ms
    assert found is not None
    return found


def test_at_next_to_no_load_it_is_the_service_time() -> None:
    assert p99_ms(measured(1.0), 1.0) == pytest.approx(1.0, rel=0.02)


def test_it_grows_with_the_load() -> None:
    tails = [p99_ms(measured(1.0), qps) for qps in (100.0, 500.0, 900.0)]
    assert tails == sorted(tails)
    # M/D/1 at a load of 0.9 waits rho / (2 (1 - rho)) = 4.5 services in the mean, its P99 several times that.
    assert 10 < tails[2] < 40


@pytest.mark.parametrize("qps", [1_000.0, 1_010.0, 5_000.0])
def test_a_load_beyond_capacity_has_no_tail_however_late_the_limit(qps: float) -> None:
    found = seen(measured(0.8, 1.2), qps)
    assert found.p99_ms is None
    assert found.capacity_qps == pytest.approx(1_000)


def test_a_slower_launch_makes_the_tail() -> None:
    assert p99_ms(measured(1.0, 3.0), 200.0) > p99_ms(measured(1.0, 1.0), 200.0)


@pytest.mark.parametrize(
    ("mode", "environment", "why"),
    [
        (Mode(drive="enqueue", transfers=True, streams=4), GPU, "4 streams share the device"),
        (Mode(drive="graph"), GPU, "without transfers"),
    ],
)
def test_a_mode_that_is_no_requests_is_not_simulated(mode: Mode, environment: Environment, why: str) -> None:
    found = service_latency(case(mode=mode), measured(1.0), environment)
    assert found is not None
    assert why in found.why


@pytest.mark.parametrize(
    "outcome", [Failed(stage="launch", reason="killed"), measured(1.0, invalid="a neighbour")]
)
def test_without_launches_nothing_is_claimed(outcome: Outcome) -> None:
    assert service_latency(case(), outcome, CPU) == ServiceLatency(why="no launches to simulate")


def test_without_a_promise_there_is_nothing_to_say() -> None:
    assert service_latency(case(None), measured(1.0), CPU) is None
