"""When answers are right enough, when they got worse, and what that makes of a case."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from gate_runs import ENVIRONMENT, FASTER, PROTOCOL, STEADY, case, promote, run, stored

from perfgate.errors import RefusedError
from perfgate.gate.baselines import Baselines, read_baseline
from perfgate.gate.verdict.accuracy import drift, failures, judged, proven_share, with_answers
from perfgate.gate.verdict.compare_results import compare_results
from perfgate.gate.verdict.judge import judge
from perfgate.gate.verdict.summary import summarise
from perfgate.records import (
    Accuracy,
    AccuracyLimits,
    Agreement,
    CaseResult,
    Judgement,
    NotRun,
    Outcome,
    OutputAccuracy,
    TaskMetric,
    Unchanged,
    Verdict,
)


def accuracy(sqnr_db: float | None = 60.0, task: TaskMetric | None = None, **more: Any) -> Accuracy:
    output = OutputAccuracy(output="y", sqnr_db=sqnr_db, **more)
    return Accuracy(reference="r", samples=16, outputs=(output,), task=task)


def task(head: float, reference: float = 0.9) -> TaskMetric:
    return TaskMetric(name="right", reference=reference, head=head, samples=100)


@pytest.mark.parametrize(
    ("precision", "floor_db"), [("fp32", 50), ("fp16", 55), ("int8", 25), ("int8+fp16", 25)]
)
def test_sqnr_has_a_floor_by_precision_that_a_spec_may_move(precision: Any, floor_db: float) -> None:
    limits = AccuracyLimits()
    assert failures(accuracy(floor_db), limits, precision) == ()
    assert failures(accuracy(None), limits, precision) == ()  # nothing differs
    (said,) = failures(accuracy(floor_db - 0.1), limits, precision)
    assert f"below {floor_db}" in said
    assert failures(accuracy(floor_db - 9), AccuracyLimits(sqnr_db={precision: 5.0}), precision) == ()


@pytest.mark.parametrize(
    ("limits", "values", "said"),
    [
        ({"max_abs_error": 0.1}, {"max_abs_error": 0.2}, "an absolute error of 0.2, above 0.1"),
        ({"max_rel_error": 0.1}, {"max_rel_error": 0.2}, "a relative error of 0.2, above 0.1"),
        ({"cosine": 0.999}, {"cosine": 0.99}, "a cosine of 0.990000, below 0.999"),
    ],
)
def test_each_limit_of_a_spec_is_held(limits: Any, values: Any, said: str) -> None:
    assert failures(accuracy(**values), AccuracyLimits(), "fp16") == ()
    assert said in failures(accuracy(**values), AccuracyLimits(**limits), "fp16")[0]


def test_agreement_must_be_proven() -> None:
    assert proven_share(Agreement(right=299, total=299)) >= 0.99
    assert proven_share(Agreement(right=298, total=298)) < 0.99
    assert proven_share(Agreement(right=298, total=299)) < 0.99
    assert proven_share(Agreement(right=0, total=9)) == 0.0
    limits = AccuracyLimits(top1=0.99)
    # A trained classifier is judged by what it says, not by decibels.
    assert failures(accuracy(10.0, top1=Agreement(right=299, total=299)), limits, "fp16") == ()
    (said,) = failures(accuracy(90.0, top1=Agreement(right=298, total=298)), limits, "fp16")
    assert "judge it on more samples" in said
    (said,) = failures(accuracy(90.0, top1=Agreement(right=290, total=299)), limits, "fp16")
    assert "290 of 299 agree in top-1" in said
    assert "no classifier's" in failures(accuracy(90.0), limits, "fp16")[0]


def test_a_task_may_fall_by_its_share_of_the_reference() -> None:
    limits = AccuracyLimits(task_drop=0.01)
    assert failures(accuracy(3.0, task(0.892)), limits, "int8") == ()
    assert failures(accuracy(3.0, task(0.95)), limits, "int8") == ()
    assert "right is 0.89, the reference's 0.9" in failures(accuracy(3.0, task(0.89)), limits, "int8")[0]


def test_nan_names_the_output_and_the_first_layer() -> None:
    broken = accuracy(None, nonfinite=3, first_nonfinite="top (Mul)")
    assert failures(broken, AccuracyLimits(), "fp16") == (
        "output 'y' holds 3 NaN or infinite values; first at top (Mul)",
    )


def test_drift_is_held_against_the_baseline() -> None:
    limits = AccuracyLimits()
    assert drift(accuracy(57.1), accuracy(60.0), limits) == ()
    assert "fell from 60.0 to 56.9 dB" in drift(accuracy(56.9), accuracy(60.0), limits)[0]
    assert drift(accuracy(90.0), accuracy(120.0), limits) == ()  # the order of summation
    assert drift(accuracy(60.0), accuracy(None), limits)
    assert drift(accuracy(60.0), None, limits) == ()
    assert drift(accuracy(task=task(0.896)), accuracy(task=task(0.9)), limits) == ()
    assert (
        "right fell from 0.9 to 0.89" in drift(accuracy(task=task(0.89)), accuracy(task=task(0.9)), limits)[0]
    )


def gated(found: Accuracy | None, *, outcome: Outcome = FASTER, before: Accuracy | None = None) -> Judgement:
    one = case()
    base = stored()
    base = msgspec.structs.replace(base, case=msgspec.structs.replace(base.case, accuracy=before))
    baselines = Baselines(root="b", cases={one.id: base})
    judgement = judge(one, outcome, baselines, ENVIRONMENT, PROTOCOL)
    return with_answers(judgement, CaseResult(case=one, outcome=outcome, accuracy=found), baselines)


def test_wrong_answers_fail_a_case_whatever_its_speed() -> None:
    assert gated(accuracy(60.0)).verdict is Verdict.IMPROVEMENT
    assert gated(None).verdict is Verdict.IMPROVEMENT
    wrong = gated(accuracy(20.0))
    assert (wrong.verdict, wrong.code) == (Verdict.ERROR, "accuracy")
    assert wrong.reason.startswith("the answers are wrong: output 'y' has an SQNR of 20.0 dB")
    worse = gated(accuracy(56.0), before=accuracy(70.0))
    assert (worse.verdict, worse.code) == (Verdict.REGRESSION, "accuracy-drift")
    assert gated(Accuracy(reference="none", failures=("they cannot be checked",))).verdict is Verdict.ERROR


def test_a_warning_of_the_calibration_data_is_told_with_wrong_answers() -> None:
    warned = msgspec.structs.replace(
        accuracy(20.0), notes=("calibration: input 'x' is 0 everywhere", "fp16: w")
    )
    assert gated(warned).reason.endswith("below 55; calibration: input 'x' is 0 everywhere")
    assert (
        gated(msgspec.structs.replace(warned, outputs=accuracy(60.0).outputs)).verdict is Verdict.IMPROVEMENT
    )


def test_a_run_with_worse_answers_is_not_said_to_be_slower() -> None:
    worse = CaseResult(case=case(), outcome=FASTER, judgement=gated(accuracy(56.0), before=accuracy(70.0)))
    said = summarise([worse], results="r.json").sentence
    assert "less right than the baseline" in said
    assert "fell from 70.0 to 56.0 dB" in said
    assert "slower" not in said


def test_an_unchanged_case_stands_on_the_stored_accuracy_under_todays_limits() -> None:
    assert gated(None, outcome=Unchanged(), before=accuracy(60.0)).verdict is Verdict.UNCHANGED
    assert gated(None, outcome=Unchanged(), before=accuracy(40.0)).verdict is Verdict.ERROR
    assert gated(None, outcome=Unchanged()).verdict is Verdict.UNCHANGED
    assert gated(accuracy(1.0), outcome=NotRun(reason="not here")).verdict is Verdict.MISSING


def test_promote_stores_the_accuracy_and_refuses_wrong_answers(tmp_path: Path) -> None:
    result = run({"net/fp16/b8": STEADY}, tmp_path)
    with_accuracy = msgspec.structs.replace(result.cases[0], accuracy=accuracy(60.0))
    promote(msgspec.structs.replace(result, cases=(with_accuracy,)), tmp_path, reason="first")
    path = next(tmp_path.rglob("net.json"))
    assert read_baseline(path).cases["net/fp16/b8"].accuracy == accuracy(60.0)
    bad = judged(accuracy(20.0), AccuracyLimits(), "fp16")
    error = Judgement(verdict=Verdict.ERROR, reason="the answers are wrong", code="accuracy")
    wrong = msgspec.structs.replace(result.cases[0], accuracy=bad, judgement=error)
    with pytest.raises(RefusedError, match="net/fp16/b8 is ERROR"):
        promote(msgspec.structs.replace(result, cases=(wrong,)), tmp_path, reason="x", accept=["net/fp16/b8"])


def test_compare_judges_answers_too(tmp_path: Path) -> None:
    result = run({"net/fp16/b8": STEADY}, tmp_path)
    base = msgspec.structs.replace(
        result, cases=(msgspec.structs.replace(result.cases[0], accuracy=accuracy(70.0)),)
    )
    head = msgspec.structs.replace(
        result, cases=(msgspec.structs.replace(result.cases[0], accuracy=accuracy(60.0)),)
    )
    (one,) = compare_results(base, head, results="r").cases
    assert one.judgement is not None
    assert one.judgement.code == "accuracy-drift"
