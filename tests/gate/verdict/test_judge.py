from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from gate_runs import ENVIRONMENT, FASTER, PROTOCOL, SLOWER, STEADY, case, launch, measured, stored

from perfgate.gate.baselines import Baselines
from perfgate.gate.verdict.judge import judge
from perfgate.records import Failed, Judgement, Measured, NotRun, Outcome, Protocol, Slo, Unchanged, Verdict

NONE = Baselines(root="baselines")
KNOWN = Baselines(root="baselines", cases={"net/fp16/b8": stored()})
NEWER = msgspec.structs.replace(
    ENVIRONMENT, toolchain="tensorrt-11.0", key={"tensorrt": "11.0", "driver": "590"}
)
LONG = 1001


def verdict_on(outcome: Outcome, baselines: Baselines = KNOWN, slo_ms: float | None = None) -> Judgement:
    one = case(slo=Slo(engine_p99_ms=slo_ms))
    return judge(one, outcome, baselines, ENVIRONMENT, PROTOCOL)


@pytest.mark.parametrize("stage", ["model", "build", "launch"])
@pytest.mark.parametrize("baselines", [NONE, KNOWN])
def test_a_failure_of_the_case_is_an_error(stage: str, baselines: Baselines) -> None:
    outcome = msgspec.convert({"type": "failed", "stage": stage, "reason": "broke"}, Failed)
    judgement = verdict_on(outcome, baselines)
    assert (judgement.verdict, judgement.reason) == (Verdict.ERROR, "broke")


def test_a_case_that_nothing_makes_any_more_is_missing_and_shows_its_stored_numbers() -> None:
    judgement = verdict_on(Failed(stage="missing", reason="gone"))
    assert judgement.verdict is Verdict.MISSING
    assert judgement.base == stored().case.metrics


def test_a_case_that_is_not_run_is_listed_with_its_reason() -> None:
    judgement = verdict_on(NotRun(reason="no FP16 here"), NONE)
    assert (judgement.verdict, judgement.reason) == (Verdict.NOT_RUN, "no FP16 here")


def test_a_case_that_is_not_run_although_it_has_a_baseline_is_missing() -> None:
    judgement = verdict_on(NotRun(reason="no FP16 here"))
    assert judgement.verdict is Verdict.MISSING
    assert "no FP16 here" in judgement.reason


@pytest.mark.parametrize("baselines", [NONE, KNOWN])
def test_fewer_launches_than_asked_for_are_invalid(baselines: Baselines) -> None:
    judgement = verdict_on(measured(1_000_000, 1_000_000), baselines)
    assert judgement.verdict is Verdict.INVALID
    assert "2 of 5" in judgement.reason


def test_invalid_launches_do_not_count_and_say_why() -> None:
    bad = launch(9_000_000, invalid="the device was slowed down")
    judgement = verdict_on(msgspec.structs.replace(STEADY, launches=(*STEADY.launches[:4], bad)))
    assert judgement.verdict is Verdict.INVALID
    assert "the device was slowed down" in judgement.reason


def test_an_invalid_launch_beside_enough_valid_ones_is_left_out_of_the_numbers() -> None:
    bad = launch(9_000_000, invalid="the device was slowed down")
    judgement = verdict_on(msgspec.structs.replace(STEADY, launches=(*STEADY.launches, bad)))
    assert judgement.verdict is Verdict.PASS
    assert len(judgement.head["latency_ns"]) == 5


def test_a_busy_machine_is_no_failure_where_there_is_nothing_to_compare() -> None:
    judgement = verdict_on(measured(*[1000] * 5, invalid="a neighbour"), NONE)
    assert judgement.verdict is Verdict.NEW
    assert "not to be promoted" in judgement.reason
    assert "a neighbour" in judgement.reason
    assert len(judgement.head["latency_ns"]) == 5


def test_measured_without_a_baseline_is_new() -> None:
    judgement = verdict_on(STEADY, NONE)
    assert judgement.verdict is Verdict.NEW
    assert judgement.head["latency_ns"][0] == 1_000_000


def test_a_baseline_of_another_toolchain_only_is_incomparable_and_shows_what_differs() -> None:
    elsewhere = Baselines(root="b", elsewhere={"net/fp16/b8": stored(environment=NEWER)})
    judgement = verdict_on(STEADY, elsewhere)
    assert judgement.verdict is Verdict.INCOMPARABLE
    assert "tensorrt-11.0" in judgement.reason
    assert [difference.field for difference in judgement.differences] == ["driver", "tensorrt"]
    assert judgement.ratio is None


