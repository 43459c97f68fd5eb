"""Metrics beside latency, absolute promises, and whose fault a slowdown is."""

from __future__ import annotations

import msgspec
import pytest
from gate_runs import DIGEST, ENVIRONMENT, PROTOCOL, STEADY, case, launch, measured, stored

from perfgate.gate.baselines import Baselines
from perfgate.gate.statistics.noise import spread_of
from perfgate.gate.statistics.sequential import decide_next
from perfgate.gate.verdict.evidence import ConfirmedLaunches, Evidence, ServiceLatency
from perfgate.gate.verdict.judge import judge
from perfgate.gate.verdict.latency import lower_clock, shared_shift
from perfgate.gate.verdict.metrics import METRICS, judge_metrics
from perfgate.records import (
    Confirmation,
    EngineFacts,
    Floor,
    Judgement,
    Launch,
    Measured,
    MetricColumns,
    Slo,
    Telemetry,
    Tolerance,
    Unchanged,
    Verdict,
    columns,
)

TOLERANCE = Tolerance(ignore=0.005, catch=0.02)
SPREAD = spread_of("gpu")
KNOWN = Baselines(root="baselines", cases={"net/fp16/b8": stored()})
EIGHT = (1_000_000, 1_001_000, 999_000, 1_000_500, 999_500, 1_000_000, 1_000_200, 999_800)


def sides(name: str, base: float, head: float, samples: int = 2000) -> tuple[MetricColumns, MetricColumns]:
    return tuple(  # type: ignore[return-value]
        {"latency_ns": (1_000_000,) * 5, "samples": (samples,) * 5, name: (value,) * 5}
        for value in (base, head)
    )


def one(name: str, base: float, head: float, *, fresh: bool = True, samples: int = 2000) -> Verdict | None:
    found = judge_metrics(*sides(name, base, head, samples), SPREAD, fresh=fresh)
    return found[0].verdict if found else None


MIB = 1 << 20


@pytest.mark.parametrize(
    ("name", "base", "head", "verdict"),
    [
        ("throughput_qps", 1000.0, 900.0, Verdict.REGRESSION),
        ("throughput_qps", 1000.0, 1100.0, Verdict.IMPROVEMENT),
        ("throughput_qps", 1000.0, 995.0, Verdict.PASS),
        ("p99_ns", 1_000_000, 1_200_000, Verdict.REGRESSION),
        ("p99_ns", 30_000, 36_000, Verdict.PASS),  # 20 %, yet only 6 µs: under the absolute floor
        ("peak_memory_bytes", 1000 * MIB, 1100 * MIB, Verdict.REGRESSION),
        ("peak_memory_bytes", 100 * MIB, 110 * MIB, Verdict.PASS),  # 10 %, yet only 10 MiB
        ("peak_memory_bytes", 1000 * MIB, 1030 * MIB, Verdict.PASS),  # 30 MiB, yet only 3 %
        ("peak_memory_bytes", 1000 * MIB, 800 * MIB, Verdict.IMPROVEMENT),
        ("engine_bytes", 50 * MIB, 60 * MIB, Verdict.REGRESSION),
        ("device_memory_bytes", 50 * MIB, 60 * MIB, Verdict.REGRESSION),
    ],
)
def test_each_metric_in_its_own_direction_with_both_floors(
    name: str, base: float, head: float, verdict: Verdict
) -> None:
    assert one(name, base, head) is verdict


def test_every_metric_has_a_case_above_and_advisory_ones_fail_nothing() -> None:
    found = judge_metrics(*sides("build_ns", 40e9, 90e9), SPREAD, fresh=True)
    assert [(one.metric, one.verdict, one.advisory) for one in found] == [
        ("build_ns", Verdict.REGRESSION, True)
    ]
    assert [name for name, metric in METRICS.items() if metric.advisory] == ["build_ns"]


