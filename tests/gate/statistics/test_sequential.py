from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from perfgate.gate.statistics.noise import DOF_CAP, LAUNCH_CV, RUN_CV, Spread, settle, spread_of, to_repeat
from perfgate.gate.statistics.power import (
    INCONCLUSIVE,
    PASS,
    REGRESSION,
    Plan,
    power,
    run_gates,
    sequential,
    upper_bound,
)
from perfgate.gate.statistics.sequential import (
    LOWER,
    UPPER,
    blocks,
    clear,
    decide_next,
    log_likelihood_ratio,
    screen,
    worth_screening,
)
from perfgate.records import Tolerance, Verdict

TOLERANCE = Tolerance(ignore=0.005, catch=0.02)
SPREAD = spread_of("gpu")
CODES = {None: 0, Verdict.REGRESSION: 1, Verdict.PASS: 2, Verdict.IMPROVEMENT: 3}

near = st.lists(st.floats(min_value=0.9, max_value=1.1), min_size=2, max_size=12)
ratios = st.floats(min_value=0.9, max_value=1.15)


def two_clusters(draw: np.random.Generator, *shape: int) -> np.ndarray:
    """Log medians as on an H200: two clusters 1.5 % apart, 0.2 % wide; CV 0.7 %."""
    return np.asarray((draw.random(shape) < 0.35) * 0.015 + draw.normal(0, 0.002, shape))


def test_blocks_are_balanced_random_and_the_same_for_a_seed() -> None:
    first = list(itertools.islice(blocks(3), 200))
    assert first == list(itertools.islice(blocks(3), 200))
    assert {"".join(side[0] for side in block) for block in first} == {"bhhb", "hbbh"}
    assert 60 < sum(block[0] == "base" for block in first) < 140
    for block in first:
        positions = [index for index, side in enumerate(block) if side == "base"]
        assert sum(positions) == 3, "a linear drift must hit both sides alike"


@settings(deadline=None)
@given(base=near, head=near, scale=st.floats(1e-3, 1e9))
def test_the_unit_of_time_does_not_matter(base: list[float], head: list[float], scale: float) -> None:
    plain = decide_next(base, head, TOLERANCE, SPREAD)
    scaled = decide_next([x * scale for x in base], [x * scale for x in head], TOLERANCE, SPREAD)
    assert scaled.log_likelihood == pytest.approx(plain.log_likelihood, abs=2e-3)


@settings(deadline=None)
@given(base=near, head=near)
def test_regression_one_way_is_improvement_the_other_way(base: list[float], head: list[float]) -> None:
    there = decide_next(base, head, TOLERANCE, SPREAD)
    back = decide_next(head, base, TOLERANCE, SPREAD)
    if there.verdict is Verdict.REGRESSION:
        assert back.verdict is Verdict.IMPROVEMENT
    if there.verdict is Verdict.IMPROVEMENT:
        assert back.verdict is Verdict.REGRESSION


@settings(deadline=None)
@given(head=near, shift=st.floats(0, 0.1))
def test_a_slower_head_is_never_less_likely_slower(head: list[float], shift: float) -> None:
    base = [1.0] * len(head)
    kind = decide_next(base, head, TOLERANCE, SPREAD).log_likelihood
    slower = [value * (1 + shift) for value in head]
    assert decide_next(base, slower, TOLERANCE, SPREAD).log_likelihood >= kind - 1e-3


@settings(deadline=None)
@given(difference=st.floats(-0.1, 0.1), se=st.floats(1e-4, 0.05), dof=st.floats(4, 60))
def test_the_ratio_is_zero_between_the_hypotheses_and_has_their_sign(
    difference: float, se: float, dof: float
) -> None:
    found = log_likelihood_ratio(difference, se, dof, TOLERANCE)
    middle = (math.log1p(0.005) + math.log1p(0.02)) / 2
    assert found == pytest.approx(0, abs=1e-9) or (found > 0) == (difference > middle)


def test_with_much_known_of_the_spread_it_is_walds_own_ratio() -> None:
    """Between both hypotheses the likelihoods are normal then: n (theta1 - theta0) (d - middle) / (2 s2)."""
    low, high, se = math.log1p(0.005), math.log1p(0.02), 0.004
    wald = (high - low) * (0.014 - (low + high) / 2) / se**2
    assert log_likelihood_ratio(0.014, se, 1e9, TOLERANCE) == pytest.approx(wald, rel=1e-4)


def test_the_borders_are_walds() -> None:
    assert (math.exp(UPPER), math.exp(LOWER)) == pytest.approx((4750, 0.05), rel=1e-3)


