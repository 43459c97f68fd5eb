from __future__ import annotations

from pathlib import Path

import msgspec
from gate_runs import ENVIRONMENT, SLOWER, STEADY, judged_run, measured, run, seed

from perfgate.gate.baselines import Baselines, load_baselines
from perfgate.gate.verdict.compare_results import compare_results
from perfgate.records import (
    CaseResult,
    Confirmation,
    EngineFacts,
    Failed,
    Judgement,
    Outcome,
    RunResult,
    Unchanged,
    Verdict,
)

NONE = Baselines(root="none")


def fresh(**outcomes: Outcome) -> RunResult:
    return judged_run({f"net/{name}": outcome for name, outcome in outcomes.items()}, NONE)


def verdicts(base: RunResult, head: RunResult) -> dict[str, Verdict]:
    result = compare_results(base, head, results="head.json")
    return {one.case.id: one.judgement.verdict for one in result.cases if one.judgement}


def test_a_run_compared_with_itself_passes() -> None:
    result = compare_results(fresh(a=STEADY), fresh(a=STEADY), results="r")
    assert result.summary is not None
    assert (result.summary.verdict, result.summary.exit_code) == (Verdict.PASS, 0)


def test_each_case_of_head_is_judged_against_base() -> None:
    base, head = fresh(a=STEADY, b=STEADY, c=STEADY), fresh(a=STEADY, b=SLOWER, d=STEADY)
    assert verdicts(base, head) == {
        "net/a": Verdict.PASS,
        "net/b": Verdict.REGRESSION,
        "net/c": Verdict.MISSING,
        "net/d": Verdict.NEW,
    }


def test_builds_that_no_cache_told_are_compared_by_the_wider_tolerance() -> None:
    """Two first builds of one model differ by more than launches of one build."""
    slower = measured(1_025_000, 1_026_000, 1_024_000, 1_025_500, 1_024_500)
    assert verdicts(fresh(a=STEADY), fresh(a=slower)) == {"net/a": Verdict.REGRESSION}
    anew = EngineFacts(
        digest="cd" * 32, engine_bytes=1000, timing_cache_bytes=10, timing_cache_loaded_bytes=0
    )
    head = fresh(a=msgspec.structs.replace(slower, engine=anew))
    result = compare_results(fresh(a=STEADY), head, results="r")
    (judgement,) = [one.judgement for one in result.cases]
    assert judgement is not None and judgement.verdict is Verdict.PASS
    assert judgement.tolerance is not None and judgement.tolerance.catch > 0.04


def test_a_case_that_a_sequential_test_decided_is_whole_with_the_launches_that_it_took() -> None:
    head = fresh(a=measured(*(round(one.median_ns) for one in SLOWER.launches[:4])))
    assert verdicts(fresh(a=STEADY), head) == {"net/a": Verdict.INVALID}, "four of five, and nobody says why"
    decided = Confirmation(base_launches=4, head_launches=4, decided=True)
    judged = Judgement(verdict=Verdict.REGRESSION, reason="slower", confirmation=decided)
    case = msgspec.structs.replace(head.cases[0], judgement=judged)
    head = msgspec.structs.replace(head, cases=(case,))
    assert verdicts(fresh(a=STEADY), head) == {"net/a": Verdict.REGRESSION}


def test_swapping_the_files_turns_a_regression_into_an_improvement() -> None:
    assert verdicts(fresh(a=SLOWER), fresh(a=STEADY)) == {"net/a": Verdict.IMPROVEMENT}


def test_two_environments_are_incomparable() -> None:
    other = msgspec.structs.replace(ENVIRONMENT, key={"tensorrt": "11.0", "driver": "580"})
    head = msgspec.structs.replace(fresh(a=STEADY), environment=other)
    assert verdicts(fresh(a=STEADY), head) == {"net/a": Verdict.INCOMPARABLE}


def test_a_base_that_was_unchanged_is_compared_by_the_numbers_it_relied_on(tmp_path: Path) -> None:
    seed(tmp_path, ["net/a"])
    assert verdicts(run({"net/a": Unchanged()}, tmp_path), fresh(a=SLOWER)) == {"net/a": Verdict.REGRESSION}


def other_build(result: RunResult) -> RunResult:
    cases = tuple(msgspec.structs.replace(one, case_digest="ef" * 32) for one in result.cases)
    return msgspec.structs.replace(result, cases=cases)


def test_a_head_unchanged_from_its_own_baseline_is_not_unchanged_from_another_build(tmp_path: Path) -> None:
    slow = run({"net/a": SLOWER}, tmp_path)
    seed(tmp_path, ["net/a"])
    head = run({"net/a": Unchanged()}, tmp_path)
    assert verdicts(fresh(a=STEADY), head) == {"net/a": Verdict.UNCHANGED}
    assert verdicts(other_build(slow), head) == {"net/a": Verdict.IMPROVEMENT}


def test_a_head_that_claims_to_be_unchanged_and_holds_no_numbers_is_an_error() -> None:
    bare = fresh(a=STEADY)
    claim = (CaseResult(case=bare.cases[0].case, outcome=Unchanged(), case_digest="ef" * 32),)
    head = msgspec.structs.replace(bare, cases=claim)
    assert verdicts(bare, head) == {"net/a": Verdict.ERROR}


def test_a_failed_case_of_head_is_an_error_and_of_base_no_baseline() -> None:
    broken = Failed(stage="build", reason="broke")
    assert verdicts(fresh(a=STEADY), fresh(a=broken)) == {"net/a": Verdict.ERROR}
    assert verdicts(fresh(a=broken), fresh(a=STEADY)) == {"net/a": Verdict.NEW}


def test_a_base_whose_launches_are_all_invalid_is_no_baseline() -> None:
    base = fresh(a=measured(*[1_000_000] * 5, invalid="slowed down"))
    assert verdicts(base, fresh(a=STEADY)) == {"net/a": Verdict.NEW}


def test_two_empty_runs_are_an_error_never_green() -> None:
    result = compare_results(fresh(), fresh(), results="r")
    assert result.summary is not None
    assert result.summary.exit_code == 1


def test_comparing_writes_nothing_and_keeps_both_files_as_they_were(tmp_path: Path) -> None:
    base, head = fresh(a=STEADY), fresh(a=SLOWER)
    compare_results(base, head, results=str(tmp_path / "r"))
    assert list(tmp_path.iterdir()) == []
    assert load_baselines(tmp_path, ENVIRONMENT).cases == {}
    assert head == fresh(a=SLOWER)
