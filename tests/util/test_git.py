"""Which commit a change starts from, in real repositories."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from git_repository import commit, git, start

from perfgate.errors import InfrastructureError, UsageError
from perfgate.util.git import find_base, read_commit, resolve, worktree


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return start(tmp_path / "repository", "one", "two")


def test_on_the_target_branch_it_is_the_commit_before(repository: Path) -> None:
    base = find_base(repository, environ={})
    assert base.commit.sha == git(repository, "rev-parse", "HEAD~1")
    assert base.commit.subject == "one"


def test_uncommitted_changes_on_the_target_branch_start_from_its_head(repository: Path) -> None:
    (repository / "file").write_text("edited")
    assert find_base(repository, environ={}).commit.sha == git(repository, "rev-parse", "HEAD")


def test_a_source_that_the_commit_does_not_have_is_a_change(repository: Path) -> None:
    models = repository / "models"
    (models / "deep/__pycache__").mkdir(parents=True)
    (models / "deep/__pycache__/net.pyc").write_text("")
    (models / "fetched.onnx").write_text("")
    (models / "ignored.toml").write_text("")
    (repository / ".gitignore").write_text("ignored.toml\n")
    git(repository, "add", ".gitignore")
    git(repository, "commit", "-q", "-m", "ignore")
    (repository / "notes.py").write_text("beside the models")
    assert not read_commit(repository, sources=models).dirty
    (models / "deep/net.toml").write_text("")
    assert read_commit(repository, sources=models).dirty
    assert not read_commit(repository).dirty
    assert not read_commit(repository, sources=repository / "none").dirty
    assert not read_commit(repository, sources=repository.parent).dirty, "git knows nothing of that"


def test_on_a_branch_it_is_the_merge_base_and_not_the_commit_before(repository: Path) -> None:
    start = git(repository, "rev-parse", "HEAD")
    git(repository, "checkout", "-q", "-b", "change")
    commit(repository, "three")
    commit(repository, "four")
    git(repository, "checkout", "-q", "main")
    commit(repository, "meanwhile")
    git(repository, "checkout", "-q", "change")
    assert find_base(repository, environ={}).commit.sha == start


def test_github_names_the_target_of_a_pull_request(repository: Path) -> None:
    git(repository, "branch", "release")
    start = git(repository, "rev-parse", "HEAD")
    commit(repository, "three")
    git(repository, "checkout", "-q", "-b", "change")
    commit(repository, "four")
    assert find_base(repository, environ={"GITHUB_BASE_REF": "release"}).commit.sha == start
    assert find_base(repository, environ={}).commit.subject == "three"


def test_a_shallow_clone_says_so(repository: Path, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{repository}", str(clone))
    base = find_base(clone, environ={})
    assert base.commit.sha == ""
    assert "too shallow" in base.why
    with pytest.raises(UsageError, match="no such commit: HEAD~1") as caught:
        find_base(clone, "HEAD~1")
    assert "fetch-depth: 0" in str(caught.value)


def test_without_git_there_is_none_and_asking_for_one_is_a_mistake(tmp_path: Path) -> None:
    assert "no git repository" in find_base(tmp_path, environ={}).why
    with pytest.raises(UsageError):
        find_base(tmp_path, "main")


@pytest.fixture
def foreign(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of another user, as a checkout in a container often is."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a file to another user")
    monkeypatch.delenv("SUDO_UID", raising=False)  # git takes its user for root's own
    for name in ("HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    for path in (repository, repository / ".git"):
        os.chown(path, 54_321, 54_321)
    return repository


def test_a_repository_of_another_user_is_said_with_gits_own_remedy(foreign: Path) -> None:
    base = find_base(foreign, environ={})
    assert base.why == f"git refuses the repository at {foreign}: it belongs to another user"
    assert base.fix == f"git config --global --add safe.directory {foreign}"
    for look in (find_base, resolve):
        with pytest.raises(UsageError, match="cannot look for 'main': git refuses") as caught:
            look(foreign, "main")
        assert caught.value.fix == base.fix
    with pytest.raises(InfrastructureError, match="git refuses"), worktree(foreign, "ab" * 20):
        pass


def test_a_checkout_that_the_job_allows_is_read(foreign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = (("user.name", "x"), ("Safe.Directory", str(foreign)))
    monkeypatch.setenv("GIT_CONFIG_COUNT", str(len(entries)))
    for number, (key, value) in enumerate(entries):
        monkeypatch.setenv(f"GIT_CONFIG_KEY_{number}", key)
        monkeypatch.setenv(f"GIT_CONFIG_VALUE_{number}", value)
    assert find_base(foreign, environ={}).commit.subject == "one"


def test_a_repository_without_a_commit_says_so_in_any_language(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    git(tmp_path, "init", "-q")
    base = find_base(tmp_path, environ={})
    assert (base.why, base.fix) == (
        "the git repository has no commit yet",
        "commit first: git add, git commit",
    )


def test_without_git_itself_that_is_said(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(repository))
    base = find_base(repository, environ={})
    assert base.why.startswith("git does not run: ")
    assert "install git" in base.fix


@pytest.mark.parametrize("revision", ["nowhere", "--output=x", "HEAD:file"])
def test_what_is_no_commit_is_refused(repository: Path, revision: str) -> None:
    with pytest.raises(UsageError, match="no such commit"):
        find_base(repository, revision)


def test_a_worktree_has_the_commits_files_and_leaves_nothing(repository: Path) -> None:
    (repository / "inner").mkdir()
    hook = repository / ".git/hooks/post-checkout"
    hook.write_text("#!/bin/sh\ntouch ran\n")
    hook.chmod(0o755)
    before = read_commit(repository)
    with (
        pytest.raises(KeyboardInterrupt),
        worktree(repository, git(repository, "rev-parse", "HEAD~1")) as place,
    ):
        assert (place / "file").read_text() == "one"
        assert not (place / "ran").exists()
        raise KeyboardInterrupt
    assert not place.exists()
    assert len(git(repository, "worktree", "list").splitlines()) == 1
    assert read_commit(repository) == before


@pytest.mark.parametrize("broken", [False, True])
def test_a_worktree_whose_making_was_interrupted_is_removed_too(repository: Path, broken: bool) -> None:
    with worktree(repository, git(repository, "rev-parse", "HEAD~1")) as place:
        git(repository, "worktree", "lock", place)  # as git does until it is whole
        if broken:
            (place / ".git").unlink()
    assert not place.exists()
    assert len(git(repository, "worktree", "list").splitlines()) == 1


def test_a_worktree_of_a_commit_that_is_not_there_is_the_machines_fault(repository: Path) -> None:
    with pytest.raises(InfrastructureError), worktree(repository, "ab" * 20):
        pass
    assert len(git(repository, "worktree", "list").splitlines()) == 1
