"""Which commit a change starts from, for each way in which branches are joined."""

from __future__ import annotations

from pathlib import Path

import pytest
from git_repository import commit, git, start

from perfgate.errors import UsageError
from perfgate.util.git import find_base


class History:
    """A repository whose commits have names: `main` is at "main", and "change" left it at "fork"."""

    def __init__(self, root: Path) -> None:
        self.root = start(root, "first", "fork")
        self.on("change", new=True)

    def on(self, branch: str, *, new: bool = False) -> None:
        git(self.root, "checkout", "-q", *(["-b"] if new else []), branch)

    def commit(self, text: str) -> str:
        """A commit with a file of its own, so that no merge has a conflict."""
        return commit(self.root, text, name=text)

    def commit_on(self, branch: str, text: str) -> str:
        here = git(self.root, "rev-parse", "--abbrev-ref", "HEAD")
        self.on(branch)
        sha = self.commit(text)
        self.on(here)
        return sha

    def merge(self, *others: str, text: str = "merge") -> str:
        git(self.root, "merge", "-q", "--no-ff", "-m", text, *others)
        return git(self.root, "rev-parse", "HEAD")

    def base(self, target: str = "", **environ: str) -> str:
        """The subject of the base commit."""
        found = find_base(self.root, target=target, environ=environ)
        assert not found.why
        return found.commit.subject


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "repository")


def github_merge(history: History, branch: str = "change", target: str = "main") -> dict[str, str]:
    """HEAD as GitHub makes it for a pull request, and the variables of its job."""
    git(history.root, "checkout", "-q", "--detach", target)
    sha = history.merge(branch)
    return {"GITHUB_REF": "refs/pull/7/merge", "GITHUB_SHA": sha, "GITHUB_BASE_REF": target}


@pytest.mark.parametrize("updates", [1, 2])
def test_an_updated_branch_starts_from_what_it_was_updated_to(history: History, updates: int) -> None:
    for number in range(updates):
        history.commit(f"slow{number}")
        history.commit_on("main", f"main{number}")
        history.merge("main")
    assert history.base() == f"main{updates - 1}"
    history.commit_on("main", "later")
    history.commit("more")
    assert history.base(GITHUB_BASE_REF="main") == f"main{updates - 1}"


def test_the_same_where_the_target_is_merged_as_the_second_parent_of_an_octopus(history: History) -> None:
    history.commit("slow")
    history.on("topic", new=True)
    history.commit("topic")
    history.on("change")
    history.commit("slower")
    history.commit_on("main", "newest")
    history.merge("topic", "main")
    assert len(git(history.root, "rev-parse", "HEAD^@").split()) == 3
    assert history.base() == "newest"


def test_a_target_that_took_the_branch_in_and_gave_it_back(history: History) -> None:
    """A back-merge: the branch continues from the target's own merge of it."""
    history.commit("slow")
    history.on("main")
    history.merge("change", text="taken")
    history.on("change")
    git(history.root, "merge", "-q", "--ff-only", "main")
    history.commit("slower")
    assert history.base() == "taken"


def test_a_branch_that_was_squashed_and_continues_starts_where_it_left_until_it_is_updated(
    history: History,
) -> None:
    history.commit("slow")
    history.on("main")
    git(history.root, "merge", "-q", "--squash", "change")
    git(history.root, "commit", "-q", "-m", "squashed")
    history.on("change")
    history.commit("more")
    assert history.base() == "fork"
    history.merge("main")
    assert history.base() == "squashed"


def test_a_detached_head_is_as_good_as_a_branch(history: History) -> None:
    history.commit("slow")
    history.commit_on("main", "newest")
    git(history.root, "checkout", "-q", "--detach", "change")
    assert history.base() == "fork"


def test_githubs_merge_starts_from_the_target_whether_that_moved_on_or_is_not_fetched(
    history: History,
) -> None:
    history.commit("slow")
    history.commit_on("main", "merged-into")
    environ = github_merge(history)
    assert history.base(**environ) == "merged-into"
    git(history.root, "checkout", "-q", "-B", "main", "main")
    history.commit("later")
    git(history.root, "checkout", "-q", "--detach", environ["GITHUB_SHA"])
    assert history.base(**environ) == "merged-into"
    git(history.root, "branch", "-D", "main")
    assert history.base(**environ) == "merged-into"


@pytest.mark.parametrize("wrong", [{"GITHUB_REF": "refs/heads/main"}, {"GITHUB_SHA": "ab" * 20}])
def test_another_merge_than_githubs_says_nothing_of_a_target_that_is_not_here(
    history: History, wrong: dict[str, str]
) -> None:
    history.commit("slow")
    environ = github_merge(history)
    git(history.root, "branch", "-D", "main")
    found = find_base(history.root, environ={**environ, **wrong})
    assert not found.commit.sha
    assert found.why == (
        "no target branch is known here (looked for origin/main, main): --target REV, or --base REV"
    )


@pytest.mark.parametrize("fetched", [True, False])
def test_githubs_merge_of_an_updated_branch(history: History, fetched: bool) -> None:
    history.commit("slow")
    history.commit_on("main", "updated-to")
    history.merge("main")
    history.commit_on("main", "merged-into")
    environ = github_merge(history)
    if not fetched:
        git(history.root, "branch", "-D", "main")
    assert history.base(**environ) == "merged-into"


def test_a_clone_of_githubs_merge_that_is_two_deep(history: History, tmp_path: Path) -> None:
    history.commit("slow")
    history.commit_on("main", "merged-into")
    environ = github_merge(history)
    clone = tmp_path / "clone"
    git(tmp_path, "init", "-q", clone)
    git(clone, "fetch", "-q", "--depth", "2", f"file://{history.root}", environ["GITHUB_SHA"])
    git(clone, "checkout", "-q", "--detach", "FETCH_HEAD")
    assert find_base(clone, environ=environ).commit.subject == "merged-into"
    # One commit deep there is nothing to start from.
    git(clone, "fetch", "-q", "--depth", "1", f"file://{history.root}", environ["GITHUB_SHA"])
    assert "too shallow" in find_base(clone, environ=environ).why


