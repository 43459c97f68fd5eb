"""The gate where git itself is at work: a branch that main was merged into, and a commit's own hook."""

from __future__ import annotations

import json
import shlex
import sys
from typing import TYPE_CHECKING, Any

import pytest
from git_repository import git

if TYPE_CHECKING:
    from repository import Repository

pytest_plugins = ["cli_project", "repository"]


def gated(repository: Repository) -> tuple[str, str]:
    """The verdict of the only case, and the base commit that it was confirmed against."""
    table: dict[str, Any] = json.loads(repository.results.read_text())
    case = next(one for one in table["cases"] if one["case"]["id"] == repository.CASE)
    return case["judgement"]["verdict"], case["judgement"]["confirmation"]["base_commit"]


def update_the_branch(repository: Repository, text: str) -> str:
    """Somebody else's commit on main, and main merged into the branch."""
    repository.git("checkout", "-q", "main")
    (repository.root / text).write_text("")
    sha = repository.commit(text)
    repository.git("checkout", "-q", "change")
    repository.git("merge", "-q", "--no-edit", "main")
    return sha


def test_a_slow_branch_is_red_after_main_was_merged_into_it_and_by_mains_policy(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.change("pyproject.toml", "launches = 3", "launches = 3\nignore = 1.0\ncatch = 2.0")
    repository.commit("tolerances")
    repository.branch("change")
    repository.slow_down()
    repository.commit("deeper")
    main = update_the_branch(repository, "unrelated")
    monkeypatch.setenv("GITHUB_BASE_REF", "main")
    done = repository("run")
    assert done.returncode == 1, done.stdout + done.stderr
    assert gated(repository) == ("REGRESSION", main)
    # The branch makes itself its own judge, and is updated again.
    repository.change("models/tinyconv.toml", "[source]", "ignore = 8.0\ncatch = 9.0\n[source]")
    repository.change("pyproject.toml", "ignore = 1.0\ncatch = 2.0", "ignore = 8.0\ncatch = 9.0")
    repository.commit("not to be seen")
    main = update_the_branch(repository, "more")
    monkeypatch.delenv("GITHUB_BASE_REF")
    done = repository("run", "--policy-from", "base", "--target", "main")
    assert done.returncode == 1, done.stdout + done.stderr
    assert gated(repository) == ("REGRESSION", main)
    assert len(repository.git("worktree", "list").splitlines()) == 1


def test_a_gate_before_a_commit_in_a_linked_worktree_leaves_the_commit_whole(repository: Repository) -> None:
    linked = type(repository)(repository.root.parent / "linked")
    repository.git("worktree", "add", "-q", "-b", "change", str(linked.root))
    hook = repository.root / ".git/hooks/pre-commit"
    words = [sys.executable, "-m", "perfgate", "run", *repository.WIDE]
    hook.write_text(f"#!/bin/sh\n{shlex.join(words)} >log 2>&1\necho $? >>log\n")
    hook.chmod(0o755)
    linked.slow_down()
    (linked.root / "staged").write_text("staged")
    linked.git("add", "models", "staged")
    git(linked.root, "commit", "-q", "-m", "deeper, and a file", env=linked.environment)
    assert linked.log.read_text().splitlines()[-1] == "1", linked.log.read_text()
    assert gated(linked) == ("REGRESSION", repository.git("rev-parse", "main"))
    changed = linked.git("show", "--format=", "--name-only").splitlines()
    assert changed == ["models/tinyconv.toml", "staged"]
    assert linked.git("status", "--short") == ""
    assert len(repository.git("worktree", "list").splitlines()) == 2


def test_a_target_that_is_not_there_is_a_usage_error_and_nothing_runs(repository: Repository) -> None:
    done = repository("run", "--target", "release")
    assert done.returncode == 2
    assert "target: no such branch or commit: release" in done.stderr
    assert not repository.results.with_suffix(".html").exists()
