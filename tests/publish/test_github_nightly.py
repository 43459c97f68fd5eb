"""The night on GitHub: an issue a regression, a pull request of baselines, and the owner of a model."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from fake_github import REPOSITORY, TOKEN, FakeGitHub, Fault, fake_github
from msgspec.structs import replace
from publish_runs import HOSTILE, result, run

from perfgate.cli.app import cli
from perfgate.errors import UsageError
from perfgate.gate.verdict.summary import summarise
from perfgate.publish.github.app_token import app_token, signed_token
from perfgate.publish.github.owners import owners_of, read_owners
from perfgate.publish.github.propose import Proposal, propose
from perfgate.records import Commit, RunResult, Scope, Verdict
from perfgate.report.run.moves import moves_text
from perfgate.util.files import record_json

LEG = "gpu-h200"


@pytest.fixture
def github() -> Iterator[FakeGitHub]:
    with fake_github() as fake:
        yield fake


def night(**verdicts: Verdict) -> RunResult:
    cases = [result(f"{model}/fp16/b8", verdict, 1.25) for model, verdict in verdicts.items()]
    cases = [replace(one, case=replace(one.case, source=f"models/{one.case.model}.toml")) for one in cases]
    scope = Scope(leg=LEG, plan=tuple(case.case.id for case in cases))
    return run(*cases, scope=scope, summary=summarise(cases, results="r"))


def perfgate(folder: Path, fake: FakeGitHub, found: RunResult, *args: str, **env: str) -> Result:
    path = folder / "results.json"
    path.write_text(record_json(found))
    made = {"GITHUB_REPOSITORY": REPOSITORY, "GITHUB_API_URL": fake.url, "GITHUB_TOKEN": TOKEN, **env}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        done = CliRunner().invoke(cli, ["github", args[0], str(path), *args[1:]], env=made)
    assert done.exit_code == 0, (done.output, done.exception)
    return done


def test_an_issue_is_opened_kept_and_closed_when_the_case_recovers(
    tmp_path: Path, github: FakeGitHub
) -> None:
    (tmp_path / "CODEOWNERS").write_text("* @acme/all\n/models/resnet50.toml @ann @acme/vision\n")
    slow = night(resnet50=Verdict.REGRESSION, bert=Verdict.PASS)
    assert "opened: #200" in perfgate(tmp_path, github, slow, "issues").output
    (issue,) = github.issues
    assert issue["title"] == f"perfgate: resnet50/fp16/b8 regressed on {LEG}"
    assert "Owners: @ann @acme/vision" in issue["body"]
    assert issue["labels"] == ["perfgate-regression"]
    assert "updated: none" in perfgate(tmp_path, github, slow, "issues").output
    later = replace(slow, commit=Commit(sha="d" * 40))
    assert "updated: #200" in perfgate(tmp_path, github, later, "issues").output
    # A night in which the case did not run is no recovery.
    perfgate(tmp_path, github, night(bert=Verdict.PASS), "issues")
    assert issue["state"] == "open"
    assert "closed: #200" in perfgate(tmp_path, github, night(resnet50=Verdict.PASS), "issues").output
    assert issue["state"] == "closed"
    assert len(github.issues) == 1
    perfgate(tmp_path, github, slow, "issues")
    assert [one["state"] for one in github.issues] == ["closed", "open"]


def test_an_issue_that_a_stranger_wrote_is_left_alone(tmp_path: Path, github: FakeGitHub) -> None:
    perfgate(tmp_path, github, night(resnet50=Verdict.REGRESSION), "issues")
    github.issues[0]["user"] = {"login": "mallory"}
    perfgate(tmp_path, github, night(resnet50=Verdict.PASS), "issues")
    assert github.issues[0]["state"] == "open"


def test_an_issue_whose_post_was_not_answered_is_not_opened_twice(tmp_path: Path, github: FakeGitHub) -> None:
    github.faults.append(Fault("POST", "issues", 502, done=True))
    perfgate(tmp_path, github, night(resnet50=Verdict.REGRESSION), "issues")
    assert len(github.issues) == 1


def test_a_hostile_reason_is_no_markup_in_an_issue(tmp_path: Path, github: FakeGitHub) -> None:
    case = result("m/fp16/b8", Verdict.REGRESSION, 1.5, reason=HOSTILE)
    found = run(case, summary=summarise([case], results="r"), scope=Scope(leg=LEG, plan=("m/fp16/b8",)))
    perfgate(tmp_path, github, found, "issues")
    for forbidden in ("@all", "<!channel>", "](https://evil.test)", "<b>"):
        assert forbidden not in github.issues[0]["body"]


@pytest.mark.parametrize(
    ("path", "owners"),
    [
        ("models/resnet50.toml", ["@ann"]),
        ("models/deep/x.toml", ["@all"]),
        ("docs/a.md", []),
        ("baselines/h200/trt/m.json", ["@ops"]),
        ("x/baselines/y.json", ["@ops"]),
        ("notes.md", ["@docs"]),
    ],
)
def test_the_last_pattern_that_matches_owns(tmp_path: Path, path: str, owners: list[str]) -> None:
    (tmp_path / ".github").mkdir()
    rules = (
        "# who\n* @all\n*.md @docs\nmodels/* @bob\nmodels/resnet50.toml @ann # her\nbaselines/ @ops\ndocs/\n"
    )
    (tmp_path / ".github/CODEOWNERS").write_text(rules)
    assert owners_of(path, read_owners(tmp_path)) == owners


def proposal(**files: bytes | None) -> Proposal:
    return Proposal(branch="perfgate/promote", base="main", title="Promote", body="text", files=files)


def test_a_proposal_is_one_commit_on_its_own_branch_and_the_next_night_replaces_it(
    github: FakeGitHub,
) -> None:
    github.refs["main"] = "1" * 40
    first = propose(
        github.client(), proposal(**{"baselines/a.json": b"\x00binary", "baselines/old.json": None})
    )
    tree = next(one for one in github.git.values() if one["kind"] == "trees")
    assert [entry["path"] for entry in tree["tree"]] == ["baselines/a.json", "baselines/old.json"]
    assert tree["tree"][1]["sha"] is None
    blob = github.git[tree["tree"][0]["sha"]]
    assert base64.b64decode(blob["content"]) == b"\x00binary"
    tip = github.refs["perfgate/promote"]
    assert github.git[tip]["parents"] == ["1" * 40]
    assert propose(github.client(), proposal(**{"baselines/a.json": b"new"})) == first
    assert github.refs["perfgate/promote"] != tip
    assert github.refs["main"] == "1" * 40
    assert len(github.pulls) == 1


@pytest.mark.parametrize("path", ["pulls", "git/refs", "git/trees"])
def test_a_proposal_survives_a_post_that_was_not_answered(github: FakeGitHub, path: str) -> None:
    github.refs["main"] = "1" * 40
    github.faults.append(Fault("POST", path, 502, done=True))
    propose(github.client(), proposal(**{"baselines/a.json": b"1"}))
    assert len(github.pulls) == 1
    assert github.git[github.refs["perfgate/promote"]]["kind"] == "commits"


def test_promote_proposes_what_moved_with_its_reason(tmp_path: Path, github: FakeGitHub) -> None:
    github.refs["main"] = "1" * 40
    (tmp_path / "pyproject.toml").write_text("[tool.perfgate]\n")
    found = night(resnet50=Verdict.NEW)
    cases = tuple(replace(one, case_digest="a" * 64) for one in found.cases)
    found = replace(found, cases=cases, protocol=replace(found.protocol, launches=2))
    done = perfgate(tmp_path, github, found, "promote", "--reason", "night of <b>Monday</b>")
    assert "1 cases in 1 files" in done.output
    (pull,) = github.pulls
    assert "Reason: night of &#60;b&#62;Monday" in pull["body"]
    assert "resnet50/fp16/b8 | new |" in pull["body"]
    assert "its checks wait" in pull["body"]
    again = perfgate(tmp_path, github, found, "promote", "--reason", "night of <b>Monday</b>")
    assert "nothing moved" in again.output


def test_the_largest_move_is_first() -> None:
    moves = [("a", 1e6, 1.01e6), ("b", 1e6, 0.5e6), ("c", None, 1e6), ("d", 1e6, None)]
    rows = [line for line in moves_text(moves, "r").splitlines() if line.startswith("| ")][1:]
    assert rows[0].startswith("| b |") and "-50.0%" in rows[0]
    assert len(rows) == 4


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("app") / "key.pem"
    made = ["openssl", "genrsa", "-out", str(path), "2048"]
    subprocess.run(made, check=True, capture_output=True, timeout=60)
    return path


def test_an_apps_token_is_signed_by_its_key(key: Path, tmp_path: Path) -> None:
    head, claims, signature = signed_token("12345", key.read_text(), 1_000.0).split(".")
    assert _decoded(head) == {"alg": "RS256", "typ": "JWT"}
    assert _decoded(claims) == {"iat": 940, "exp": 1_540, "iss": "12345"}
    public, sealed = tmp_path / "public.pem", tmp_path / "signature"
    subprocess.run(
        ["openssl", "rsa", "-in", str(key), "-pubout", "-out", str(public)], check=True, capture_output=True
    )
    sealed.write_bytes(base64.urlsafe_b64decode(signature + "=="))
    verify = ["openssl", "dgst", "-sha256", "-verify", str(public), "-signature", str(sealed)]
    subprocess.run(verify, input=f"{head}.{claims}".encode(), check=True, capture_output=True)


def test_an_apps_token_is_exchanged_for_one_of_this_repository(key: Path, github: FakeGitHub) -> None:
    assert app_token(REPOSITORY, "12345", key.read_text(), api_url=github.url) == "ghs_app"
    assert github.calls("POST", "access_tokens") == 1


def test_a_key_that_is_none_is_not_shown() -> None:
    with pytest.raises(UsageError) as caught:
        signed_token("12345", "-----BEGIN hunter2-----", 1.0)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


def _decoded(text: str) -> Any:
    return json.loads(base64.urlsafe_b64decode(text + "=="))
