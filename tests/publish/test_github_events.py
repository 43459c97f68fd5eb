"""What an event says, and what a job shows: parsed strictly, written within GitHub's limits."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import github_events as payloads
import pytest
from fake_github import BASE, HEAD, MERGE, REPOSITORY, FakeGitHub, Fault, fake_github
from publish_runs import result, run

from perfgate.errors import DataError, UsageError
from perfgate.publish.github.checks import MAX_ANNOTATIONS, annotate, check_run, commands
from perfgate.publish.github.events import Event, parse_dispatch_name, parse_inputs, read_event
from perfgate.publish.github.job import SUMMARY_LIMIT_BYTES, add_summary, set_outputs
from perfgate.records import Verdict

DISPATCHED = f"gate: pull request #7 at {HEAD}"


@pytest.fixture
def github() -> Iterator[FakeGitHub]:
    with fake_github() as fake:
        yield fake


def parsed(tmp_path: Path, name: str, payload: dict[str, Any]) -> Event:
    path = tmp_path / "event.json"
    path.write_text(json.dumps(payload))
    return read_event(path, name, repository=REPOSITORY, sha=MERGE)


def test_every_event_names_the_commit_that_its_verdict_is_about(tmp_path: Path) -> None:
    pull = parsed(tmp_path, "pull_request", payloads.pull_request())
    assert (pull.head_sha, pull.base_sha, pull.number, pull.fork) == (HEAD, BASE, 7, False)
    assert parsed(tmp_path, "pull_request", payloads.pull_request(fork=True)).fork
    group = parsed(tmp_path, "merge_group", payloads.merge_group())
    assert (group.head_sha, group.base_sha, group.number) == (HEAD, BASE, None)
    over = parsed(tmp_path, "workflow_run", payloads.workflow_run(fork=True))
    assert over.run is not None
    assert (over.head_sha, over.run.id, over.run.head, over.run.fork) == (HEAD, 42, "stranger:change", True)
    asked = parsed(tmp_path, "workflow_dispatch", payloads.workflow_dispatch())
    assert (asked.head_sha, asked.number) == (HEAD, 7)
    assert parsed(tmp_path, "schedule", payloads.schedule()).head_sha == MERGE


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("pull_request", lambda p: p["pull_request"]["head"].update(sha="HEAD")),
        ("pull_request", lambda p: p["pull_request"].update(number="7; rm -rf /")),
        ("pull_request", lambda p: p.pop("pull_request")),
        ("pull_request", lambda p: p["repository"].update(full_name="evil/nets")),
    ],
)
def test_an_event_that_is_not_as_github_writes_it_is_refused(
    tmp_path: Path, name: str, spoil: Callable[[Any], object]
) -> None:
    payload = payloads.pull_request()
    spoil(payload)
    with pytest.raises(DataError):
        parsed(tmp_path, name, payload)


def test_an_unknown_event_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="pull_request_target"):
        parsed(tmp_path, "pull_request_target", payloads.pull_request())


@pytest.mark.parametrize(
    "title",
    [
        f"gate: pull request #7 at {HEAD[:12]}",
        f"gate: pull request #07 at {HEAD}",
        f"gate: pull request #7 at {HEAD}\n",
        f" gate: pull request #7 at {HEAD}",
        f"gate: pull request #7 at {HEAD.upper()}",
        f"gate: pull request #7; at {HEAD}",
    ],
)
def test_a_dispatch_is_parsed_strictly(title: str) -> None:
    assert parse_dispatch_name(title) is None
    assert parse_dispatch_name(DISPATCHED) is not None


@pytest.mark.parametrize(
    "inputs", [{"pull_request": "7", "sha": HEAD[:7]}, {"pull_request": "7"}, {"sha": HEAD}]
)
def test_half_a_dispatch_is_refused(inputs: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="full SHA"):
        parse_inputs(inputs)


def test_annotations_are_worst_first_and_count_what_they_hide() -> None:
    slow = [result(f"m/fp16/b{n}", Verdict.REGRESSION, 1 + n / 10) for n in range(1, 13)]
    odd = result("m/fp16/b99", Verdict.INVALID, reason="a,b: 100%\nnext")
    found = annotate(run(odd, *slow))
    assert [one.title for one in found[:2]] == ["REGRESSION m/fp16/b12", "REGRESSION m/fp16/b11"]
    assert found[-1].level == "warning"
    shown = commands(found)
    assert len(shown) == 10
    assert "… and 4 more" in shown[-1]
    assert commands([found[-1]]) == [
        "::warning file=models,line=1,title=INVALID m/fp16/b99::a,b: 100%25%0Anext"
    ]


def test_a_check_run_takes_annotations_in_batches(github: FakeGitHub) -> None:
    found = annotate(run(*[result(f"m/fp16/b{n}", Verdict.REGRESSION, 1.5) for n in range(1, 301)]))
    github.faults.append(Fault("PATCH", r"check-runs/\d+", 502))
    check_run(github.client(), HEAD, "failure", "slow", "text", found)
    assert len(github.checks) == 1
    assert len(github.checks[0]["output"]["annotations"]) == MAX_ANNOTATIONS


def test_a_summary_stays_under_githubs_limit_over_several_writes(tmp_path: Path) -> None:
    path = tmp_path / "summary.md"
    for _ in range(4):
        add_summary(path, "| ö | row |\n" * 40_000)
    assert path.stat().st_size <= SUMMARY_LIMIT_BYTES
    text = path.read_text()
    assert text.count("did not fit") == 1
    assert set(text.split("\n\nThe rest")[0].splitlines()) == {"| ö | row |"}


def test_an_output_cannot_make_another_output(tmp_path: Path) -> None:
    path = tmp_path / "output"
    set_outputs(path, {"headline": "x\nEOF\nevil<<EOF\ny"})
    first, *_, last = path.read_text().splitlines()
    assert first.split("<<")[1] == last
    assert last.startswith("perfgate_")