@pytest.mark.parametrize("outcome", [STEADY, SLOWER, Unchanged()])
def test_a_differing_key_is_incomparable_whatever_the_numbers_say(outcome: Outcome) -> None:
    other = msgspec.structs.replace(ENVIRONMENT, key={"tensorrt": "10.13", "driver": "590"})
    judgement = verdict_on(outcome, Baselines(root="b", cases={"net/fp16/b8": stored(environment=other)}))
    assert judgement.verdict is Verdict.INCOMPARABLE
    assert [(d.field, d.base, d.head) for d in judgement.differences] == [("driver", "590", "580")]


def test_a_difference_that_is_only_noted_is_shown_and_compared() -> None:
    other = msgspec.structs.replace(ENVIRONMENT, noted={"python": "3.10"})
    judgement = verdict_on(STEADY, Baselines(root="b", cases={"net/fp16/b8": stored(environment=other)}))
    assert judgement.verdict is Verdict.PASS
    assert [difference.field for difference in judgement.differences] == ["python"]


@pytest.mark.parametrize(
    ("outcome", "verdict"),
    [
        (STEADY, Verdict.PASS),
        (SLOWER, Verdict.REGRESSION),
        (FASTER, Verdict.IMPROVEMENT),
        (measured(700_000, 1_000_000, 1_400_000, 900_000, 1_200_000), Verdict.INCONCLUSIVE),
        (Unchanged(), Verdict.UNCHANGED),
    ],
)
def test_the_verdict_against_a_baseline(outcome: Outcome, verdict: Verdict) -> None:
    assert verdict_on(outcome).verdict is verdict


def test_a_comparison_shows_both_sides_and_their_ratio() -> None:
    judgement = verdict_on(SLOWER)
    assert judgement.ratio is not None
    assert judgement.ratio.estimate == pytest.approx(1.1)
    assert judgement.base["latency_ns"][0] == 1_000_000
    assert judgement.head["latency_ns"][0] == 1_100_000


def test_the_same_spread_says_less_on_a_cpu_than_on_a_gpu() -> None:
    cpu = msgspec.structs.replace(ENVIRONMENT, device="cpu-xeon-x2")
    widths = {}
    for environment in (cpu, ENVIRONMENT):
        baselines = Baselines(root="b", cases={"net/fp16/b8": stored(environment=environment)})
        ratio = judge(case(), STEADY, baselines, environment, PROTOCOL).ratio
        assert ratio is not None
        widths[environment.device] = ratio.high - ratio.low
    assert widths["cpu-xeon-x2"] > widths["nvidia-h200"]


def long(outcome: Measured) -> Measured:
    return measured(*(one.samples_ns[0] for one in outcome.launches), samples=LONG)


@pytest.mark.parametrize(
    ("outcome", "baselines", "kept"),
    [
        (long(STEADY), KNOWN, Verdict.PASS),
        (long(STEADY), NONE, Verdict.NEW),
        (long(FASTER), KNOWN, Verdict.IMPROVEMENT),
        (Unchanged(), Baselines(root="b", cases={"net/fp16/b8": stored(long(STEADY))}), Verdict.UNCHANGED),
    ],
)
def test_a_broken_slo_is_a_regression_whatever_the_baseline_says(
    outcome: Outcome, baselines: Baselines, kept: Verdict
) -> None:
    assert verdict_on(outcome, baselines, slo_ms=2.0).verdict is kept
    broken = verdict_on(outcome, baselines, slo_ms=0.5)
    assert broken.verdict is Verdict.REGRESSION
    assert "engine_p99_ms = 0.5" in broken.reason


def test_a_p99_of_too_few_samples_is_not_judged_and_says_so() -> None:
    judgement = verdict_on(STEADY, slo_ms=0.5)
    assert judgement.verdict is Verdict.PASS
    assert "p99 not judged" in judgement.reason


@pytest.mark.parametrize(
    "make", [lambda: SLOWER, lambda: Failed(stage="build", reason="broke"), lambda: measured(1)]
)
def test_a_case_that_is_red_already_keeps_its_reason_beside_a_broken_slo(make: Callable[[], Outcome]) -> None:
    assert verdict_on(make(), slo_ms=1e-9).reason == verdict_on(make()).reason


def test_the_number_of_launches_asked_for_is_the_protocols() -> None:
    two = Protocol(launches=2)
    judgement = judge(case(), measured(1_000_000, 1_000_000), KNOWN, ENVIRONMENT, two)
    assert judgement.verdict is not Verdict.INVALID
