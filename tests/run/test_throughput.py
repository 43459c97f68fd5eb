"""The best number of streams, and what a rate is made of."""

from __future__ import annotations

import pytest

from perfgate.errors import CaseError
from perfgate.records import Case, Failed, Launch, Measured, Mode, Tolerance
from perfgate.run.analysis.throughput import Rate, best, rate, stream_modes


def made(samples: int, wall_ns: int, invalid: str = "") -> Launch:
    return Launch(
        samples_ns=(1000,) * samples, wall_ns=wall_ns, load_ns=1, first_inference_ns=1, invalid=invalid
    )


def case(streams: int = 1, batch: int = 1) -> Case:
    return Case(
        id="m/fp32",
        model="m",
        backend="tensorrt",
        precision="fp32",
        shape={"b": batch},
        mode=Mode(drive="graph", streams=streams),
        tolerance=Tolerance(ignore=0.005, catch=0.02),
    )


def test_a_rate_is_the_median_of_valid_launches() -> None:
    launches = (made(100, 10**9), made(110, 10**9), made(500, 10**9), made(9, 10**9, invalid="shared"))
    found = rate(Measured(engine=None, launches=launches), case(streams=2, batch=8))
    assert found == Rate(streams=2, queries_per_s=110.0, items_per_s=880.0)


def test_a_failed_mode_says_why() -> None:
    with pytest.raises(CaseError, match="4 streams: out of memory"):
        rate(Failed(stage="launch", reason="out of memory"), case(streams=4))


def test_the_fewest_streams_of_equal_rates_are_best() -> None:
    rates = [Rate(streams=n, queries_per_s=q, items_per_s=q) for n, q in ((1, 50), (2, 99.5), (4, 100))]
    assert best(rates).streams == 2


def test_streams_double_up_to_the_most() -> None:
    assert [one.mode.streams for one in stream_modes(case(), 8)] == [1, 2, 4, 8]
    assert {one.mode.drive for one in stream_modes(case(), 8)} == {"graph"}
