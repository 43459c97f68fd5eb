"""The nightly workflow, step by step on loopback: a real repository, GitHub, a chat service, a gateway."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import github_events as payloads
import pytest
from click.testing import CliRunner
from fake_github import HEAD, REPOSITORY, TOKEN, FakeGitHub, Fault, fake_github
from publish_runs import result, run
from team_repository import ROOT, Repository

from perfgate.cli.app import cli
from perfgate.errors import PerfgateError
from perfgate.gate.verdict.summary import summarise
from perfgate.history.store import open_history
from perfgate.records import RunResult, Scope, Verdict
from perfgate.util.files import record_json

SECRET = "very-secret-token"
LEG = "gpu-test"


class Sink(ThreadingHTTPServer):
    """Takes what is sent: a chat service and a Pushgateway."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bodies: list[tuple[str, bytes]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def messages(self) -> list[Any]:
        return [json.loads(body) for path, body in self.bodies if path.startswith("/hook")]


class _Handler(BaseHTTPRequestHandler):
    server: Sink

    def do_POST(self) -> None:
        self.server.bodies.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    do_PUT = do_POST

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        return None


@contextmanager
def sink() -> Iterator[Sink]:
    server = Sink()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def github() -> Iterator[FakeGitHub]:
    with fake_github() as fake:
        yield fake


def earlier_history(repository: Repository, folder: Path) -> dict[str, bytes]:
    """What the first night handed on: its run in a SQLite file."""
    results = repository.root / "perfgate-out/results.json"
    database = folder / "history.sqlite"
    done = CliRunner().invoke(
        cli, ["history", "add", str(results), "--branch", "main", "--database", str(database)]
    )
    assert done.exit_code == 0, done.output
    return {"history.sqlite": database.read_bytes()}


def test_a_slower_night_is_kept_drawn_told_and_not_promoted(tmp_path: Path, github: FakeGitHub) -> None:
    repository = Repository(tmp_path / "team")
    before = repository.base
    spec = repository.root / "models/tinyconv.toml"
    spec.write_text(spec.read_text().replace("seed = 0\n", "seed = 0\nargs = { repeat = 8 }\n", 1))
    sha = repository.commit("deeper")
    github.merged |= {before, sha}
    # A fork's run of its own nightly.yml, on a branch that it calls main, is newer than the real night.
    github.night(900, before)
    github.kept[900] = {"perfgate-history": earlier_history(repository, tmp_path)}
    github.night(950, HEAD, head_repository={"full_name": "stranger/nets"})
    github.kept[950] = {"perfgate-history": {"history.sqlite": b"a stranger's"}, "perfgate-alerts": {}}
    with sink() as heard:
        runner = repository.runner(tmp_path, github)
        runner.variables |= {
            "PERFGATE_ENGINES": "true",
            "PERFGATE_PAGES": "true",
            "PERFGATE_PUSHGATEWAY": heard.url,
        }
        runner.secrets = {"PERFGATE_WEBHOOK_TEAM": f"slack {heard.url}/hook/{SECRET}"}
        assert runner.play("nightly.yml", "schedule", payloads.schedule(), sha) == "failure"
        assert runner.results == {
            "plan": "success",
            "measure": "failure",  # the runner that found it
            "report": "failure",  # red: nothing is proposed
            "history": "success",
            "tell": "success",
            "promote": "skipped",
            "pages": "success",
        }, runner.log
        (message,) = heard.messages()
        assert "tinyconv/fp32/b1" in json.dumps(message)
        assert any(path.startswith("/metrics/job/perfgate") for path, _ in heard.bodies)
    assert SECRET not in runner.log and TOKEN not in runner.log
    assert [issue["title"] for issue in github.issues] == [f"perfgate: tinyconv/fp32/b1 regressed on {LEG}"]
    assert (
        "Not held against a release: set the variable PERFGATE_ANCHOR" in runner.summaries[f"measure-{LEG}"]
    )
    kept = github.kept[runner.run_id]
    (tmp_path / "after.sqlite").write_bytes(kept["perfgate-history"]["history.sqlite"])
    with open_history(str(tmp_path / "after.sqlite"), must_exist=True) as store:
        assert [run.commit for run in store.runs(limit=9)] == [
            sha,
            repository.git("rev-parse", f"{before}~1"),
        ]
    assert b"regression" in kept["perfgate-alerts"]["state.json"]
    assert any(path.endswith("/engine") for path in kept[f"perfgate-engines-of-main-{LEG}"])
    assert runner.deployed
    assert b'href="trends/index.html"' in runner.pages["index.html"]
    assert b"tinyconv/fp32/b1" in runner.pages["trends/index.html"]
    assert b"REGRESSION" in runner.pages[f"{LEG}/report.html"]
    assert "tinyconv/fp32/b1" in runner.summaries["history-"]

    # A pull request that changes nothing starts from those engines, and leaves none behind.
    github.night(runner.run_id, sha)
    runner.run_id, runner.folder = 2_000, tmp_path / "gate"
    event = payloads.pull_request()
    event["pull_request"]["base"]["sha"] = before
    repository.git("switch", "-q", "-c", "docs", before)
    (repository.root / "notes.txt").write_text("no model changes\n")
    head = repository.commit("notes")
    repository.git("switch", "-q", "main")
    assert runner.play("gate.yml", "pull_request", event, head) == "success", runner.log
    assert runner.results["engines"] == "success"
    count = sum(path.endswith("/engine") for path in kept[f"perfgate-engines-of-main-{LEG}"])
    assert f"engines that main built last night: {count}" in runner.log
    assert sorted(github.kept[2_000]) == [
        f"perfgate-{what}-{LEG}" for what in ("engines", "report", "results")
    ]
    assert github.kept[2_000][f"perfgate-engines-{LEG}"] == kept[f"perfgate-engines-of-main-{LEG}"]