def test_a_stacked_branch_starts_from_the_branch_below(history: History) -> None:
    below = history.commit("below")
    history.on("above", new=True)
    history.commit("above")
    assert history.base() == "fork"
    assert history.base(GITHUB_BASE_REF="change") == "below"
    assert history.base(target="change") == "below"
    assert history.base(target=below) == "below"
    assert history.base(target="change", GITHUB_BASE_REF="main") == "below", "what is named goes first"


def test_a_forks_head_starts_from_its_base_commit(history: History) -> None:
    """A maintainer's dispatch: the fork's own commit is checked out, and the event has no branch."""
    target = git(history.root, "rev-parse", "main")
    history.commit("slow")
    assert history.base(target=target) == "fork"
    newer = history.commit_on("main", "newer")
    history.merge("main")
    assert history.base(target=newer) == "newer"


@pytest.mark.parametrize("target", ["nowhere", "--all", "ab" * 20, "HEAD:first"])
def test_a_target_that_is_named_and_not_there_is_a_usage_error(history: History, target: str) -> None:
    with pytest.raises(UsageError, match="no such branch or commit") as caught:
        find_base(history.root, target=target, environ={})
    assert "git fetch" in str(caught.value)


def test_a_target_is_a_branch_before_it_is_a_tag(history: History, tmp_path: Path) -> None:
    history.commit("slow")
    history.commit("slower")
    for name in ("main", "origin/main"):
        git(history.root, "tag", name, "HEAD~1")
    assert history.base() == history.base(target="main") == history.base(GITHUB_BASE_REF="main") == "fork"
    history.on("main")
    clone = History.__new__(History)
    clone.root = tmp_path / "clone"
    git(tmp_path, "clone", "-q", history.root, clone.root)
    git(clone.root, "checkout", "-q", "--detach", "refs/remotes/origin/change")
    for target in ("", "origin/main", "refs/remotes/origin/main"):
        assert clone.base(target=target) == "fork"
    assert clone.base(GITHUB_BASE_REF="main") == "fork"
    git(clone.root, "tag", "-d", "main")
    assert clone.base(target="main") == "fork", "a branch of origin needs no local one"


def test_a_branch_that_was_merged_since_starts_from_the_target_before_it(history: History) -> None:
    history.commit("slow")
    history.commit_on("main", "updated-to")
    history.merge("main")
    history.commit("slower")
    history.on("main")
    history.merge("change", text="taken")
    history.commit("later")
    history.on("change")
    assert history.base() == "updated-to"
    history.on("main")
    assert history.base() == "taken"
    git(history.root, "checkout", "-q", "HEAD~1")
    assert history.base() == "updated-to", "a commit of the target's line starts from its first parent"


def test_uncommitted_changes(history: History) -> None:
    (history.root / "file").write_text("edited")
    assert history.base() == "fork", "on the target's own commit they start from it"
    git(history.root, "checkout", "-q", "--", "file")
    history.commit("slow")
    (history.root / "file").write_text("edited")
    assert history.base() == "fork", "with the branch's commits they start where it left"
    git(history.root, "checkout", "-q", "--", "file")
    history.on("main")
    history.merge("change", text="taken")
    history.on("change")
    (history.root / "file").write_text("edited")
    assert history.base() == "slow", "on a branch that was merged since they start from its end"


def criss_cross(history: History) -> None:
    """main and the branch each merged the other's commit: both are merge bases."""
    history.commit("ours")
    history.commit_on("main", "theirs")
    git(history.root, "branch", "ours", "change")
    git(history.root, "branch", "theirs", "main")
    history.merge("theirs", text="theirs in")
    history.on("main")
    history.merge("ours", text="ours in")
    history.commit("main goes on")
    history.on("change")
    history.commit("slow")


def test_of_two_merge_bases_it_is_the_one_on_the_targets_line(history: History) -> None:
    criss_cross(history)
    assert len(git(history.root, "merge-base", "--all", "HEAD", "main").split()) == 2
    assert history.base() == "theirs"
    git(history.root, "checkout", "-q", "main")
    assert history.base(target="change") == "ours"


def test_of_merge_bases_beside_the_targets_line_it_is_the_newest(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two branches that were merged into the target, and into this one."""
    history.commit("slow")
    for day, name in (("02", "newer"), ("01", "older")):
        git(history.root, "checkout", "-q", "-b", name, "main")
        monkeypatch.setenv("GIT_COMMITTER_DATE", f"2099-01-{day}T00:00:00Z")
        history.commit(name)
        monkeypatch.delenv("GIT_COMMITTER_DATE")
    for branch in ("main", "change"):
        history.on(branch)
        for name in ("newer", "older"):
            history.merge(name)
    assert len(git(history.root, "merge-base", "--all", "HEAD", "main").split()) == 2
    assert history.base() == "newer"


def test_histories_without_a_common_commit(history: History, tmp_path: Path) -> None:
    git(history.root, "checkout", "-q", "--orphan", "other")
    history.commit("root")
    assert find_base(history.root, environ={}).why == (
        "HEAD has no parent and no commit in common with the target branch"
    )
    clone = tmp_path / "clone"
    history.on("change")
    history.commit("slow")
    git(tmp_path, "clone", "-q", "--depth", "1", "--no-single-branch", f"file://{history.root}", clone)
    assert "too shallow" in find_base(clone, target="main", environ={}).why
