from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings, strategies as st

from perfgate.gate.verdict.latency import decide, explain
from perfgate.records import Interval, Tolerance, Verdict
from perfgate.util.wording import change

TOLERANCE = Tolerance(ignore=0.005, catch=0.02)
# Below, on, and above each of the three borders, in rising order.
POINTS = (0.9, 1 / 1.005, 0.999, 1.0, 1.005, 1.01, 1.02, 1.5)
HARSHNESS = {Verdict.IMPROVEMENT: 0, Verdict.PASS: 1, Verdict.INCONCLUSIVE: 2, Verdict.REGRESSION: 3}


def interval(low: float, high: float) -> Interval:
    return Interval(estimate=(low + high) / 2, low=low, high=high, confidence=0.95)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.90, 0.95, Verdict.IMPROVEMENT),
        (0.90, 0.999, Verdict.PASS),
        (0.99, 1.019, Verdict.PASS),
        (1.006, 1.019, Verdict.PASS),
        (0.99, 1.02, Verdict.INCONCLUSIVE),
        (0.5, 2.0, Verdict.INCONCLUSIVE),
        (1.005, 1.03, Verdict.INCONCLUSIVE),
        (1.0051, 1.03, Verdict.REGRESSION),
        (1.5, 1.6, Verdict.REGRESSION),
    ],
)
def test_the_verdict_of_an_interval(low: float, high: float, verdict: Verdict) -> None:
    assert decide(interval(low, high), TOLERANCE) is verdict


def test_every_ordering_of_an_interval_and_the_borders_has_one_verdict_that_keeps_the_promise() -> None:
    for low, high in itertools.combinations_with_replacement(POINTS, 2):
        verdict = decide(interval(low, high), TOLERANCE)
        if verdict in (Verdict.PASS, Verdict.IMPROVEMENT):
            assert high < 1.02, "a PASS leaves no room for a slowdown to catch"
        if verdict is Verdict.REGRESSION:
            assert low > 1.005, "an alarm leaves no room for a slowdown to ignore"
        if verdict is Verdict.IMPROVEMENT:
            assert high < 1
        if verdict is Verdict.INCONCLUSIVE:
            assert low <= 1.005
            assert high >= 1.02


@settings(deadline=None)
@given(
    low=st.floats(0.1, 10),
    width=st.floats(0, 1),
    shift=st.floats(0, 2),
    ignore=st.floats(0.001, 0.2),
    more=st.floats(0.001, 0.5),
)
def test_a_slower_head_never_gets_a_kinder_verdict(
    low: float, width: float, shift: float, ignore: float, more: float
) -> None:
    tolerance = Tolerance(ignore=ignore, catch=ignore + more)
    first = decide(interval(low, low + width), tolerance)
    slower = decide(interval(low + shift, low + width + shift), tolerance)
    assert HARSHNESS[first] <= HARSHNESS[slower]


@pytest.mark.parametrize("verdict", [*HARSHNESS, Verdict.NEW])
def test_the_reason_holds_the_estimate_and_both_ends(verdict: Verdict) -> None:
    text = explain(verdict, Interval(estimate=1.03, low=1.01, high=1.05, confidence=0.95), TOLERANCE)
    assert all(number in text for number in ("3.0 % slower", "1.0 % slower", "5.0 % slower"))


@pytest.mark.parametrize(
    ("ratio", "words"),
    [
        (1.0, "no change"),
        (1.0004, "0.04 % slower"),
        (1.031, "3.1 % slower"),
        (0.9, "10.0 % faster"),
        (2.5, "takes 2.50 × as long"),
    ],
)
def test_a_ratio_in_words(ratio: float, words: str) -> None:
    assert change(ratio) == words
