from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings, strategies as st

from perfgate.gate.statistics.noise import PRIOR_CV, ratio_interval

values = st.lists(st.floats(min_value=1, max_value=1e12), min_size=1, max_size=12)
near = st.lists(st.floats(min_value=0.8, max_value=1.25), min_size=1, max_size=12)


@settings(deadline=None)
@given(base=values, head=values)
def test_the_interval_contains_the_estimate_and_is_positive_and_finite(
    base: list[float], head: list[float]
) -> None:
    ratio = ratio_interval(base, head, prior_cv=0.01)
    assert 0 <= ratio.low <= ratio.estimate <= ratio.high < math.inf


@settings(deadline=None)
@given(base=near, head=near, scale=st.floats(min_value=1e-3, max_value=1e9))
def test_the_unit_of_time_does_not_matter(base: list[float], head: list[float], scale: float) -> None:
    plain = ratio_interval(base, head, prior_cv=0.01)
    scaled = ratio_interval([x * scale for x in base], [x * scale for x in head], prior_cv=0.01)
    assert (scaled.low, scaled.estimate, scaled.high) == pytest.approx(
        (plain.low, plain.estimate, plain.high), abs=2e-6
    )


@settings(deadline=None)
@given(base=near, head=near)
def test_swapping_the_sides_inverts_the_ratio(base: list[float], head: list[float]) -> None:
    there, back = (ratio_interval(*sides, prior_cv=0.01) for sides in ((base, head), (head, base)))
    assert there.estimate * back.estimate == pytest.approx(1, abs=1e-5)
    assert there.low * back.high == pytest.approx(1, rel=1e-4)


@settings(deadline=None)
@given(base=near, head=near, seed=st.integers(0, 99))
def test_the_order_of_launches_does_not_matter(base: list[float], head: list[float], seed: int) -> None:
    mixed = random.Random(seed).sample(head, len(head))
    assert ratio_interval(base, head, prior_cv=0.01) == ratio_interval(base, mixed, prior_cv=0.01)


def test_equal_launches_are_not_taken_for_certainty() -> None:
    ratio = ratio_interval([1e6] * 5, [1e6] * 5, prior_cv=0.01)
    assert ratio.estimate == 1
    assert ratio.low < 0.995
    assert ratio.high > 1.005


def test_one_launch_a_side_cannot_tell_three_percent_from_nothing_on_a_gpu() -> None:
    ratio = ratio_interval([1e6], [1.03e6], prior_cv=PRIOR_CV["gpu"])
    assert ratio.estimate == pytest.approx(1.03)
    assert ratio.low < 1.0 < ratio.high


def test_five_steady_launches_a_side_do_tell_three_percent_from_nothing_on_a_gpu() -> None:
    base = [1e6, 1.002e6, 0.998e6, 1.001e6, 0.999e6]
    ratio = ratio_interval(base, [value * 1.03 for value in base], prior_cv=PRIOR_CV["gpu"])
    assert ratio.low > 1.005


def test_the_interval_widens_with_fewer_launches() -> None:
    base = [1e6, 1.01e6] * 6
    widths = []
    for count in (12, 8, 4, 2, 1):
        ratio = ratio_interval(base[:count], base[:count], prior_cv=0.01)
        widths.append(ratio.high - ratio.low)
    assert widths == sorted(widths)


def test_the_interval_widens_with_confidence_and_with_spread() -> None:
    calm, wild = [1e6, 1.001e6, 0.999e6], [1e6, 1.2e6, 0.8e6]
    narrow, sure, spread = (
        ratio_interval(calm, calm, prior_cv=0.01),
        ratio_interval(calm, calm, prior_cv=0.01, confidence=0.9999),
        ratio_interval(wild, wild, prior_cv=0.01),
    )
    assert sure.low < narrow.low < narrow.high < sure.high
    assert spread.low < narrow.low < narrow.high < spread.high


@pytest.mark.parametrize(("launches", "true_ratio"), [(5, 1.0), (5, 1.05), (12, 0.9), (3, 1.0)])
def test_about_95_of_100_intervals_contain_the_true_ratio(launches: int, true_ratio: float) -> None:
    """At the prior's own spread; 1000 seeded draws, so ±2 points is three standard errors."""
    draw, hits, cv = random.Random(20260101), 0, 0.01
    for _ in range(1000):
        base = [math.exp(draw.gauss(0, cv)) for _ in range(launches)]
        head = [math.exp(draw.gauss(math.log(true_ratio), cv)) for _ in range(launches)]
        ratio = ratio_interval(base, head, prior_cv=cv)
        hits += ratio.low <= true_ratio <= ratio.high
    assert 0.93 <= hits / 1000 <= 0.985