def test_a_night_by_hand_on_another_branch_writes_nothing(tmp_path: Path, github: FakeGitHub) -> None:
    team = Repository.__new__(Repository)
    team.root = ROOT
    runner = team.runner(tmp_path, github)
    event = {**payloads.workflow_dispatch(), "ref": "refs/heads/change", "inputs": {}}
    runner.play("nightly.yml", "workflow_dispatch", event, HEAD)
    assert set(runner.results.values()) == {"skipped"}
    assert github.requests == []


def step(folder: Path, command: str, **env: str) -> tuple[int, str, str]:
    """One command of the action's script in an empty checkout: exit code, log, summary."""
    summary = folder / "summary.md"
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    made = {"BASE": "main", "LEG": "", "IMAGE": "", "ARTIFACT": "", "COMMAND": command, **kept, **env}
    done = subprocess.run(
        ["bash", str(ROOT / ".github/actions/perfgate/steps.sh")],
        cwd=folder,
        env={**made, "GITHUB_STEP_SUMMARY": str(summary), "RUNNER_TEMP": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout + done.stderr, summary.read_text() if summary.exists() else ""


def test_what_is_not_configured_is_left_out_and_said(tmp_path: Path) -> None:
    code, log, summary = step(
        tmp_path, "tell", PERFGATE_LEGS='["a"]', PERFGATE_WEBHOOK_TEAM="", PERFGATE_WEBHOOK_TEAM_SECRET=""
    )
    assert code == 0, log
    for text in (log, summary):
        assert "No alert is sent: set the secret PERFGATE_WEBHOOK_TEAM" in text
        assert "No metrics are pushed: set the variable PERFGATE_PUSHGATEWAY" in text


def test_a_history_without_results_is_left_as_it_is(tmp_path: Path) -> None:
    code, _, summary = step(tmp_path, "history", PERFGATE_HISTORY="")
    assert code == 3
    assert "the history and the site stay as they are" in summary
    assert not (tmp_path / "perfgate-history").exists()


def test_a_night_without_results_is_told(tmp_path: Path, github: FakeGitHub) -> None:
    with sink() as heard:
        code, log, _ = step(
            tmp_path,
            "tell",
            PATH=machine_path(tmp_path, github),
            PYTHONPATH=str(ROOT),
            PERFGATE_LEGS='["a"]',
            PERFGATE_WEBHOOK_TEAM=f"slack {heard.url}/hook/{SECRET}",
            PERFGATE_WEBHOOK_TEAM_SECRET="",
        )
    assert code == 0, log
    (message,) = heard.messages()
    assert "a night was missed" in json.dumps(message)
    assert SECRET not in log
    assert (tmp_path / "perfgate-alerts/state.json").is_file()


STUB = """#!/bin/bash
echo "$*" >>calls
[ "$1" = run ] || exit 0
out=$(sed 's/.*--out //' <<<"$*")
mkdir -p "$out" .perfgate/engines/recipe && touch "$out/results.json"
case $out in */anchor) exit "$ANCHORED" ;; *) exit "$TONIGHT" ;; esac
"""


@pytest.mark.parametrize(
    ("tonight", "anchored", "code"),
    [(0, 0, 0), (0, 1, 1), (1, 0, 1), (3, 1, 1), (1, 3, 1), (0, 3, 3), (3, 0, 3)],
)
def test_a_night_ends_as_the_worse_of_both(tmp_path: Path, tonight: int, anchored: int, code: int) -> None:
    stub = tmp_path / "bin/perfgate"
    stub.parent.mkdir()
    stub.write_text(STUB)
    stub.chmod(0o755)
    made, log, _ = step(
        tmp_path,
        "nightly",
        PATH=f"{stub.parent}:{os.environ['PATH']}",
        LEG=LEG,
        TONIGHT=str(tonight),
        ANCHORED=str(anchored),
        PERFGATE_ANCHOR="v1",
        PERFGATE_ENGINES="true",
    )
    assert made == code, log
    runs = [line for line in (tmp_path / "calls").read_text().splitlines() if line.startswith("run ")]
    assert runs == [
        f"run --remeasure --base baseline --leg {LEG} --out perfgate-out",
        f"run --anchor v1 --leg {LEG}-vs-v1 --out perfgate-out/anchor",
    ]
    assert (tmp_path / "perfgate-out/engines/recipe").is_dir()


def night(leg: str, verdict: Verdict) -> RunResult:
    case = result("resnet50/fp16/b8", verdict, 1.25)
    return run(case, scope=Scope(leg=leg, plan=(case.case.id,)), summary=summarise([case], results="r"))


def test_a_loss_since_the_release_has_its_own_issue_and_holds_nothing_up(
    tmp_path: Path, github: FakeGitHub
) -> None:
    for folder, leg, verdict in (
        ("legs", LEG, Verdict.PASS),
        ("anchors", f"{LEG}-vs-v1", Verdict.REGRESSION),
    ):
        path = tmp_path / folder / "artifact" / "results.json"
        path.parent.mkdir(parents=True)
        path.write_text(record_json(night(leg, verdict)))
    code, log, summary = step(
        tmp_path,
        "report",
        PATH=machine_path(tmp_path, github),
        PYTHONPATH=str(ROOT),
        PERFGATE_LEGS=json.dumps([LEG]),
        GITHUB_REPOSITORY=REPOSITORY,
        GITHUB_API_URL=github.url,
        GITHUB_TOKEN=TOKEN,
    )
    assert code == 0, log
    assert (
        summary.index("perfgate passed") < summary.index("Against the release") < summary.index("REGRESSION")
    )
    (issue,) = github.issues
    assert issue["title"] == f"perfgate: resnet50/fp16/b8 regressed on {LEG}-vs-v1"
    # What is proposed and kept in the history is tonight's alone.
    assert [str(path.parent.name) for path in (tmp_path / "perfgate-out").glob("*/results.json")] == [LEG]


def machine_path(folder: Path, fake: FakeGitHub) -> str:
    """A PATH with the `perfgate` under test."""
    team = Repository.__new__(Repository)
    team.root = folder
    return team.runner(folder, fake).environment["PATH"]


def last(fake: FakeGitHub, folder: Path) -> tuple[int, str, str]:
    """`perfgate github last`: exit code, what it says, and the output `run`."""
    output = folder / "output"
    output.write_text("")
    env = {
        "GITHUB_REPOSITORY": REPOSITORY,
        "GITHUB_API_URL": fake.url,
        "GITHUB_TOKEN": TOKEN,
        "GITHUB_OUTPUT": str(output),
    }
    done = CliRunner().invoke(cli, ["github", "last", "perfgate-history", "--branch", "main"], env=env)
    lines = output.read_text().splitlines()
    code = done.exception.exit_code if isinstance(done.exception, PerfgateError) else done.exit_code
    return code, done.output + str(done.exception or ""), lines[1] if lines else ""


@pytest.mark.parametrize(
    "more",
    [
        {"head_repository": {"full_name": "stranger/nets"}},
        {"head_repository": None},
        {"path": ".github/workflows/gate.yml"},
        {"event": "pull_request"},
        {"head_branch": "change"},  # dispatched on a branch that was merged since
        {"head_sha": "d" * 40},  # a tag or a branch that main does not contain
        {"head_sha": "main"},
    ],
)
def test_only_what_main_made_is_carried_on(tmp_path: Path, github: FakeGitHub, more: dict[str, Any]) -> None:
    github.merged.add(HEAD)
    github.night(10, HEAD)
    github.night(20, HEAD, **more)
    github.kept = {10: {"perfgate-history": {"a": b""}}, 20: {"perfgate-history": {"a": b""}}}
    assert last(github, tmp_path) == (0, "perfgate-history: run 10\n", "10")
    github.kept.pop(10)
    assert last(github, tmp_path) == (0, "perfgate-history: no night has kept one yet\n", "")


def test_a_night_by_hand_counts_and_an_expired_one_is_named(tmp_path: Path, github: FakeGitHub) -> None:
    github.merged.add(HEAD)
    github.night(10, HEAD)
    github.night(20, HEAD, event="workflow_dispatch", path=".github/workflows/nightly.yml@refs/heads/main")
    github.kept = {10: {"perfgate-history": {"a": b""}}, 20: {"perfgate-history": {"a": b""}}}
    assert last(github, tmp_path)[2] == "20"
    github.expired = {10, 20}
    code, said, run = last(github, tmp_path)
    assert (code, run) == (0, "")
    assert "::warning title=perfgate::perfgate-history of run 20 has expired" in said


def test_an_api_that_fails_is_no_empty_history(tmp_path: Path, github: FakeGitHub) -> None:
    github.night(10, HEAD)
    github.kept = {10: {"perfgate-history": {"a": b""}}}
    github.merged.add(HEAD)
    github.faults.append(Fault("GET", r"actions/workflows/nightly\.yml/runs", 401, message="Bad credentials"))
    code, said, run = last(github, tmp_path)
    assert (code, run) == (3, "")
    assert TOKEN not in said
