from __future__ import annotations

import pytest
from gate_runs import case

from perfgate.gate.summary import SEVERITY, summarise
from perfgate.records import CaseResult, Interval, Judgement, NotRun, Summary, Verdict


def summary(*verdicts: Verdict, require_baseline: bool = False, interrupted: bool = False) -> Summary:
    cases = [
        CaseResult(
            case=case(f"net/{number}"),
            outcome=NotRun(reason=""),
            judgement=Judgement(verdict=verdict, reason=f"because {number}"),
        )
        for number, verdict in enumerate(verdicts)
    ]
    return summarise(
        cases, results="out/results.json", require_baseline=require_baseline, interrupted=interrupted
    )


GREEN = [Verdict.PASS, Verdict.UNCHANGED, Verdict.IMPROVEMENT, Verdict.NEW, Verdict.WAIVED]
RED = [Verdict.REGRESSION, Verdict.MISSING, Verdict.INCONCLUSIVE, Verdict.ERROR]
INFRASTRUCTURE = [Verdict.INVALID, Verdict.INCOMPARABLE]


@pytest.mark.parametrize(
    ("verdicts", "code"), [(GREEN, 0), (RED, 1), (INFRASTRUCTURE, 3)], ids=["green", "red", "infrastructure"]
)
def test_the_exit_code_of_a_verdict_alone(verdicts: list[Verdict], code: int) -> None:
    assert {summary(verdict).exit_code for verdict in verdicts} == {code}


@pytest.mark.parametrize("red", RED)
@pytest.mark.parametrize("infrastructure", INFRASTRUCTURE)
def test_a_red_case_wins_over_infrastructure(red: Verdict, infrastructure: Verdict) -> None:
    for verdicts in ((red, infrastructure), (infrastructure, red)):
        result = summary(*verdicts, Verdict.PASS)
        assert (result.verdict, result.exit_code) == (red, 1)


@pytest.mark.parametrize("infrastructure", INFRASTRUCTURE)
def test_infrastructure_wins_over_green(infrastructure: Verdict) -> None:
    assert summary(*GREEN, infrastructure).exit_code == 3


def test_the_run_has_the_worst_verdict_of_its_cases() -> None:
    for index, worst in enumerate(SEVERITY[:-1]):
        assert summary(*reversed(SEVERITY[index:])).verdict is worst


def test_severity_ranks_every_verdict() -> None:
    assert set(SEVERITY) == set(Verdict)


def test_numbers_are_not_offered_for_storing_beside_an_error() -> None:
    assert any("first baseline" in step for step in summary(Verdict.NEW).next_steps)
    assert not any("first baseline" in step for step in summary(Verdict.NEW, Verdict.ERROR).next_steps)


def test_new_is_red_where_a_baseline_is_required() -> None:
    assert summary(Verdict.NEW, Verdict.PASS).exit_code == 0
    required = summary(Verdict.NEW, Verdict.PASS, require_baseline=True)
    assert required.exit_code == 1
    assert any("--require-baseline" in step for step in required.next_steps)
    assert summary(Verdict.NEW, Verdict.INVALID, require_baseline=True).exit_code == 1


@pytest.mark.parametrize("verdicts", [(), (Verdict.NOT_RUN,), (Verdict.NOT_RUN, Verdict.NOT_RUN)])
def test_a_run_that_judged_nothing_is_an_error_never_green(verdicts: tuple[Verdict, ...]) -> None:
    result = summary(*verdicts)
    assert (result.verdict, result.exit_code) == (Verdict.ERROR, 1)


def test_a_case_without_a_judgement_is_not_a_pass() -> None:
    unjudged = CaseResult(case=case(), outcome=NotRun(reason=""))
    assert summarise([unjudged], results="r").exit_code == 1


def test_an_interrupted_run_is_for_infrastructure_unless_a_case_is_red() -> None:
    assert summary(Verdict.PASS, interrupted=True).exit_code == 3
    assert summary(Verdict.REGRESSION, interrupted=True).exit_code == 1
    assert "nterrupted" in summary(Verdict.PASS, interrupted=True).sentence


def test_the_counts_are_of_all_cases_that_were_listed() -> None:
    result = summary(Verdict.PASS, Verdict.PASS, Verdict.NEW, Verdict.NOT_RUN)
    assert result.counts == {"NEW": 1, "PASS": 2, "NOT RUN": 1}


def test_the_sentence_names_the_worst_regression() -> None:
    ratios = (1.1, 1.3, 1.2)
    cases = [
        CaseResult(
            case=case(f"net/{ratio}"),
            outcome=NotRun(reason=""),
            judgement=Judgement(
                verdict=Verdict.REGRESSION,
                reason="",
                ratio=Interval(estimate=ratio, low=ratio, high=ratio, confidence=0.95),
            ),
        )
        for ratio in ratios
    ]
    result = summarise(cases, results="out/results.json")
    assert "net/1.3: 30.0 % slower" in result.sentence
    assert any("promote out/results.json --accept" in step for step in result.next_steps)


@pytest.mark.parametrize("verdict", [v for v in Verdict if v is not Verdict.NOT_RUN])
def test_every_verdict_has_a_sentence_and_a_red_one_says_what_to_do(verdict: Verdict) -> None:
    one, many = summary(verdict), summary(verdict, verdict, Verdict.PASS, Verdict.UNCHANGED)
    assert one.sentence.endswith(".")
    assert many.sentence != one.sentence
    assert verdict.exit_code != 1 or one.next_steps
