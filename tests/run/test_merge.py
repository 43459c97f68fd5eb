"""Shards put together again: whole, once, of one commit; and what is said where they are not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from msgspec.structs import replace
from publish_runs import result, run

from perfgate.cli.app import cli
from perfgate.gate.verdict.summary import of_share, summarise
from perfgate.records import Commit, Environment, RunResult, Scope, Verdict
from perfgate.report.run.legs import LIMIT, headline, markdown
from perfgate.run.merge import exit_code, merge
from perfgate.run.shards import read_scope, share
from perfgate.util.files import record_json

PLAN = ("a/fp16/b1", "b/fp16/b1", "c/fp16/b1", "d/fp16/b1", "e/fp16/b1")


def shard(number: int, count: int = 2, *, leg: str = "gpu", verdict: Verdict = Verdict.PASS) -> RunResult:
    scope = Scope(leg=leg, plan=PLAN, shard=number, shards=count)
    cases = [result(name, verdict, 1.5) for name in PLAN[number - 1 :: count]]
    return run(*cases, scope=scope, summary=summarise(cases, results="r"))


def test_the_shards_of_a_run_are_one_run_in_the_plans_order() -> None:
    (leg,) = merge([shard(2), shard(1)], expected=["gpu"])
    assert leg.faults == ()
    assert leg.result is not None
    assert tuple(case.case.id for case in leg.result.cases) == PLAN
    assert exit_code([leg]) == 0
    assert leg.result.summary is not None
    assert leg.result.summary.counts == {"PASS": 5}


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda a, b: [a], "shard 2/2 did not arrive"),
        (lambda a, b: [a, b, b], "shard 2/2 is there twice"),
        (lambda a, b: [a, replace(b, cases=b.cases[1:])], "1 of 5 cases have no result, such as b/fp16/b1"),
        (lambda a, b: [a, replace(b, cases=(*b.cases, a.cases[0]))], "measured by two shards"),
        (lambda a, b: [a, replace(b, cases=(*b.cases, result("x/fp16/b1")))], "not in the plan, such as x"),
        (lambda a, b: [a, replace(b, commit=Commit(sha="d" * 40))], "differ in their commit"),
        (lambda a, b: [a, replace(b, scope=replace(b.scope, plan=PLAN[:4]))], "do not divide the same plan"),
        (lambda a, b: [a, replace(b, environment=Environment(device="x", toolchain="y", key={}))], "device"),
        (lambda a, b: [a, replace(b, cases=tuple(replace(c, judgement=None) for c in b.cases))], "judged"),
    ],
)
def test_a_union_that_is_not_whole_is_never_green(
    spoil: Callable[[RunResult, RunResult], list[RunResult]], said: str
) -> None:
    legs = merge(spoil(shard(1), shard(2)))
    assert said in "; ".join(legs[0].faults)
    assert exit_code(legs) == 3


def test_an_expected_leg_that_did_not_arrive_and_one_that_nobody_expected() -> None:
    legs = merge([shard(1, 1), shard(1, 1, leg="stray")], expected=["gpu", "lost"])
    said = {leg.name: leg.faults for leg in legs}
    assert said["gpu"] == ()
    assert said["lost"] == ("no results arrived from this runner",)
    assert "was not expected" in said["stray"][0]
    assert exit_code(legs) == 3


def test_nothing_at_all_is_never_green() -> None:
    assert exit_code(merge([])) == 3


def test_a_red_case_wins_over_a_missing_shard() -> None:
    legs = merge([shard(1, verdict=Verdict.REGRESSION)])
    assert exit_code(legs) == 1
    assert "slower than allowed" in headline(legs, 1)


def test_legs_of_different_commits_are_not_one_result() -> None:
    other = replace(shard(1, 1, leg="l4"), commit=Commit(sha="d" * 40))
    legs = merge([shard(1, 1), other])
    assert all("different commits" in leg.faults[0] for leg in legs)


def test_a_required_baseline_stays_required_after_merging() -> None:
    cases = [result(name, Verdict.NEW) for name in PLAN]
    scope = Scope(leg="gpu", plan=PLAN)
    summary = summarise(cases, results="r", require_baseline=True)
    assert exit_code(merge([run(*cases, scope=scope, summary=summary)])) == 1


def test_many_legs_make_one_comment_within_the_limit_worst_first() -> None:
    legs = merge(
        [shard(1, 1, leg=f"leg{n:03}", verdict=Verdict.PASS) for n in range(60)]
        + [shard(1, 1, leg="slow", verdict=Verdict.REGRESSION)]
    )
    text = markdown(legs, exit_code(legs))
    assert len(text) <= LIMIT
    assert text.index("#### slow") < text.index("#### leg000")
    assert "✗ perfgate failed" in text.splitlines()[0]


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_every_case_falls_to_exactly_one_shard(count: int) -> None:
    scopes = [read_scope("gpu", f"{n}/{count}", PLAN, device="d") for n in range(1, count + 1)]
    assert sorted(case for scope in scopes for case in share(PLAN, scope, str)) == list(PLAN)


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/0", "-1/2", "1/2/3"])
def test_a_shard_that_is_none_is_a_usage_error(text: str) -> None:
    done = CliRunner().invoke(cli, ["run", "--shard", text, "--backend", "onnxruntime", "--device", "cpu"])
    assert done.exit_code != 0


def test_the_command_writes_a_folder_a_leg_and_one_first_page(tmp_path: Path) -> None:
    for number, part in enumerate([shard(1), shard(2), shard(1, 1, leg="l4", verdict=Verdict.REGRESSION)]):
        path = tmp_path / "in" / str(number) / "results.json"
        path.parent.mkdir(parents=True)
        path.write_text(record_json(part))
    out = tmp_path / "out"
    done = CliRunner().invoke(
        cli, ["merge", str(tmp_path / "in"), "--expect", "gpu", "--expect", "l4", "--out", str(out)]
    )
    assert done.exit_code == 1, done.output
    assert len(json.loads((out / "gpu/results.json").read_text())["cases"]) == 5
    page = (out / "index.html").read_text()
    assert 'href="l4/report.html"' in page and (out / "l4/report.html").is_file()
    assert "REGRESSION" in (out / "comment.md").read_text()


def test_the_command_exits_3_where_a_leg_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(record_json(shard(1, 1)))
    done = CliRunner().invoke(
        cli, ["merge", str(path), "--expect", "gpu", "--expect", "l4", "--out", str(tmp_path / "out")]
    )
    assert done.exit_code == 3
    assert "l4: no results arrived" in done.output


@pytest.mark.parametrize("skipped", [False, True])
def test_a_share_with_nothing_to_judge_is_fine_and_an_empty_whole_is_not(skipped: bool) -> None:
    plan = ("a/fp16/b1",) if not skipped else ("a/fp16/b1", "b/fp16/b1")
    mine = [result("b/fp16/b1", Verdict.NOT_RUN)] if skipped else []
    scope = Scope(leg="gpu", plan=plan, shard=2, shards=2)
    empty = summarise(mine, results="r")
    share_of = of_share(empty, scope)
    assert (empty.exit_code, share_of.exit_code) == (1, 0)
    assert f"share 2/2 of {len(plan)} cases has none that runs" in share_of.sentence
    cases = [result("a/fp16/b1", Verdict.PASS)]
    first = run(*cases, scope=replace(scope, shard=1), summary=summarise(cases, results="r"))
    second = run(*mine, scope=scope, summary=share_of)
    (leg,) = merge([first, second])
    assert (leg.faults, exit_code([leg])) == ((), 0)
    assert exit_code(merge([second])) != 0, "half a run is never green"
    # Nothing was there to be shared out, or this is the whole: then it is an empty run.
    for other in (None, replace(scope, plan=()), replace(scope, shard=1, shards=1)):
        assert of_share(empty, other).exit_code == 1


def test_shares_that_are_all_skipped_make_an_empty_run_which_is_an_error() -> None:
    parts = []
    for number in (1, 2):
        cases = [result(PLAN[number - 1], Verdict.NOT_RUN)]
        scope = Scope(leg="gpu", plan=PLAN[:2], shard=number, shards=2)
        parts.append(run(*cases, scope=scope, summary=of_share(summarise(cases, results="r"), scope)))
    assert exit_code(parts_of := merge(parts)) == 1
    assert parts_of[0].result is not None and parts_of[0].result.summary is not None
    assert "Nothing was measured" in parts_of[0].result.summary.sentence
