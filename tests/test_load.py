"""The tail that a case's SLO is judged by: measured launches replayed under its load."""

from __future__ import annotations

import math

import pytest

from perfgate.load import service_p99_ms
from perfgate.records import Case, Failed, Launch, Measured, Outcome, Slo, Tolerance


def case(qps: float | None = 400.0) -> Case:
    return Case(
        id="net/fp16/b1",
        model="net",
        backend="tensorrt",
        precision="fp16",
        tolerance=Tolerance(ignore=0.005, catch=0.02),
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


def tail(outcome: Outcome, qps: float) -> float:
    found = service_p99_ms(case(qps), outcome)
    assert found is not None
    return found


def test_at_next_to_no_load_it_is_the_service_time() -> None:
    assert tail(measured(1.0), 1.0) == pytest.approx(1.0, rel=0.02)


def test_it_grows_with_the_load_and_without_end_beyond_capacity() -> None:
    tails = [tail(measured(1.0), qps) for qps in (100.0, 500.0, 900.0, 1200.0)]
    assert tails == sorted(tails)
    # M/D/1 at a load of 0.9 waits rho / (2 (1 - rho)) = 4.5 services in the mean, its P99 several times that.
    assert 10 < tails[2] < 40
    assert tails[3] > 40 or math.isinf(tails[3])


def test_a_slower_launch_makes_the_tail() -> None:
    assert tail(measured(1.0, 3.0), 200.0) > tail(measured(1.0, 1.0), 200.0)


@pytest.mark.parametrize(
    ("qps", "outcome"),
    [
        (None, measured(1.0)),
        (400.0, Failed(stage="launch", reason="killed")),
        (400.0, measured(1.0, invalid="a neighbour")),
    ],
)
def test_without_a_promise_or_launches_nothing_is_claimed(qps: float | None, outcome: Outcome) -> None:
    assert service_p99_ms(case(qps), outcome) is None
