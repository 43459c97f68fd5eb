"""The workflows themselves, step by step, on a real repository with a planted regression."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import github_events as payloads
import pytest
import yaml
from fake_github import BASE, HEAD, FakeGitHub, fake_github
from play_runner import Runner
from team_repository import ROOT, Repository

from perfgate.cli.app import cli

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
# Every action that is used, by the commit of its release: researched, not guessed.
ACTIONS = {
    "actions/checkout": "3d3c42e5aac5ba805825da76410c181273ba90b1",
    "actions/setup-python": "5fda3b95a4ea91299a34e894583c3862153e4b97",
    "actions/upload-artifact": "043fb46d1a93c77aae656e7c1c64a875d1fc6a0a",
    "actions/download-artifact": "3e5f45b2cfb9172054b4087a40e8e0b5a5461e7c",
    "actions/upload-pages-artifact": "fc324d3547104276b827a68afc52ff2a11cc49c9",
    "actions/deploy-pages": "cd2ce8fcbc39b97be8ca5fce6e763baed58fa128",
}


@pytest.fixture
def github() -> Iterator[FakeGitHub]:
    with fake_github() as fake:
        yield fake


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return Repository(tmp_path_factory.mktemp("team") / "nets")


@pytest.fixture
def runner(tmp_path: Path, github: FakeGitHub, repository: Repository) -> Runner:
    return repository.runner(tmp_path, github)


def gate(runner: Runner, tmp_path: Path, head: str, merge: str, base: str, *, number: int) -> str:
    """The gate on a push, then comment.yml as GitHub starts it: requested, and completed."""
    fake = runner.fake
    fake.pulls.clear()
    fake.pull(7, head=head)
    fake.commits[merge] = [base, head]
    fake.artifacts.clear()
    event = payloads.pull_request()
    event["pull_request"]["head"]["sha"] = head
    event["pull_request"]["base"]["sha"] = base
    runner.folder = tmp_path / f"gate{number}"
    conclusion = runner.play("gate.yml", "pull_request", event, merge)
    results = dict(runner.results)
    for action in ("requested", "completed"):
        runner.folder = tmp_path / f"{action}{number}"
        over = payloads.workflow_run(action=action, conclusion=conclusion, head_sha=head)
        assert runner.play("comment.yml", "workflow_run", over, base) == "success", runner.log
    runner.results = results
    return conclusion


def test_a_planted_regression_is_red_with_one_comment_that_the_second_push_updates(
    runner: Runner, repository: Repository, github: FakeGitHub, tmp_path: Path
) -> None:
    head, merge = repository.push(16)
    assert gate(runner, tmp_path, head, merge, repository.base, number=1) == "failure", runner.log
    assert runner.results == {
        "plan": "success",
        "engines": "skipped",
        "measure": "failure",
        "verdict": "failure",
    }
    assert [one["state"] for one in github.statuses if one["sha"] == head] == ["pending", "failure"]
    assert len(github.comments) == 1
    assert "REGRESSION" in github.comments[0]["body"]
    assert "REGRESSION" in runner.summaries["measure-gpu-test"]
    assert "::error file=models/tinyconv.toml" in runner.log
    # The second push takes it back: the same model, so nothing has to be timed.
    head, merge = repository.push(1)
    repository.git("switch", "-q", "change")
    repository.git("checkout", "-q", "main", "--", "models/tinyconv.toml")
    head = repository.commit("as it was")
    repository.git("switch", "-q", "--detach", "main")
    repository.git("merge", "-q", "--no-ff", "-m", "merge", "change")
    merge = repository.git("rev-parse", "HEAD")
    repository.git("branch", "-f", "pr-merge", merge)
    repository.git("switch", "-q", "main")
    assert gate(runner, tmp_path, head, merge, repository.base, number=2) == "success", runner.log
    assert [one["state"] for one in github.statuses if one["sha"] == head] == ["pending", "success"]
    assert len(github.comments) == 1
    assert "REGRESSION" not in github.comments[0]["body"]


def test_a_forks_push_is_not_measured_and_stays_pending(
    runner: Runner, repository: Repository, github: FakeGitHub, tmp_path: Path
) -> None:
    github.pull(7, owner="stranger")
    assert (
        runner.play("gate.yml", "pull_request", payloads.pull_request(fork=True), repository.base)
        == "failure"
    )
    assert runner.results == {
        "plan": "success",
        "engines": "skipped",
        "measure": "skipped",
        "verdict": "failure",
    }
    runner.folder = tmp_path / "comment"
    over = payloads.workflow_run(conclusion="failure", fork=True)
    assert runner.play("comment.yml", "workflow_run", over, repository.base) == "success", runner.log
    assert [one["state"] for one in github.statuses] == ["pending"]


def test_a_dispatch_for_a_head_that_moved_on_measures_nothing(
    runner: Runner, repository: Repository, github: FakeGitHub
) -> None:
    github.pull(7, owner="stranger", head=BASE)
    assert (
        runner.play("gate.yml", "workflow_dispatch", payloads.workflow_dispatch(sha=HEAD), repository.base)
        == "failure"
    )
    assert runner.results["measure"] == "skipped"
    assert "review the new commits" in runner.log


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_job_has_its_bounds(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {}
    assert workflow["concurrency"]
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"]
        measuring = "fromJSON" in job["runs-on"]
        assert not measuring or job["permissions"] == {"contents": "read"}
        assert not measuring or "secrets." not in str(job), "a job that runs model code has no secret"
        assert "secrets: inherit" not in str(job)
        for step in job["steps"]:
            uses = step.get("uses", "./")
            if not uses.startswith("./"):
                name, sha = uses.split("@")
                assert ACTIONS[name] == sha
            assert "actions/cache" not in uses, "a branch's cache is written by every job in its scope"


@pytest.mark.parametrize(
    ("branch", "target"), [("", BASE), ("main", "")], ids=["merge group or dispatch", "pull request"]
)
def test_the_gate_has_its_target_from_the_event_and_never_from_the_change(
    tmp_path: Path, branch: str, target: str
) -> None:
    """A pull request's event names a commit that may be older than the one that GitHub merged into."""
    stub = tmp_path / "perfgate"
    stub.write_text('#!/bin/bash\nprintf "%s\\n" "$@" >>calls\n')
    stub.chmod(0o755)
    event = {"COMMAND": "gate", "BASE": BASE, "GITHUB_BASE_REF": branch, "LEG": "", "IMAGE": ""}
    subprocess.run(
        ["bash", str(ROOT / ".github/actions/perfgate/steps.sh")],
        cwd=tmp_path,
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "GITHUB_STEP_SUMMARY": "summary", **event},
        check=True,
        timeout=60,
    )
    words = (tmp_path / "calls").read_text().split("\n")
    assert words[words.index("--base") + 1] == ""
    assert words[words.index("--target") + 1] == target
    assert words[words.index("--policy-from") + 1] == "base"


def test_the_flags_of_the_actions_script_exist() -> None:
    script = (ROOT / ".github/actions/perfgate/steps.sh").read_text().replace("\\\n", " ")
    script = script.replace(" measure ", " perfgate run ")
    found = re.findall(r"^\s*(?:\w+=\$\(|\w+=\S*\s+)?perfgate ([^|&)\n]*)", script, re.M)
    assert len(found) >= 18
    for line in found:
        command: click.Command = cli
        context = click.Context(cli)
        for word in line.split():
            if isinstance(command, click.Group) and word in command.list_commands(context):
                command = command.get_command(context, word) or command
        known = {option for parameter in command.params for option in parameter.opts}
        for option in re.findall(r"(?<![\w{])--[a-z-]+", line):
            assert option in known, f"{command.name} has no {option}"