@settings(deadline=None)
@given(base=near, head=near, factor=st.floats(1.0, 3.0))
def test_launches_may_widen_the_spread_and_never_narrow_it(
    base: list[float], head: list[float], factor: float
) -> None:
    wide = Spread(launch_cv=SPREAD.launch_cv * factor, launch_dof=SPREAD.launch_dof, run_cv=0)
    for one in (SPREAD, wide):
        found = decide_next(base, head, TOLERANCE, one)
        least = one.launch_cv * math.sqrt(1 / len(base) + 1 / len(head))
        assert math.log(found.ratio.high / found.ratio.low) / 2 >= 1.9 * least


def test_needed_is_about_what_it_then_takes() -> None:
    decision = decide_next([1.0] * 4, [1.02] * 4, TOLERANCE, SPREAD)
    assert decision.verdict is None
    more = 4 + decision.needed
    assert decide_next([1.0] * more, [1.02] * more, TOLERANCE, SPREAD).verdict is Verdict.REGRESSION
    less = more - 1
    assert decide_next([1.0] * less, [1.02] * less, TOLERANCE, SPREAD).verdict is None


def test_a_slowdown_between_ignore_and_catch_may_need_more_than_anybody_takes() -> None:
    middle = math.exp((math.log1p(0.005) + math.log1p(0.02)) / 2)
    assert decide_next([1.0] * 4, [middle] * 4, TOLERANCE, SPREAD).needed == 1000


def test_arrays_decide_as_single_cases_do() -> None:
    draw = np.random.default_rng(4)
    for slowdown in (-0.03, 0.0, 0.012, 0.02, 0.05):
        base, head = two_clusters(draw, 60, 16), two_clusters(draw, 60, 16) + slowdown
        plan = Plan(kind="gpu", tolerance=TOLERANCE)
        cv, dof = np.full(60, SPREAD.launch_cv), np.full(60, SPREAD.launch_dof)
        verdicts, taken = sequential(base, head, cv, dof, plan)
        for row in range(60):
            for count in range(2, 17, 2):
                decision = decide_next(
                    np.exp(base[row, :count]).tolist(),
                    np.exp(head[row, :count]).tolist(),
                    TOLERANCE,
                    SPREAD,
                )
                if decision.verdict:
                    break
            at_the_end = decision.verdict is None and decision.log_likelihood <= LOWER
            assert CODES[Verdict.PASS if at_the_end else decision.verdict] == verdicts[row]
            assert count == taken[row]


@pytest.mark.parametrize(("runs", "days"), [(1, 1), (3, 2), (3, 1), (8, 5)])
def test_arrays_screen_as_single_cases_do(runs: int, days: int) -> None:
    draw = np.random.default_rng(runs)
    stored = two_clusters(draw, 80, runs, 5) + draw.normal(0, 0.002, (80, runs, 1))
    new = two_clusters(draw, 80, 5) + draw.choice([-0.06, -0.03, 0.0, 0.01], (80, 1))
    plan = Plan(kind="gpu", tolerance=TOLERANCE, days=days)
    found = run_gates(stored, new, two_clusters(draw, 80, 8), two_clusters(draw, 80, 8), plan)
    for row in range(80):
        history = np.exp(stored[row]).tolist()
        spread = spread_of("gpu", history, days)
        ratio = screen(history, np.exp(new[row]).tolist(), TOLERANCE, spread)
        assert clear(ratio, TOLERANCE) is not bool(found.suspect[row])


def test_error_rates_on_bimodal_launches_stay_under_alpha_and_beta() -> None:
    """20,000 seeded confirmations each; at the border itself, where an alarm is likeliest."""
    draw = np.random.default_rng(11)
    plan = Plan(kind="gpu", tolerance=TOLERANCE)
    prior = np.full(20_000, SPREAD.launch_cv), np.full(20_000, SPREAD.launch_dof)
    rates = {}
    for ratio in (1.0, 1.005, 1.02, 1.03):
        base, head = (two_clusters(draw, 20_000, 32) for _ in range(2))
        verdict, taken = sequential(base, head + math.log(ratio), *prior, plan)
        rates[ratio] = (verdict == REGRESSION).mean(), (verdict == PASS).mean(), np.median(taken)
    assert rates[1.0][:2] == (0, 1)
    assert rates[1.005][0] <= 2e-4
    assert rates[1.02][0] >= 0.95
    assert rates[1.02][1] <= 0.05
    assert rates[1.03][0] >= 0.999
    assert (rates[1.0][2], rates[1.02][2]) <= (6, 12)


def test_a_prior_stands_until_three_runs_on_two_days_are_stored() -> None:
    runs = [[1.0, 1.004, 0.996]] * 3
    assert spread_of("gpu", runs, days=1).run_cv == RUN_CV["gpu"]
    assert spread_of("gpu", runs[:2], days=2).run_cv == RUN_CV["gpu"]
    stored = spread_of("gpu", runs, days=2)
    assert (stored.run_cv, stored.run_dof) == (0.0, 2)


