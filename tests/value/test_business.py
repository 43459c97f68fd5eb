"""The business case: the project's own example, and measured stacks with their corner cases."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from business_runs import EAGER, ENGINE, STAGED, case_terms, example, measured_run

from perfgate.errors import UsageError
from perfgate.records import Judgement, Measured, MetricColumns, RunResult, Slo, Unchanged, Verdict
from perfgate.util.files import record_json
from perfgate.value.assumptions import CaseTerms
from perfgate.value.business import BusinessCase, Line
from perfgate.value.compose import given_case, measured_case
from perfgate.value.services import STAGES

TORCH = measured_run("torch", EAGER)
TRT = measured_run("tensorrt", ENGINE, precision="fp16", build_s=45, number=2)
SLO = Slo(service_p99_ms=25, service_qps=2000)
LOAD: dict[str, Any] = {"load": {"peak_per_s": 50_000, "per_month": 1e10}, "limit": {"p99_ms": 25}}


def lines(case: BusinessCase) -> dict[str, Line]:
    return {line.metric: line for line in case.lines}


def measured(
    terms: CaseTerms | None = None, *, original: RunResult = TORCH, other: RunResult = TRT, wanted: str = ""
) -> BusinessCase:
    return measured_case([original, other], terms or case_terms(**LOAD), "2026-11-24", wanted=wanted)


CASE = measured()


def test_the_example_that_started_the_project() -> None:
    found = lines(given_case(example(), "2026-11-24"))
    less = {name: round((1 - (found[name].ratio or 0)) * 100, 1) for name in found if found[name].ratio}
    assert (less["latency_ms"], less["p99_ms"], less["instance_month"]) == (60, 60, 62.5)
    assert round(less["memory_gb"]) == 39
    assert round(less["deploy_hours"]) == 83
    assert found["queries_per_s"].ratio == 1 + 300 / 100
    assert (found["instance_month"].original, found["instance_month"].tensorrt) == (1200, 450)
    assert (found["deploy_hours"].original, found["deploy_hours"].tensorrt) == (24, 4)
    assert found["instances"].original == 42
    assert found["instances"].tensorrt == 11
    assert all(line.outcome == "better" for line in found.values() if line.ratio)


def test_the_example_s_money_by_hand() -> None:
    case = given_case(example(), "2026-11-24")
    assert case.peak_from_bill
    assert case.saving_month == 42 * 1200 - 11 * 450
    assert case.payback_months == pytest.approx(10 * 800 / (case.saving_month or 0))
    assert {case.original.source, case.tensorrt.source} == {"given"}


def test_a_given_p99_beyond_the_limit_cannot_meet_it() -> None:
    terms = example()
    inputs = msgspec.structs.replace(
        terms.inputs, limit=msgspec.structs.replace(terms.inputs.limit, p99_ms=100)
    )
    case = given_case(msgspec.structs.replace(terms, inputs=inputs), "2026-11-24")
    assert case.original.capacity is not None and not case.original.capacity.met
    assert case.original.fleet is None and case.saving_month is None and case.peak_per_s is None


def test_measured_latency_throughput_and_money() -> None:
    found = lines(CASE)
    assert found["latency_ms"].original == pytest.approx(6.0 * 1.02 * 1.005, rel=0.01)
    assert found["items_per_s"].tensorrt == pytest.approx(32 / (2.0e-3 * 1.02 * 1.005), rel=0.01)
    assert found["queries_per_s"].tensorrt == pytest.approx((found["items_per_s"].tensorrt or 0) / 32)
    assert found["memory_gb"].original == 4
    assert found["instance_month"].original == pytest.approx(63.296 * 730)
    old, new = CASE.original.fleet, CASE.tensorrt.fleet
    assert old is not None and new is not None and CASE.original.capacity and CASE.tensorrt.capacity
    assert old.gpus == -(-50_000 * 1.3 // CASE.original.capacity.per_s)
    assert new.instances == -(-new.gpus // 8)
    assert new.per_million == pytest.approx(new.per_month / 1e10 * 1e6)
    assert CASE.saving_month == pytest.approx(old.per_month - new.per_month)


def test_capacity_is_simulated_beside_its_offline_bound() -> None:
    for side in (CASE.original, CASE.tensorrt):
        found = side.capacity
        assert found is not None and found.source == "simulated" and found.seeds >= 20
        assert 0 < found.low <= found.per_s <= found.high <= found.offline_per_s * 1.02
        assert [point.per_s for point in found.curve] == sorted(point.per_s for point in found.curve)
        assert found.measured_batches == (1, 8, 32)


def test_a_cold_build_loses_and_is_shown_so() -> None:
    line = lines(CASE)["deploy_hours"]
    assert line.outcome == "worse"
    assert line.tensorrt == pytest.approx(47.5 / 3600)
    stages = {stage.name: (stage.original_s, stage.tensorrt_s) for stage in CASE.stages}
    assert stages == {"build": (None, 45), "load": (2, 2), "first inference": (0.5, 0.5)}


def test_every_stage_that_a_run_timed_is_shown_and_counted() -> None:
    other = measured_run("tensorrt", ENGINE, precision="int8", build_s=45, number=2, stages=STAGED)
    case = measured(other=msgspec.structs.replace(other, probe_ns=1_500_000_000))
    stages = {stage.name: (stage.original_s, stage.tensorrt_s) for stage in case.stages}
    assert stages == {
        "environment": (None, 1.5), "export": (None, 3), "conversion": (None, 4), "calibration": (None, 60),
        "build": (None, 45), "reference": (None, None), "verification": (None, 5), "load": (2, 2),
        "first inference": (0.5, 0.5),
    }  # fmt: skip
    assert list(stages) == [name for name in STAGES if name in stages]
    assert {stage.name: stage.unknown for stage in case.stages if stage.unknown} == {
        "reference": ("tensorrt",)
    }
    assert case.tensorrt.deploy_hours == pytest.approx((1.5 + 3 + 4 + 60 + 45 + 5 + 2.5) / 3600)


def test_a_cold_and_a_warm_build_are_rows_of_their_own_and_the_cold_one_counts() -> None:
    other = measured_run("tensorrt", ENGINE, precision="fp16", build_s=45, number=2)
    first, *rest = other.cases
    assert isinstance(first.outcome, Measured) and first.recipe and first.outcome.engine
    warm = msgspec.structs.replace(
        first,
        recipe=msgspec.structs.replace(first.recipe, timing_cache_digest="c" * 64),
        outcome=msgspec.structs.replace(
            first.outcome, engine=msgspec.structs.replace(first.outcome.engine, build_ns=11_000_000_000)
        ),
    )
    case = measured(other=msgspec.structs.replace(other, cases=(warm, *rest)))
    stages = {stage.name: stage.tensorrt_s for stage in case.stages}
    assert (stages["build"], stages["build with timing cache"]) == (45, 11)
    assert case.tensorrt.deploy_hours == pytest.approx(47.5 / 3600)


def test_what_people_did_before_is_their_own_figure() -> None:
    terms = case_terms(**LOAD, deploy={"before_days": 3, "stages_s": {"calibration": 60}})
    case = measured(terms)
    assert case.original.deploy_given and case.original.deploy_hours == 24
    assert not case.tensorrt.deploy_given
    assert [stage.name for stage in case.stages if stage.given] == ["calibration"]


def test_a_limit_that_no_load_meets() -> None:
    case = measured(case_terms(load={"peak_per_s": 100}, limit={"p99_ms": 3}))
    assert case.original.capacity is not None and not case.original.capacity.met
    assert case.tensorrt.capacity is not None and case.tensorrt.capacity.met
    assert case.original.fleet is None and case.tensorrt.fleet is not None
    assert case.saving_month is None and lines(case)["capacity_per_s"].ratio is None
    assert record_json(case)


def test_both_on_one_machine_save_nothing_and_leave_room() -> None:
    case = measured(case_terms(load={"peak_per_s": 500}, limit={"p99_ms": 25}))
    assert case.saving_month == 0 and case.payback_months is None
    old, new = case.original.fleet, case.tensorrt.fleet
    assert old is not None and new is not None
    assert old.instances == new.instances == 1
    assert new.free_share > old.free_share > 0


def test_a_stack_that_costs_more_saves_less_than_nothing() -> None:
    case = measured(original=measured_run("torch", ENGINE), other=measured_run("tensorrt", EAGER, number=2))
    assert case.saving_month is not None and case.saving_month < 0
    assert case.payback_months is None
    assert lines(case)["latency_ms"].outcome == "worse"


def test_the_swings_hold_the_case_itself() -> None:
    at_one = [one for one in CASE.swings if one.factor == 1]
    assert [one.what for one in at_one] == ["load", "price"]
    assert all(one.saving == pytest.approx(CASE.saving_month) for one in at_one)
    half = next(one for one in CASE.swings if one.what == "price" and one.factor == 0.5)
    assert half.saving == pytest.approx((CASE.saving_month or 0) / 2)


def test_a_promise_in_the_spec_is_judged_without_any_input() -> None:
    promised = [
        measured_run("torch", EAGER, slo=SLO),
        measured_run("tensorrt", ENGINE, precision="fp16", slo=SLO, number=2),
    ]
    case = measured_case(promised, case_terms(), "2026-11-24")
    assert [(one.precision, one.limit_ms) for one in case.promises] == [("fp32", 25), ("fp16", 25)]
    assert case.tensorrt.capacity is not None
    assert case.promises[1].per_s == case.tensorrt.capacity.per_s > case.promises[0].per_s > 0
    assert [one.kept for one in case.promises] == [False, True], "at 2,000 requests a second"
    assert case.peak_per_s is None and case.saving_month is None


def test_without_a_limit_nothing_is_simulated() -> None:
    case = measured(case_terms())
    assert case.original.capacity is None and not case.promises
    assert lines(case)["latency_ms"].outcome == "better"


def test_like_precision_with_like_comes_before_the_fastest() -> None:
    int8 = measured_run("tensorrt", {1: 0.3, 8: 0.5, 32: 1.0}, precision="int8", number=2)
    both = msgspec.structs.replace(TRT, cases=(*TRT.cases, *int8.cases))
    half = msgspec.structs.replace(
        TORCH, cases=(*TORCH.cases, *measured_run("torch", EAGER, precision="fp16").cases)
    )
    headline = measured(original=half, other=both)
    assert (headline.original.precision, headline.tensorrt.precision) == ("fp16", "fp16")
    asked = measured(original=half, other=both, wanted="resnet50/int8")
    assert (asked.original.precision, asked.tensorrt.precision) == ("fp32", "int8")


def test_the_same_precision_is_preferred_to_the_original_s_own() -> None:
    both = msgspec.structs.replace(
        TORCH, cases=(*TORCH.cases, *measured_run("torch", EAGER, precision="fp16").cases)
    )
    assert measured(case_terms(), original=both).original.precision == "fp16"
    assert CASE.original.precision == "fp32" and CASE.tensorrt.precision == "fp16"


def test_only_batch_sizes_that_both_were_measured_at_are_compared() -> None:
    eager = {size: ms for size, ms in EAGER.items() if size != min(EAGER)}
    case = measured(original=measured_run("torch", eager))
    assert min(EAGER) in ENGINE
    assert case.original.latency_batch == case.tensorrt.latency_batch == min(eager)
    assert case.tensorrt.latency_ms == pytest.approx(ENGINE[min(eager)], rel=0.05)
    with pytest.raises(UsageError, match="no model of theirs can be set beside"):
        measured(original=measured_run("torch", {99: 1.0}))


@pytest.mark.parametrize("wanted", ["bert", "resnet50/int8"])
def test_a_model_that_is_not_there_is_refused(wanted: str) -> None:
    with pytest.raises(UsageError, match=wanted):
        measured(wanted=wanted)


def test_another_source_is_another_model() -> None:
    other = msgspec.structs.replace(
        TRT,
        cases=tuple(
            msgspec.structs.replace(
                one,
                source_digest="t" * 64,
                recipe=msgspec.structs.replace(one.recipe, onnx_digest="b" * 64) if one.recipe else None,
            )
            for one in TRT.cases
        ),
    )
    with pytest.raises(UsageError, match="no model of theirs"):
        measured(other=other)


def test_stored_medians_stand_in_and_are_marked() -> None:
    def stored(run: RunResult, ms: dict[int, float]) -> RunResult:
        cases = []
        for one in run.cases:
            ns = ms[one.case.items] * 1e6
            base: MetricColumns = {
                "latency_ns": (ns, ns * 1.01),
                "p99_ns": (ns * 1.1, ns * 1.1),
                "samples": (2000, 2000),
                "throughput_qps": (1e9 / ns, 1e9 / ns),
            }
            judged = Judgement(verdict=Verdict.UNCHANGED, reason="same", base=base)
            cases.append(msgspec.structs.replace(one, outcome=Unchanged(), judgement=judged))
        return msgspec.structs.replace(run, cases=tuple(cases))

    case = measured(other=stored(TRT, ENGINE))
    assert case.tensorrt.source == "stored" and case.original.source == "measured"
    assert case.tensorrt.capacity is not None and case.tensorrt.capacity.met


def test_a_case_reads_back_as_it_was_written() -> None:
    assert msgspec.json.decode(record_json(CASE), type=BusinessCase) == CASE