def test_a_p99_of_a_launch_with_too_few_samples_is_not_judged() -> None:
    assert one("p99_ns", 1_000_000, 2_000_000, samples=1000) is None
    assert one("p99_ns", 1_000_000, 2_000_000, samples=1001) is Verdict.REGRESSION


def test_a_timed_metric_against_stored_launches_allows_for_another_machine() -> None:
    assert one("throughput_qps", 1000.0, 930.0, fresh=True) is Verdict.REGRESSION
    assert one("throughput_qps", 1000.0, 930.0, fresh=False) is Verdict.PASS
    assert one("throughput_qps", 1000.0, 500.0, fresh=False) is Verdict.REGRESSION


def test_a_cases_own_floor_wins() -> None:
    base, head = sides("engine_bytes", 50 * MIB, 60 * MIB)
    own = {"engine_bytes": Floor(relative=0.5)}
    assert judge_metrics(base, head, SPREAD, fresh=True, floors=own)[0].verdict is Verdict.PASS


def test_a_metric_that_one_side_lacks_is_not_judged() -> None:
    base, head = sides("engine_bytes", 50, 60)
    assert judge_metrics({"latency_ns": base["latency_ns"]}, head, SPREAD, fresh=True) == ()


def test_the_engines_facts_stand_beside_every_launch() -> None:
    engine = EngineFacts(digest=DIGEST, engine_bytes=7, device_memory_bytes=9, build_ns=11)
    found = columns(STEADY.launches, engine)
    assert (found["engine_bytes"], found["device_memory_bytes"], found["build_ns"]) == (
        (7,) * 5,
        (9,) * 5,
        (11,) * 5,
    )
    cached = columns(STEADY.launches, msgspec.structs.replace(engine, cached=True))
    assert "build_ns" not in cached, "what a cache answers took no build"


def test_a_larger_engine_turns_a_pass_and_says_so() -> None:
    small = EngineFacts(digest=DIGEST, engine_bytes=50 * MIB)
    large = msgspec.structs.replace(small, engine_bytes=80 * MIB)
    known = stored()
    base = msgspec.structs.replace(known.case, metrics=columns(STEADY.launches, small))
    baselines = Baselines(root="b", cases={"net/fp16/b8": msgspec.structs.replace(known, case=base)})
    outcome = msgspec.structs.replace(STEADY, engine=large)
    judgement = judge(case(), outcome, baselines, ENVIRONMENT, PROTOCOL)
    assert (judgement.verdict, judgement.code) == (Verdict.REGRESSION, "metric/engine_bytes")
    assert "+60.0 %" in judgement.reason
    wide = case(floors={"engine_bytes": Floor(relative=1.0)})
    assert judge(wide, outcome, baselines, ENVIRONMENT, PROTOCOL).verdict is Verdict.PASS


def test_a_larger_engine_is_seen_by_fresh_launches_too() -> None:
    small = EngineFacts(digest=DIGEST, engine_bytes=50 * MIB)
    known = stored()
    base = msgspec.structs.replace(known.case, metrics=columns(STEADY.launches, small))
    baselines = Baselines(root="b", cases={"net/fp16/b8": msgspec.structs.replace(known, case=base)})
    large = msgspec.structs.replace(scaled(1.0), engine=EngineFacts(digest=DIGEST, engine_bytes=80 * MIB))
    judgement = fresh_judgement(scaled(1.0), large, baselines)
    assert (judgement.verdict, judgement.code) == (Verdict.REGRESSION, "metric/engine_bytes")


def fresh_judgement(base: Measured, head: Measured, baselines: Baselines = KNOWN) -> Judgement:
    medians = [[one.median_ns for one in side.launches] for side in (base, head)]
    fresh = ConfirmedLaunches(
        base=base.launches,
        decision=decide_next(medians[0], medians[1], TOLERANCE, SPREAD),
        confirmation=Confirmation(
            base_launches=len(base.launches), head_launches=len(head.launches), decided=True
        ),
    )
    return judge(case(), head, baselines, ENVIRONMENT, PROTOCOL, evidence=Evidence(fresh=fresh))