def test_the_spreads_of_a_made_up_history_are_recovered() -> None:
    draw = np.random.default_rng(5)
    logs = draw.normal(0, 0.01, (400, 1)) + draw.normal(0, 0.004, (400, 5))
    found = spread_of("gpu", np.exp(logs).tolist(), days=30)
    assert found.launch_cv == pytest.approx(0.004, rel=0.1)
    assert found.run_cv == pytest.approx(0.01, rel=0.15)
    assert found.launch_dof == DOF_CAP


def test_the_screens_launches_tell_of_launches_and_not_of_runs() -> None:
    wild = spread_of("cpu", [[1.0, 1.0]], days=1, also=[[1.0, 2.0, 0.5, 1.0]])
    assert wild.launch_cv > LAUNCH_CV["cpu"]
    assert wild.run_cv == RUN_CV["cpu"]
    assert spread_of("gpu", [[1.0]], days=1).launch_cv == LAUNCH_CV["gpu"]


@settings(deadline=None)
@given(runs=st.lists(near, min_size=1, max_size=4), head=near)
def test_the_screens_interval_is_finite_and_holds_its_estimate(
    runs: list[list[float]], head: list[float]
) -> None:
    ratio = screen(runs, head, TOLERANCE, spread_of("gpu", runs, days=2))
    assert 0 <= ratio.low <= ratio.estimate <= ratio.high < math.inf


def test_a_screen_passes_what_a_known_machine_repeats_and_nothing_else() -> None:
    base = [[1.0, 1.001, 0.999, 1.0, 1.0]] * 5
    spread = spread_of("gpu", base, days=5)
    for factor, expected in ((1.0, True), (1.02, False), (0.95, False)):
        head = [factor * value for value in base[0]]
        assert clear(screen(base, head, TOLERANCE, spread), TOLERANCE) is expected
    assert worth_screening([5] * 5, 5, TOLERANCE, spread)
    assert not worth_screening([5], 5, TOLERANCE, spread_of("gpu", base[:1], 1))


@settings(deadline=None)
@given(values=near, factor=st.floats(2, 100), index=st.integers(0, 11))
def test_a_launch_far_out_is_repeated_and_none_is_lost(
    values: list[float], factor: float, index: int
) -> None:
    history = [1.0] * 9
    index %= len(values)
    values[index] = factor
    repeat = to_repeat(values, history, SPREAD)
    assert index in repeat
    settled = settle(values, dict.fromkeys(repeat, 1.0), history, SPREAD)
    assert len(settled.counted) == len(values)
    assert {values[place] for place in repeat} == {value for _, value in settled.shown}
    again = settle(values, {place: values[place] for place in repeat}, history, SPREAD)
    assert again.counted == tuple(values)


def test_of_two_launches_neither_is_the_odd_one_out() -> None:
    assert to_repeat([1.0, 10.0], (), SPREAD) == ()


def test_power_tells_what_is_caught_and_what_it_takes() -> None:
    runs = [[1e6, 1.015e6, 1e6, 1.014e6, 1.001e6]]
    found = power(runs, TOLERANCE, "gpu")
    assert found == power(runs, TOLERANCE, "gpu"), "the same seed tells the same"
    assert found.false_alarm_rate == 0
    assert found.false_alarm_upper <= 2e-4
    assert found.power_at_catch >= 0.95
    assert found.detectable is not None
    assert 0.01 < found.detectable <= 0.0205
    assert found.launches_unchanged <= 6
    assert found.suggested_launches is not None
    assert not found.screened


def test_power_on_a_wild_machine_suggests_more_launches_or_a_wider_tolerance() -> None:
    wild = [[1e6, 1.2e6, 0.9e6, 1.1e6, 1e6]]
    found = power(wild, TOLERANCE, "gpu")
    assert found.power_at_catch < 0.5
    assert found.suggested_launches is None
    assert found.suggested_catch is None or found.suggested_catch > 0.02


def test_the_bound_on_no_event_in_15_000_is_one_in_5_000() -> None:
    assert upper_bound(0, 15_000) == pytest.approx(1.997e-4, rel=1e-3)
    assert upper_bound(3, 3) == 1.0


def test_codes_of_arrays_are_those_of_verdicts() -> None:
    assert tuple(CODES[one] for one in (None, Verdict.REGRESSION, Verdict.PASS)) == (
        INCONCLUSIVE,
        REGRESSION,
        PASS,
    )


@pytest.mark.parametrize("history", [[], [[1e6]], [[1e6], [1.01e6, 1e6, 1.002e6]]])
def test_power_needs_no_history_worth_the_name(history: list[list[float]]) -> None:
    found = power(history, TOLERANCE, "gpu")
    assert not found.screened
    assert found.false_alarm_rate == 0
    assert found.power_at_catch > 0.9
