"""What may go wrong on a real machine, each with the verdict that it must get.

| the launches | verdict |
|---|---|
| one launch of head 10 times as long, measured again and gone | PASS, and it is shown |
| one launch of head 10 times as long, and it recurs | it counts: INCONCLUSIVE until there are more |
| all of head from the slow cluster, all of base from the fast one | never REGRESSION in a confirmation |
| no variance at all, as fast | PASS |
| no variance at all, 3 % slower | two a side do not do, six do: REGRESSION |
| two launches a side only, 2 % slower | INCONCLUSIVE |
| a baseline with one launch | a suspect, to be confirmed: neither PASS nor REGRESSION |
| a baseline from another driver | INCOMPARABLE, and `driver` is named |
| the clock drops halfway, for both sides | INVALID, code shared-shift |
| head alone clocks lower | REGRESSION, code clock/power |
| a drift of 1 % an hour over both sides | PASS |
| a drift of 1 % within the confirmation | PASS |
| a throughput that is lower, and one that is higher | REGRESSION; IMPROVEMENT |
| both launches of head in the middle of one block disturbed | no REGRESSION by that block alone |
| 500 unchanged cases at once | no red |
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import msgspec
import pytest
from gate_runs import ENVIRONMENT, PROTOCOL, STEADY, case, launch, measured, stored

from perfgate.gate.baselines import Baselines
from perfgate.gate.statistics.noise import settle, spread_of, to_repeat
from perfgate.gate.statistics.sequential import BUDGET, blocks, clear, decide_next, screen
from perfgate.gate.verdict.evidence import ConfirmedLaunches, Evidence
from perfgate.gate.verdict.judge import judge
from perfgate.records import Confirmation, Judgement, Launch, Measured, Telemetry, Tolerance, Verdict

TOLERANCE = Tolerance(ignore=0.005, catch=0.02)
SPREAD = spread_of("gpu")
KNOWN = Baselines(root="baselines", cases={"net/fp16/b8": stored()})
FAST, SLOW = 1_000_000, 1_015_000


def confirmed(base: Sequence[Launch], head: Sequence[Launch], baselines: Baselines = KNOWN) -> Judgement:
    """The judgement by these fresh launches."""
    medians = [[one.median_ns for one in side] for side in (base, head)]
    decision = decide_next(medians[0], medians[1], TOLERANCE, SPREAD)
    fresh = ConfirmedLaunches(
        base=tuple(base),
        decision=decision,
        confirmation=Confirmation(
            base_launches=len(base),
            head_launches=len(head),
            decided=decision.verdict is not None,
            needed=decision.needed,
        ),
    )
    outcome = Measured(engine=None, launches=tuple(head))
    return judge(case(), outcome, baselines, ENVIRONMENT, PROTOCOL, evidence=Evidence(fresh=fresh))


def launches(medians: Sequence[float], mhz: Sequence[int] | None = None) -> list[Launch]:
    made = [launch(round(median)) for median in medians]
    if mhz is None:
        return made
    return [
        msgspec.structs.replace(one, telemetry=Telemetry(sm_clock_mhz=(clock, clock)))
        for one, clock in zip(made, mhz, strict=True)
    ]


def steady(count: int, centre: float = FAST, seed: int = 1) -> list[float]:
    draw = random.Random(seed)
    return [centre * draw.gauss(1, 0.002) for _ in range(count)]


def test_an_outlier_that_does_not_recur_is_shown_and_does_not_count() -> None:
    head = [*steady(5, seed=2), 10.0 * FAST]
    assert to_repeat(head, (), SPREAD) == (5,)
    settled = settle(head, {5: 1.001 * FAST}, (), SPREAD)
    assert settled.shown == ((5, 10.0 * FAST),)
    assert confirmed(launches(steady(6)), launches(settled.counted)).verdict is Verdict.PASS


def test_an_outlier_that_recurs_counts_and_alone_is_no_regression() -> None:
    head = [*steady(5, seed=2), 10.0 * FAST]
    settled = settle(head, {5: 9.0 * FAST}, (), SPREAD)
    assert settled.counted == tuple(head)
    assert settled.shown == ()
    judgement = confirmed(launches(steady(6)), launches(settled.counted))
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert "more launches a side" in judgement.reason


def test_launches_of_either_cluster_are_no_outliers() -> None:
    assert to_repeat([FAST] * 4 + [SLOW], (), SPREAD) == ()
    assert to_repeat([SLOW], [FAST] * 10, SPREAD) == ()
    calm = msgspec.structs.replace(SPREAD, launch_cv=0.001)
    assert to_repeat([SLOW], [FAST] * 10, calm) == ()


@pytest.mark.parametrize("count", range(2, 25, 2))
def test_one_side_all_from_the_slow_cluster_is_never_a_regression(count: int) -> None:
    """Both sides in one cluster each, 24 launches long, is a chance of one in 2^48."""
    base, head = steady(count), steady(count, SLOW, seed=2)
    assert confirmed(launches(base), launches(head)).verdict is not Verdict.REGRESSION


def test_no_variance_and_no_change_passes() -> None:
    assert confirmed(launches([FAST] * 4), launches([FAST] * 4)).verdict is Verdict.PASS


@pytest.mark.parametrize(("count", "verdict"), [(2, Verdict.INCONCLUSIVE), (6, Verdict.REGRESSION)])
def test_no_variance_is_not_taken_for_certainty(count: int, verdict: Verdict) -> None:
    judgement = confirmed(launches([FAST] * count), launches([1.03 * FAST] * count))
    assert judgement.verdict is verdict


def test_two_launches_a_side_do_not_tell_two_percent() -> None:
    judgement = confirmed(launches([FAST, FAST]), launches([1.02 * FAST] * 2))
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert judgement.confirmation is not None
    assert 2 <= judgement.confirmation.needed <= 30


def test_a_baseline_with_one_launch_passes_nothing_and_fails_nothing() -> None:
    ratio = screen([[FAST]], steady(5), TOLERANCE, spread_of("gpu", [[FAST]]))
    assert not clear(ratio, TOLERANCE)
    one = Baselines(root="b", cases={"net/fp16/b8": stored(measured(FAST))})
    judgement = judge(case(), STEADY, one, ENVIRONMENT, PROTOCOL, evidence=Evidence(screened=ratio))
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert "not confirmed" in judgement.reason
    assert confirmed(launches(steady(4)), launches(steady(4, seed=2)), one).verdict is Verdict.PASS


def test_a_baseline_from_another_driver_is_incomparable_even_with_fresh_launches() -> None:
    other = msgspec.structs.replace(ENVIRONMENT, key={"tensorrt": "10.13", "driver": "590"})
    baselines = Baselines(root="b", cases={"net/fp16/b8": stored(environment=other)})
    judgement = confirmed(launches([FAST] * 4), launches([FAST] * 4), baselines)
    assert judgement.verdict is Verdict.INCOMPARABLE
    assert [(one.field, one.base, one.head) for one in judgement.differences] == [("driver", "590", "580")]


def test_a_clock_that_drops_halfway_for_both_is_invalid() -> None:
    base = [*steady(6), *steady(6, 1.08 * FAST, seed=3)]
    head = [*steady(6, seed=2), *steady(6, 1.08 * FAST, seed=4)]
    mhz = [1980] * 6 + [1830] * 6
    judgement = confirmed(launches(base, mhz), launches(head, mhz))
    assert (judgement.verdict, judgement.code) == (Verdict.INVALID, "shared-shift")
    assert "both sides moved together" in judgement.reason


def test_a_shift_of_head_alone_is_not_a_shared_one() -> None:
    judgement = confirmed(
        launches(steady(12)), launches([*steady(6, seed=2), *steady(6, 1.08 * FAST, seed=3)])
    )
    assert judgement.code != "shared-shift"
    assert judgement.verdict is not Verdict.PASS


def test_head_alone_clocks_lower_is_a_regression_by_clock_and_power() -> None:
    judgement = confirmed(
        launches(steady(8), [1980] * 8), launches(steady(8, 1.05 * FAST, seed=2), [1890] * 8)
    )
    assert (judgement.verdict, judgement.code) == (Verdict.REGRESSION, "clock/power")
    assert "1890 MHz where base has 1980" in judgement.reason


def test_equal_clocks_are_no_cause() -> None:
    judgement = confirmed(
        launches(steady(8), [1980] * 8), launches(steady(8, 1.05 * FAST, seed=2), [1980] * 8)
    )
    assert (judgement.verdict, judgement.code) == (Verdict.REGRESSION, "")


@pytest.mark.parametrize("whole", [0.01 * 12 * 2 * 4 / 3600, 0.01])
def test_a_drift_over_both_sides_passes(whole: float) -> None:
    """1 % an hour over 24 launches of 4 s; and, worse than that, 1 % within them."""
    sides: dict[str, list[float]] = {"base": [], "head": []}
    draw = random.Random(5)
    order = itertools.islice(itertools.chain.from_iterable(blocks(7)), 24)
    for number, side in enumerate(order):
        sides[side].append(FAST * (1 + whole * number / 24) * draw.gauss(1, 0.002))
    assert confirmed(launches(sides["base"]), launches(sides["head"])).verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("factor", "verdict", "metric"),
    [(1.5, Verdict.REGRESSION, Verdict.REGRESSION), (1 / 1.5, Verdict.PASS, Verdict.IMPROVEMENT)],
)
def test_throughput_is_better_when_it_is_higher(factor: float, verdict: Verdict, metric: Verdict) -> None:
    """The latency stays; the wall time of the same samples does not."""
    base = launches(steady(8))
    head = [
        msgspec.structs.replace(one, wall_ns=round(one.wall_ns * factor))
        for one in launches(steady(8, seed=2))
    ]
    judgement = confirmed(base, head)
    found = {one.metric: one.verdict for one in judgement.metrics}
    assert found["throughput_qps"] is metric
    assert judgement.verdict is verdict
    assert (judgement.code == "metric/throughput_qps") is (verdict is Verdict.REGRESSION)


@pytest.mark.parametrize("factor", [1.1, 2.0, 10.0])
def test_one_disturbance_within_a_block_is_no_regression(factor: float) -> None:
    """ABBA: head's two launches follow each other. What comes after them is as it was."""
    one = confirmed(launches(steady(2)), launches(steady(2, factor * FAST, seed=2)))
    assert one.verdict is Verdict.INCONCLUSIVE
    later = [*steady(2, factor * FAST, seed=2), *steady(4, seed=3)]
    assert confirmed(launches(steady(6)), launches(later)).verdict is not Verdict.REGRESSION


def test_500_unchanged_cases_at_once_have_no_red_among_them() -> None:
    draw = random.Random(20261124)

    def one(factor: float) -> float:
        return factor * (SLOW if draw.random() < 0.35 else FAST) * draw.gauss(1, 0.002)

    red = []
    for number in range(500):
        factor = draw.uniform(0.03, 100)
        base: list[float] = []
        head: list[float] = []
        decision = None
        while (decision is None or decision.verdict is None) and len(base) < BUDGET:
            base += [one(factor), one(factor)]
            head += [one(factor), one(factor)]
            decision = decide_next(base, head, TOLERANCE, SPREAD)
        if decision is None or decision.verdict in (None, Verdict.REGRESSION):
            red.append(number)
    assert red == []