def scaled(factor: float) -> Measured:
    return measured(*(round(value * factor) for value in EIGHT))


def test_a_base_that_is_slower_already_takes_the_blame_from_head() -> None:
    judgement = fresh_judgement(scaled(1.1), scaled(1.1))
    assert (judgement.verdict, judgement.code) == (Verdict.PASS, "already-on-base")
    assert "base itself is 10.0 % slower than its baseline" in judgement.reason
    assert judgement.base["latency_ns"][0] == 1_100_000


def test_a_head_that_is_slower_than_a_slow_base_is_to_blame() -> None:
    judgement = fresh_judgement(scaled(1.1), scaled(1.2))
    assert (judgement.verdict, judgement.code) == (Verdict.REGRESSION, "")
    assert judgement.ratio is not None
    assert judgement.ratio.estimate == pytest.approx(1.2 / 1.1, rel=1e-3)


def test_a_head_that_is_slower_than_the_baseline_and_no_slower_than_base_passes_by_fresh_launches() -> None:
    judgement = fresh_judgement(scaled(1.0), scaled(1.0))
    assert (judgement.verdict, judgement.code) == (Verdict.PASS, "")
    assert "by fresh launches" in judgement.reason


def test_a_head_that_makes_good_what_base_lost_is_an_improvement() -> None:
    assert fresh_judgement(scaled(1.1), scaled(1.0)).verdict is Verdict.IMPROVEMENT


def test_a_budget_that_ran_out_on_a_head_that_may_be_faster_is_a_pass() -> None:
    base, head = measured(*EIGHT[:4]), measured(*(round(value * 0.985) for value in EIGHT[:4]))
    assert decide_next(EIGHT[:4], [0.985 * value for value in EIGHT[:4]], TOLERANCE, SPREAD).verdict is None
    assert fresh_judgement(base, head).verdict is Verdict.PASS


def test_an_undecided_confirmation_says_how_many_launches_it_would_take() -> None:
    base, head = measured(*EIGHT[:2]), measured(*(round(value * 1.02) for value in EIGHT[:2]))
    judgement = fresh_judgement(base, head)
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert "it would take about" in judgement.reason


def test_no_valid_fresh_launch_of_head_is_invalid() -> None:
    judgement = fresh_judgement(scaled(1.0), measured(*EIGHT, invalid="a neighbour"))
    assert judgement.verdict is Verdict.INVALID


def test_no_valid_fresh_launch_of_base_is_invalid() -> None:
    judgement = fresh_judgement(measured(*EIGHT, invalid="a neighbour"), scaled(1.0))
    assert judgement.verdict is Verdict.INVALID
    assert "base" in judgement.reason
    assert "a neighbour" in judgement.reason


def test_the_reason_says_what_the_test_weighed() -> None:
    slower = fresh_judgement(scaled(1.0), scaled(1.1))
    assert "1,000,000 times likelier 2 % slower or more" in slower.reason
    assert "times likelier 0.5 % slower or less" in fresh_judgement(scaled(1.0), scaled(1.0)).reason


def clocked(mhz: int, count: int = 4) -> list[Launch]:
    telemetry = Telemetry(sm_clock_mhz=(mhz,))
    return [msgspec.structs.replace(launch(1_000_000), telemetry=telemetry) for _ in range(count)]


@pytest.mark.parametrize(
    ("base_mhz", "head_mhz", "ratio", "named"),
    [
        (1980, 1890, 1.05, True),
        (1980, 1970, 1.05, False),
        (1890, 1980, 1.05, False),
        (1980, 1890, 0.9, False),
    ],
)
def test_a_clock_is_named_where_it_explains_half_of_a_slowdown(
    base_mhz: int, head_mhz: int, ratio: float, named: bool
) -> None:
    assert bool(lower_clock(clocked(base_mhz), clocked(head_mhz), ratio)) is named


def test_clocks_that_overlap_or_are_unknown_name_nothing() -> None:
    mixed = [*clocked(1980, 2), *clocked(1800, 2)]
    assert not lower_clock(mixed, clocked(1850), 1.05)
    assert not lower_clock([launch(1)], clocked(1850), 1.05)


