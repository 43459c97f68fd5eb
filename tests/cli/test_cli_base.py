"""Whose fault: base, head and baseline in real repositories, with real launches of a planted slowdown."""

from __future__ import annotations

import json
import signal
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cli_project import Cli
    from repository import Repository

pytest_plugins = ["cli_project", "repository"]


def judged(repository: Repository) -> dict[str, Any]:
    result = json.loads(repository.results.read_text())
    case: dict[str, Any] = next(one for one in result["cases"] if one["case"]["id"] == repository.CASE)
    return {**case, "base": result.get("base", {})}


def test_a_slower_branch_is_confirmed_against_its_base_in_turn(repository: Repository) -> None:
    base = repository.git("rev-parse", "HEAD")
    repository.branch("change")
    repository.slow_down()
    repository.commit("deeper")
    done = repository("run", *repository.WIDE)
    assert done.returncode == 1, done.stderr
    found = judged(repository)
    assert found["judgement"]["verdict"] == "REGRESSION"
    assert found["base"]["sha"] == base
    confirmation = found["judgement"]["confirmation"]
    assert confirmation["base_commit"] == base
    assert confirmation["decided"] is True
    assert confirmation["base_launches"] == confirmation["head_launches"] >= 2
    assert len(found["outcome"]["base_launches"]) == confirmation["base_launches"]
    assert found["judgement"]["ratio"]["estimate"] > 3
    assert "explaining" not in done.stderr, "the settings say explain = false"
    assert len(repository.git("worktree", "list").splitlines()) == 1


def test_a_main_that_is_slower_already_is_no_fault_of_a_branch(repository: Repository) -> None:
    repository.slow_down()
    repository.commit("main regresses, and nobody promotes it")
    repository.branch("change")
    repository.change("models/tinyconv.toml", "seed = 1", "seed = 2")
    repository.commit("another input, of no consequence")
    done = repository("run", *repository.WIDE)
    assert done.returncode == 0, done.stdout
    judgement = judged(repository)["judgement"]
    assert (judgement["verdict"], judgement["code"]) == ("PASS", "already-on-base")
    # The nightly holds main against its baselines' own commits, and owns it.
    nightly = repository("run", "--base", "baseline", *repository.WIDE)
    assert nightly.returncode == 1, nightly.stdout
    assert judged(repository)["judgement"]["verdict"] == "REGRESSION"


def test_a_base_that_is_asked_for_and_not_there_is_a_usage_error(repository: Repository) -> None:
    done = repository("run", "--base", "v9.9")
    assert done.returncode == 2
    assert "no such commit: v9.9" in done.stderr
    assert "fetch-depth: 0" in done.stderr


def test_outside_a_repository_the_remedy_is_not_another_revision(cli: Cli) -> None:
    for asked in ("base", "main"):
        done = cli("run", "--policy-from", asked)
        assert done.returncode == 2
        assert "there is no git repository around the project" in done.stderr
        assert "fix: run it in a checkout of a git repository, or name no revision" in done.stderr


def test_an_interrupt_in_the_middle_of_a_confirmation_leaves_no_worktree(repository: Repository) -> None:
    repository.branch("change")
    repository.slow_down()
    repository.commit("deeper")
    process = repository.start("run", "--duration-ms", "1500")
    deadline = time.monotonic() + 60
    while "base and head in turn" not in repository.log.read_text():
        assert process.poll() is None, repository.log.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 3
    assert "Traceback" not in repository.log.read_text()
    assert len(repository.git("worktree", "list").splitlines()) == 1
    assert repository.verdicts()[repository.CASE] == "INVALID"


def test_in_a_shallow_clone_the_stored_launches_have_to_do_and_it_is_said(repository: Repository) -> None:
    repository.slow_down()
    repository.commit("deeper")
    clone = type(repository)(repository.root.parent / "clone")
    repository.git("clone", "-q", "--depth", "1", f"file://{repository.root}", str(clone.root))
    done = clone("run", *repository.WIDE)
    assert done.returncode == 1, done.stdout + done.stderr
    judgement = judged(clone)["judgement"]
    assert judgement["verdict"] == "REGRESSION"
    assert "too shallow" in judgement["reason"]
    assert judgement["confirmation"]["base_launches"] == 0
