from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from gate_runs import SLOWER, STEADY, case, measured, promote, run, seed

from perfgate.errors import RefusedError
from perfgate.gate.verdict.summary import SEVERITY, summarise
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


def red(case_id: str, ratio: float = 1.1, verdict: Verdict = Verdict.REGRESSION) -> CaseResult:
    interval = Interval(estimate=ratio, low=ratio, high=ratio, confidence=0.95)
    return CaseResult(
        case=case(case_id),
        outcome=NotRun(reason=""),
        judgement=Judgement(verdict=verdict, reason="", ratio=interval),
    )


def steps(*cases: CaseResult, dirty: bool = False) -> str:
    return "\n".join(summarise(cases, results="r.json", dirty=dirty).next_steps)


def test_every_regression_is_named_where_it_is_meant_and_the_worst_is_measured_alone() -> None:
    said = steps(red("net/N1", 1.1), red("net/N4", 1.3), red("net/N8", 1.0, Verdict.PASS))
    assert "measure it alone: perfgate run -k net/N4 --remeasure" in said
    assert "if they are meant: perfgate promote r.json --accept net/N4 --accept net/N1 --reason" in said


def test_many_regressions_are_promoted_some_at_a_time() -> None:
    said = steps(*(red(f"net/fp16/b{number}", 1 + number / 10) for number in range(1, 8)))
    # Not all at once; and `-k net/fp16/b7` selects no other.
    assert "some at a time: perfgate promote r.json -k net/fp16/b7 --accept net/fp16/b7 --reason" in said


@pytest.mark.parametrize(
    ("verdict", "said"),
    [(Verdict.NEW, "store these numbers"), (Verdict.IMPROVEMENT, "keep the gain")],
)
def test_new_numbers_and_gains_beside_a_regression_are_promoted_some_at_a_time(
    verdict: Verdict, said: str
) -> None:
    more = [red(f"m{number}/fp16/b1", verdict=verdict) for number in range(3)]
    found = steps(red("x/fp32/b1"), *more)
    assert f"{said}, some at a time: perfgate promote r.json -k m0/fp16/b1 --reason" in found


def test_a_case_that_another_contains_in_its_name_is_not_promoted_with_it() -> None:
    said = steps(red("net/b1", 1.2), red("net/b16", 1.0, Verdict.INVALID), red("net/b2", 1.1))
    assert "some at a time: perfgate promote r.json -k net/b2 --accept net/b2 --reason" in said
    assert "promote" not in steps(red("net/b1", 1.2), red("net/b16", 1.0, Verdict.INVALID))


def test_a_regression_beside_a_removal_is_promoted_without_it() -> None:
    said = steps(red("net/a"), red("net/b"), red("old/a", 1.0, Verdict.MISSING))
    assert "if they are meant: perfgate promote r.json -k net/ --accept net/a --accept net/b" in said
    assert "if it was removed on purpose: perfgate promote r.json -k old/ --accept old/a" in said


def test_an_id_with_brackets_is_quoted_for_the_shell() -> None:
    assert "--accept 'test_x.py::test_y[a b]'" in steps(red("test_x.py::test_y[a b]"))


def test_what_promote_refuses_is_not_offered(tmp_path: Path) -> None:
    """The launches of a busy machine are judged NEW, and not to be promoted."""
    busy = measured(*[1_000_000] * 5, invalid="shared")
    result = run({"net/a": busy}, tmp_path)
    assert result.summary is not None
    assert not any("promote" in step for step in result.summary.next_steps)
    assert "run again on a quiet machine: perfgate run" in result.summary.next_steps
    with pytest.raises(RefusedError):
        promote(result, tmp_path, reason="first baseline")
    beside = run({"net/a": busy, "other/a": STEADY}, tmp_path).summary
    assert beside is not None
    assert any("promote results.json -k other/ --reason" in step for step in beside.next_steps)


def test_promote_takes_what_the_advice_says(tmp_path: Path) -> None:
    seed(tmp_path, ["net/a", "net/b", "net/c"])
    result = run({"net/a": SLOWER, "net/b": SLOWER, "net/c": STEADY}, tmp_path)
    assert result.summary is not None
    (advice,) = (step for step in result.summary.next_steps if "promote" in step)
    words = shlex.split(advice.partition(": ")[2])
    accept = [words[at + 1] for at, word in enumerate(words) if word == "--accept"]
    promote(result, tmp_path, reason="meant", accept=accept)


@pytest.mark.parametrize("verdict", [Verdict.REGRESSION, Verdict.MISSING, Verdict.NEW, Verdict.IMPROVEMENT])
def test_of_a_tree_with_uncommitted_changes_the_commit_comes_first(verdict: Verdict) -> None:
    clean, dirty = (steps(red("net/a", 1.0, verdict), dirty=one) for one in (False, True))
    assert "commit" not in clean
    assert dirty.index("commit and run again before you promote") < dirty.index("perfgate promote")


def test_something_is_stored_where_another_case_was_compared() -> None:
    alone = summary(Verdict.NEW, Verdict.NEW, Verdict.NOT_RUN).sentence
    assert alone == "All 2 cases are new: nothing is stored for this machine to compare with."
    beside = summary(Verdict.NEW, Verdict.UNCHANGED).sentence
    assert beside == "1 of 2 cases is new: nothing is stored to compare it with."
    two = summary(Verdict.NEW, Verdict.NEW, Verdict.UNCHANGED).sentence
    assert two == "2 of 3 cases are new: nothing is stored to compare them with."


@pytest.mark.parametrize(
    ("verdicts", "sentence"),
    [
        ([Verdict.ERROR], "The only case failed."),
        ([Verdict.ERROR, Verdict.ERROR], "All 2 cases failed."),
        ([Verdict.ERROR, Verdict.PASS], "1 of 2 cases failed."),
        ([Verdict.INVALID], "The only case was not measured validly."),
        ([Verdict.INVALID, Verdict.INVALID, Verdict.PASS], "2 of 3 cases were not measured validly."),
    ],
)
def test_the_sentence_is_english(verdicts: list[Verdict], sentence: str) -> None:
    assert summary(*verdicts).sentence == sentence