def test_a_shift_of_both_sides_is_seen_only_where_it_is_real_and_large() -> None:
    steps = [1.0, 1.001, 0.999, 1.0, 1.05, 1.051, 1.049, 1.05]
    assert "moved together by 5." in shared_shift(steps, [value * 1.0005 for value in steps], TOLERANCE)
    small = [1.0, 1.001, 0.999, 1.0, 1.01, 1.011, 1.009, 1.01]
    assert not shared_shift(small, small, TOLERANCE)
    assert not shared_shift(steps, list(reversed(steps)), TOLERANCE)
    assert not shared_shift(steps[:3], steps[:3], TOLERANCE)


@pytest.mark.parametrize(
    ("slo", "tail", "verdict", "words"),
    [
        (Slo(service_p99_ms=5.0, service_qps=100), ServiceLatency(p99_ms=4.0), Verdict.UNCHANGED, ""),
        (
            Slo(service_p99_ms=5.0, service_qps=100),
            ServiceLatency(p99_ms=6.0),
            Verdict.REGRESSION,
            "at 100 queries/s is 6 ms",
        ),
        (Slo(service_p99_ms=5.0, service_qps=100), None, Verdict.UNCHANGED, "service_p99_ms not judged"),
        (
            Slo(service_p99_ms=5.0, service_qps=100),
            ServiceLatency(capacity_qps=90.0),
            Verdict.REGRESSION,
            "100 queries/s cannot be served: one lane serves 90",
        ),
        (
            Slo(service_p99_ms=5.0, service_qps=100),
            ServiceLatency(why="2 streams share it"),
            Verdict.UNCHANGED,
            "not judged: 2 streams share it",
        ),
        (Slo(service_p99_ms=5.0), ServiceLatency(p99_ms=6.0), Verdict.UNCHANGED, "it names no load"),
    ],
)
def test_a_service_slo_is_judged_at_its_load_on_stored_numbers_too(
    slo: Slo, tail: ServiceLatency | None, verdict: Verdict, words: str
) -> None:
    judgement = judge(
        case(slo=slo), Unchanged(), KNOWN, ENVIRONMENT, PROTOCOL, evidence=Evidence(service=tail)
    )
    assert judgement.verdict is verdict
    assert words in judgement.reason


@pytest.mark.parametrize(
    ("metric", "floor", "said"),
    [
        ("engine_bytes", Floor(relative=0.1, absolute=1 << 20), "floor 10 % and 1 MiB"),
        ("peak_memory_bytes", Floor(relative=0.05, absolute=2048), "floor 5 % and 2 KiB"),
        ("device_memory_bytes", Floor(relative=0.05, absolute=100), "floor 5 % and 100"),
        ("build_ns", Floor(relative=0.5, absolute=10_000_000_000), "floor 50 % and 10 s"),
        ("p99_ns", Floor(relative=0.05, absolute=10_000), "floor 5 % and 10 µs"),
        ("p99_ns", Floor(relative=0.05, absolute=2_500_000), "floor 5 % and 2.5 ms"),
        ("p99_ns", Floor(relative=0.05, absolute=20), "floor 5 % and 20 ns"),
        ("throughput_qps", Floor(relative=0.02, absolute=0), "floor 2 %"),
        ("throughput_qps", Floor(relative=0.02, absolute=0.5), "floor 2 % and 0.5"),
        ("throughput_qps", Floor(relative=0.02, absolute=3), "floor 2 % and 3 queries/s"),
    ],
)
def test_both_halves_of_a_floor_are_told(metric: str, floor: Floor, said: str) -> None:
    columns: MetricColumns = {metric: (1e9,) * 5, "samples": (2000,) * 5}
    (found,) = judge_metrics(columns, columns, spread_of("gpu"), fresh=True, floors={metric: floor})
    assert found.reason.endswith(f"is-better, {said}")
