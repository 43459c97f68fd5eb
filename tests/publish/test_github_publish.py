"""Events to targets, and `perfgate github` against a GitHub on loopback: what a pull request is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import github_events as payloads
import pytest
from click.testing import CliRunner, Result
from fake_github import BASE, HEAD, MERGE, REPOSITORY, TOKEN, FakeGitHub, Fault, fake_github, zipped
from publish_runs import HOSTILE, result, run

from perfgate.cli.app import cli
from perfgate.errors import DataError, PerfgateError, UsageError
from perfgate.gate.verdict.summary import summarise
from perfgate.publish.github.artifacts import unpack
from perfgate.records import Commit, RunResult, Scope, Verdict
from perfgate.util.files import record_json

OTHER = "d" * 40
DISPATCHED = f"gate: pull request #7 at {HEAD}"


@pytest.fixture
def github() -> Iterator[FakeGitHub]:
    with fake_github() as fake:
        yield fake


class Job:
    """A job of a workflow: its environment and files, as a runner makes them."""

    def __init__(self, folder: Path, fake: FakeGitHub) -> None:
        self.folder, self.fake = folder, fake
        self.summary, self.output = folder / "summary.md", folder / "output"

    def __call__(self, name: str, payload: dict[str, Any], *args: str, **env: str) -> Result:
        event = self.folder / "event.json"
        event.write_text(json.dumps(payload))
        made = {
            "GITHUB_REPOSITORY": REPOSITORY,
            "GITHUB_API_URL": self.fake.url,
            "GITHUB_TOKEN": TOKEN,
            "GITHUB_EVENT_NAME": name,
            "GITHUB_EVENT_PATH": str(event),
            "GITHUB_SHA": MERGE,
            "GITHUB_STEP_SUMMARY": str(self.summary),
            "GITHUB_OUTPUT": str(self.output),
            "PERFGATE_LEGS": '["gpu-h200"]',
            "PERFGATE_IMAGE": f"ghcr.io/acme/perfgate@sha256:{'e' * 64}",
            **env,
        }
        done = CliRunner().invoke(cli, ["github", *args], env=made)
        assert TOKEN not in done.output
        assert done.exception is None or isinstance(done.exception, PerfgateError | SystemExit), (
            done.exception
        )
        return done

    def outputs(self) -> dict[str, str]:
        lines = self.output.read_text().splitlines()
        return {name.split("<<")[0]: value for name, value in zip(lines[::3], lines[1::3], strict=True)}


@pytest.fixture
def job(tmp_path: Path, github: FakeGitHub) -> Job:
    github.commits[MERGE] = [BASE, HEAD]
    return Job(tmp_path, github)


def measured(
    verdict: Verdict = Verdict.PASS, *, leg: str = "gpu-h200", sha: str = MERGE, **more: Any
) -> RunResult:
    case = result("resnet50/fp16/b8", verdict, 1.25 if verdict is Verdict.REGRESSION else 1.0, **more)
    scope = Scope(leg=leg, plan=(case.case.id,))
    summary = summarise([case], results="results.json")
    return run(case, summary=summary, commit=Commit(sha=sha), scope=scope)


def upload(fake: FakeGitHub, found: RunResult, leg: str = "gpu-h200") -> None:
    fake.artifacts[f"perfgate-results-{leg}"] = zipped(record_json(found).encode())


def status(fake: FakeGitHub) -> tuple[str, str, str]:
    assert {one["context"] for one in fake.statuses} == {"perfgate/gate"}
    return fake.statuses[-1]["sha"], fake.statuses[-1]["state"], fake.statuses[-1]["description"]


# What is measured.


def test_a_pull_request_of_this_repository_is_measured(job: Job) -> None:
    done = job("pull_request", payloads.pull_request(), "plan")
    assert done.exit_code == 0, done.output
    out = job.outputs()
    assert (out["measure"], out["ref"], out["base"], out["legs"]) == ("true", MERGE, BASE, '["gpu-h200"]')


def test_a_merge_group_is_measured(job: Job) -> None:
    assert job("merge_group", payloads.merge_group(), "plan").exit_code == 0
    assert (job.outputs()["measure"], job.outputs()["ref"], job.outputs()["base"]) == ("true", HEAD, BASE)


def test_a_forks_pull_request_waits_for_a_maintainer(job: Job) -> None:
    done = job("pull_request", payloads.pull_request(fork=True), "plan")
    assert done.exit_code == 0
    assert job.outputs()["measure"] == "false"
    assert f"#7 and {HEAD}" in done.output


def test_a_maintainers_dispatch_is_measured_where_it_is_the_head(job: Job, github: FakeGitHub) -> None:
    github.pull(7, owner="stranger")
    assert job("workflow_dispatch", payloads.workflow_dispatch(), "plan").exit_code == 0
    assert (job.outputs()["measure"], job.outputs()["ref"], job.outputs()["base"]) == ("true", HEAD, BASE)


@pytest.mark.parametrize(("head", "state"), [(OTHER, "open"), (HEAD, "closed")])
def test_a_dispatch_for_another_commit_is_refused(
    job: Job, github: FakeGitHub, head: str, state: str
) -> None:
    github.pull(7, owner="stranger", head=head, state=state)
    done = job("workflow_dispatch", payloads.workflow_dispatch(), "plan")
    assert done.exit_code != 0
    assert not job.output.exists()


@pytest.mark.parametrize(
    "env",
    [
        {"PERFGATE_LEGS": ""},
        {"PERFGATE_LEGS": '["gpu", "gpu"]'},
        {"PERFGATE_LEGS": '["a\\"], \\"x"]'},
        {"PERFGATE_IMAGE": "ghcr.io/acme/perfgate:latest"},
        {"PERFGATE_IMAGE": ""},
    ],
)
def test_an_unset_or_floating_variable_plans_nothing(job: Job, env: dict[str, str]) -> None:
    done = job("pull_request", payloads.pull_request(), "plan", **env)
    assert isinstance(done.exception, UsageError)
    assert not job.output.exists()


# What a pull request is told.


def test_a_run_that_was_requested_makes_the_status_pending(job: Job, github: FakeGitHub) -> None:
    github.pull(7)
    assert job("workflow_run", payloads.workflow_run(action="requested"), "publish").exit_code == 0
    assert status(github) == (HEAD, "pending", "is being measured")
    assert github.comments == []


@pytest.mark.parametrize(
    ("verdict", "conclusion", "state"),
    [
        (Verdict.PASS, "success", "success"),
        (Verdict.REGRESSION, "failure", "failure"),
        (Verdict.INVALID, "failure", "error"),
        (Verdict.PASS, "failure", "error"),
        (Verdict.REGRESSION, "success", "failure"),
    ],
)
def test_green_needs_the_run_and_the_results(
    job: Job, github: FakeGitHub, verdict: Verdict, conclusion: str, state: str
) -> None:
    github.pull(7)
    upload(github, measured(verdict))
    done = job("workflow_run", payloads.workflow_run(conclusion=conclusion), "publish")
    assert done.exit_code == 0, done.output
    assert status(github)[:2] == (HEAD, state)
    assert len(github.comments) == 1
    assert github.comments[0]["issue"] == 7
    # And a second push updates it.
    job("workflow_run", payloads.workflow_run(conclusion=conclusion), "publish")
    assert len(github.comments) == 1


@pytest.mark.parametrize("conclusion", ["success", "failure", "cancelled", "skipped", "timed_out"])
def test_a_run_without_results_is_never_green(job: Job, github: FakeGitHub, conclusion: str) -> None:
    github.pull(7)
    job("workflow_run", payloads.workflow_run(conclusion=conclusion), "publish")
    assert status(github) == (HEAD, "error", f"no results: the run ended as {conclusion}")


def test_a_leg_that_did_not_arrive_is_never_green(job: Job, github: FakeGitHub) -> None:
    github.pull(7)
    upload(github, measured())
    job("workflow_run", payloads.workflow_run(), "publish", PERFGATE_LEGS='["gpu-h200", "gpu-l4"]')
    assert status(github) == (HEAD, "error", "gpu-l4: no results arrived from this runner")
    assert "gpu-l4" in github.comments[0]["body"]


def test_results_of_another_commit_decide_nothing(job: Job, github: FakeGitHub) -> None:
    github.pull(7)
    github.commits[OTHER] = [BASE, BASE]
    upload(github, measured(sha=OTHER))
    job("workflow_run", payloads.workflow_run(), "publish")
    assert status(github) == (HEAD, "error", "the results are of another commit")
    assert github.comments == []


def test_a_fork_cannot_bring_its_own_green_results(job: Job, github: FakeGitHub) -> None:
    github.pull(7, owner="stranger")
    upload(github, measured())
    done = job("workflow_run", payloads.workflow_run(fork=True), "publish")
    assert done.exit_code == 0
    sha, state, text = status(github)
    assert (sha, state) == (HEAD, "pending")
    assert "waits for a maintainer" in text and "#7" in text
    assert github.calls("GET", "artifacts") == 0, "a stranger's results are not even fetched"
    assert github.comments == []


def test_a_forks_own_run_does_not_take_back_what_a_maintainers_run_said(job: Job, github: FakeGitHub) -> None:
    github.pull(7, owner="stranger")
    github.statuses.append({"sha": HEAD, "context": "perfgate/gate", "state": "success", "description": ""})
    job("workflow_run", payloads.workflow_run(fork=True), "publish")
    assert status(github)[:2] == (HEAD, "success")


def test_a_maintainers_dispatch_speaks_on_the_forks_head(job: Job, github: FakeGitHub) -> None:
    github.pull(7, owner="stranger")
    upload(github, measured(Verdict.REGRESSION, sha=HEAD))
    payload = payloads.workflow_run(
        event="workflow_dispatch", title=DISPATCHED, conclusion="failure", head_sha=BASE
    )
    assert job("workflow_run", payload, "publish").exit_code == 0
    assert status(github)[:2] == (HEAD, "failure")
    assert len(github.comments) == 1


def test_a_dispatch_whose_head_moved_on_says_nothing(job: Job, github: FakeGitHub) -> None:
    github.pull(7, owner="stranger", head=OTHER)
    payload = payloads.workflow_run(event="workflow_dispatch", title=DISPATCHED, head_sha=BASE)
    done = job("workflow_run", payload, "publish")
    assert isinstance(done.exception, PerfgateError)
    assert github.statuses == [] and github.comments == []


@pytest.mark.parametrize("change", [{"fork": True}, {"path": ".github/workflows/other.yml"}])
def test_a_name_alone_makes_no_dispatch(job: Job, github: FakeGitHub, change: dict[str, Any]) -> None:
    github.pull(7, owner="stranger")
    payload = payloads.workflow_run(event="workflow_dispatch", title=DISPATCHED, **change)
    assert isinstance(job("workflow_run", payload, "publish").exception, PerfgateError)
    assert github.statuses == []


def test_a_pull_requests_title_cannot_pose_as_a_dispatch(job: Job, github: FakeGitHub) -> None:
    github.pull(7, owner="stranger")
    upload(github, measured(sha=HEAD))
    job("workflow_run", payloads.workflow_run(fork=True, title=DISPATCHED), "publish")
    assert status(github)[1] == "pending"


def test_a_merge_group_gets_its_status_and_no_comment(job: Job, github: FakeGitHub) -> None:
    upload(github, measured(sha=HEAD))
    done = job("workflow_run", payloads.workflow_run(event="merge_group"), "publish")
    assert done.exit_code == 0, done.output
    assert status(github)[:2] == (HEAD, "success")
    assert github.comments == []


def test_a_head_that_moved_while_measuring_gets_its_status_and_no_comment(
    job: Job, github: FakeGitHub
) -> None:
    github.pull(7, head=OTHER)
    upload(github, measured(Verdict.REGRESSION))
    done = job("workflow_run", payloads.workflow_run(conclusion="failure"), "publish")
    assert done.exit_code == 0
    assert status(github)[:2] == (HEAD, "failure")
    assert github.comments == []
    assert "moved on" in done.output


def test_a_head_that_moves_just_before_the_comment_gets_none(job: Job, github: FakeGitHub) -> None:
    github.pull(7)
    upload(github, measured())
    move = Fault("GET", "pulls/7", done=True, before=lambda: github.pulls[0]["head"].update(sha=OTHER))
    github.faults.append(move)
    assert "its own run will speak" in job("workflow_run", payloads.workflow_run(), "publish").output
    assert github.comments == []


def test_a_comment_that_cannot_be_posted_is_loud_and_changes_no_verdict(job: Job, github: FakeGitHub) -> None:
    github.pull(7)
    upload(github, measured(Verdict.REGRESSION))
    github.faults.append(
        Fault("POST", "issues/7/comments", 403, message="Resource not accessible by integration")
    )
    done = job("workflow_run", payloads.workflow_run(conclusion="failure"), "publish")
    assert done.exit_code == 3
    assert status(github)[:2] == (HEAD, "failure")
    assert "::error title=perfgate could not publish::the comment: HTTP 403" in done.output
    assert "pull-requests: write" in done.output


def test_hostile_results_are_shown_and_are_not_markup(job: Job, github: FakeGitHub) -> None:
    github.pull(7)
    upload(github, measured(Verdict.REGRESSION, reason=HOSTILE))
    job("workflow_run", payloads.workflow_run(conclusion="failure"), "publish")
    body = github.comments[0]["body"]
    assert "REGRESSION" in body
    for forbidden in ("@all", "<!channel>", "<b>", "](https://evil.test)"):
        assert forbidden not in body


@pytest.mark.parametrize(
    "data",
    [
        b"no zip",
        zipped(b"{}", name="../../evil"),
        zipped(b"{}"),
        zipped(b"0" * (8 << 20)),
        zipped(b'{"schema": "perfgate-trt/results/v1", "schema": "x"}'),
    ],
    ids=["no zip", "a name that climbs", "no result", "a bomb", "a key twice"],
)
def test_hostile_artifacts_end_as_an_error(job: Job, github: FakeGitHub, data: bytes) -> None:
    github.pull(7)
    github.artifacts["perfgate-results-gpu-h200"] = data
    done = job("workflow_run", payloads.workflow_run(), "publish")
    assert done.exit_code == 3
    assert status(github)[1] == "error"
    assert github.comments == []


def test_a_zip_that_lies_about_its_size_is_refused() -> None:
    data = bytearray(zipped(b"x" * 1000))
    at = data.rindex((1000).to_bytes(4, "little"))
    data[at : at + 4] = (10).to_bytes(4, "little")
    with pytest.raises(DataError):
        unpack(bytes(data), "lie")


def test_the_store_of_artifacts_gets_no_token(job: Job, github: FakeGitHub) -> None:
    github.pull(7)
    upload(github, measured())
    job("workflow_run", payloads.workflow_run(), "publish")
    assert len(github.store_headers) == 1
    assert "Authorization" not in github.store_headers[0]


# What a job shows.


def test_a_measuring_job_ends_as_its_results_do_and_needs_no_token(job: Job, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(record_json(measured(Verdict.REGRESSION)))
    done = job("pull_request", payloads.pull_request(), "annotate", str(path), GITHUB_TOKEN="")
    assert done.exit_code == 1
    assert "::error file=" in done.output
    assert job.outputs()["exit-code"] == "1"
    assert "REGRESSION" in job.summary.read_text()
