"""git inside hooks, rebases and bisections, in linked worktrees, and with submodules."""

from __future__ import annotations

import ast
import os
import shlex
import sys
from pathlib import Path

import pytest
from git_repository import commit, git, start

from perfgate.errors import InfrastructureError
from perfgate.util.git import find_base, git_environment, read_commit, worktree

PACKAGE = Path(__file__).resolve().parents[2] / "perfgate"
# What perfgate does with git in a run: it finds base, and has its files in a worktree.
PROBE = """
import os
from pathlib import Path
from perfgate.util.git import find_base, read_commit, worktree

here, log = Path.cwd(), Path(os.environ["PROBE_LOG"])
indexes = [Path(os.environ[name]) for name in ("GIT_INDEX_FILE", "PROBE_INDEX") if name in os.environ]
before = [path.read_bytes() for path in indexes]
read_commit(here, sources=here)
base = find_base(here, environ={})
with worktree(here, base.commit.sha) as place:
    text = (place / "file").read_text()
assert [path.read_bytes() for path in indexes] == before
with log.open("a") as sink:
    print(base.commit.subject, text, len(indexes), file=sink)
"""


class Probe:
    """The script above, for hooks and for git commands that run one, and what it wrote."""

    def __init__(self, folder: Path) -> None:
        self.script, self._log = folder / "probe.py", folder / "probe.log"
        self.script.write_text(PROBE)
        self.command = shlex.join((sys.executable, str(self.script)))

    def environment(self, root: Path) -> dict[str, str]:
        index = git(root, "rev-parse", "--path-format=absolute", "--git-path", "index")
        own = {"PYTHONPATH": str(PACKAGE.parent), "PROBE_LOG": str(self._log), "PROBE_INDEX": index}
        return {**os.environ, **own}

    @property
    def lines(self) -> list[str]:
        return self._log.read_text().splitlines() if self._log.exists() else []


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = start(tmp_path / "repository", "one", "two")
    commit(root, "other", name="other")
    return root


@pytest.fixture
def probe(tmp_path: Path) -> Probe:
    return Probe(tmp_path)


def linked(root: Path) -> Path:
    place = root.parent / "linked"
    git(root, "worktree", "add", "-q", "-b", "linked", place)
    return place


def worktrees(root: Path) -> int:
    return len(git(root, "worktree", "list").splitlines())


@pytest.mark.parametrize("place", ["main", "linked"])
@pytest.mark.parametrize("words", [("commit",), ("commit", "-a"), ("commit", "--only", "file")])
def test_a_commit_whose_hook_makes_a_worktree_has_exactly_what_was_staged(
    repository: Path, probe: Probe, place: str, words: tuple[str, ...]
) -> None:
    root = repository if place == "main" else linked(repository)
    count = worktrees(repository)
    hook = repository / ".git/hooks/pre-commit"
    hook.write_text(f"#!/bin/sh\nexec {probe.command}\n")
    hook.chmod(0o755)
    (root / "file").write_text("three")
    (root / "other").write_text("not staged")
    (root / "untracked").write_text("")
    (root / "added").write_text("added")
    git(root, "add", "file", "added")
    git(root, *words[:2], "-q", "-m", "three", *words[2:], env=probe.environment(root))
    expected = {"commit": ["added", "file"], "commit -a": ["added", "file", "other"]}
    changed = git(root, "show", "--format=", "--name-only").splitlines()
    assert changed == expected.get(" ".join(words), ["file"])
    assert probe.lines == ["other two 2"], "base is HEAD, and the hook had an index from git"
    left = {"commit": " M other\n?? untracked", "commit -a": "?? untracked"}
    assert (
        git(root, "status", "--short")
        == left.get(" ".join(words), "A  added\n M other\n?? untracked").strip()
    )
    assert worktrees(repository) == count


@pytest.mark.parametrize("place", ["main", "linked"])
def test_a_rebase_that_runs_it_after_each_commit(repository: Path, probe: Probe, place: str) -> None:
    git(repository, "checkout", "-q", "-b", "change")
    commits = [commit(repository, text, name="mine") for text in ("three", "four")]
    git(repository, "checkout", "-q", "main")
    commit(repository, "meanwhile", name="other")
    root = repository if place == "main" else linked(repository)
    git(root, "checkout", "-q", "change")
    git(root, "rebase", "-q", "-x", probe.command, "main", env=probe.environment(root))
    assert [line.split()[0] for line in probe.lines] == ["meanwhile", "meanwhile"]
    assert git(root, "status", "--short") == ""
    subjects = git(root, "log", "--format=%s", "main..change").splitlines()
    assert subjects == ["four", "three"]
    assert git(root, "rev-parse", "change") != commits[-1]


@pytest.mark.parametrize("place", ["main", "linked"])
def test_a_bisection_that_runs_it(repository: Path, probe: Probe, place: str) -> None:
    for number in range(4):
        commit(repository, f"commit{number}", name="mine")
    root = repository if place == "main" else linked(repository)
    git(root, "bisect", "start", "HEAD", "HEAD~4")
    test = f"{probe.command} && ! grep -qE 'commit[23]' mine"
    said = git(root, "bisect", "run", "sh", "-c", test, env=probe.environment(root))
    assert "is the first bad commit" in said
    assert git(root, "show", "-s", "--format=%s", "refs/bisect/bad") == "commit2"
    assert probe.lines, "each step starts from the commit before"
    assert git(root, "status", "--short") == ""


def test_variables_of_another_checkout_are_not_followed(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = start(tmp_path / "other", "alien", "aliens")
    expected = git(repository, "rev-parse", "HEAD"), git(repository, "rev-parse", "HEAD~1")
    index = other / ".git/index"
    before = index.read_bytes()
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    monkeypatch.setenv("GIT_COMMON_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_OBJECT_DIRECTORY", str(other / ".git/objects"))
    monkeypatch.setenv("GIT_PREFIX", "models/")
    monkeypatch.setenv("GIT_CONFIG_PARAMETERS", "'core.bare'='true'")
    assert read_commit(repository).sha == expected[0]
    base = find_base(repository, environ={})
    assert base.commit.sha == expected[1]
    with worktree(repository, base.commit.sha) as place:
        assert (place / "file").read_text() == "two"
    assert index.read_bytes() == before


def test_a_relative_index_file_is_left_alone(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `git commit -a` exports it: relative to the working tree's root."""
    own = repository / ".git/own-index"
    own.write_bytes((repository / ".git/index").read_bytes())
    before = own.read_bytes()
    monkeypatch.chdir(repository)
    monkeypatch.setenv("GIT_INDEX_FILE", ".git/own-index")
    with worktree(repository, find_base(repository, environ={}).commit.sha) as place:
        assert (place / "file").read_text() == "two"
    assert own.read_bytes() == before
    assert sorted(path.name for path in repository.iterdir()) == [".git", "file", "other"]


def test_the_users_index_is_not_even_refreshed(repository: Path) -> None:
    index = repository / ".git/index"
    os.utime(repository / "file", (1, 1))  # git would note the new time
    before = index.read_bytes()
    assert not read_commit(repository).dirty
    assert index.read_bytes() == before
    git(repository, "status")
    assert index.read_bytes() != before, "git itself does"


def test_the_environment_keeps_only_directories_that_are_declared_safe() -> None:
    given = {
        "PATH": "/bin",
        "LC_ALL": "de_DE.UTF-8",
        "GIT_DIR": "x",
        "GIT_ANYTHING_NEW": "x",
        "GIT_OPTIONAL_LOCKS": "1",
        "GIT_CONFIG_COUNT": "4",
        "GIT_CONFIG_KEY_0": "core.worktree",
        "GIT_CONFIG_VALUE_0": "/elsewhere",
        "GIT_CONFIG_KEY_1": "safe.directory",
        "GIT_CONFIG_VALUE_1": "/a",
        "GIT_CONFIG_KEY_3": "SAFE.directory",
        "GIT_CONFIG_VALUE_3": "/b",
        "GIT_CONFIG_KEY_4": "safe.directory",
        "GIT_CONFIG_VALUE_4": "/beyond the count",
    }
    assert git_environment(given) == {
        "PATH": "/bin",
        "LC_ALL": "de_DE.UTF-8",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_CONFIG_COUNT": "2",
        "GIT_CONFIG_KEY_0": "safe.directory",
        "GIT_CONFIG_VALUE_0": "/a",
        "GIT_CONFIG_KEY_1": "safe.directory",
        "GIT_CONFIG_VALUE_1": "/b",
    }
    for count in ("", "many", "-1", "9" * 400):
        assert "GIT_CONFIG_COUNT" not in git_environment({**given, "GIT_CONFIG_COUNT": count})


def test_no_other_module_names_the_git_program() -> None:
    """As the first word of a command, or as what is looked for or started."""
    found = []
    texts = {path: path.read_text() for path in PACKAGE.rglob("*.py")}
    for path, text in texts.items():
        for node in ast.walk(ast.parse(text if 'git"' in text else "")):
            if isinstance(node, (ast.List, ast.Tuple)):
                first = node.elts[:1]
            elif isinstance(node, ast.Call):
                first = node.args[:1]
            elif isinstance(node, ast.Assign):
                first = [node.value]
            else:
                continue
            words = [str(one.value) for one in first if isinstance(one, ast.Constant)]
            if any(word == "git" or word.endswith("/git") for word in words):
                found.append(str(path.relative_to(PACKAGE)))
    assert found == ["util/git/program.py"]


class Nested:
    """A repository with the submodule `libs/sub`, which has the submodule `inner`; both move on after the
    first commit. `clone` is a user's checkout of it."""

    def __init__(self, folder: Path) -> None:
        self.inner = start(folder / "inner", "inner one")
        self.sub = start(folder / "sub", "sub one")
        git(self.sub, "submodule", "add", "-q", self.inner, "inner")
        commit(self.sub, "sub two")
        self.root = start(folder / "root", "one")
        git(self.root, "submodule", "add", "-q", self.sub, "libs/sub")
        self.first = commit(self.root, "two")
        self.old = git(self.sub, "rev-parse", "HEAD"), git(self.inner, "rev-parse", "HEAD")
        commit(self.inner, "inner two")
        git(self.sub / "inner", "pull", "-q", "origin", "main")
        commit(self.sub, "sub three")
        git(self.root / "libs/sub", "pull", "-q", "origin", "main")
        self.second = commit(self.root, "three")
        self.clone = folder / "clone"

    def check_out(self, *words: str) -> Path:
        git(self.root, "clone", "-q", *words, self.root, self.clone)
        return self.clone


@pytest.fixture
def nested(tmp_path: Path) -> Nested:
    return Nested(tmp_path)


@pytest.mark.parametrize("place", ["main", "linked"])
def test_a_worktree_has_the_submodules_of_its_own_commit(nested: Nested, place: str) -> None:
    root = nested.check_out("--recurse-submodules")
    if place == "linked":
        root = linked(root)
        git(root, "submodule", "update", "-q", "--init", "--recursive")
    sub = root / "libs/sub"
    repositories = (root, sub, sub / "inner")
    counts = [worktrees(one) for one in repositories]
    heads = [git(one, "rev-parse", "HEAD") for one in repositories]
    with worktree(root, nested.first) as tree:
        assert (tree / "libs/sub/file").read_text() == "sub two"
        assert (tree / "libs/sub/inner/file").read_text() == "inner one"
        assert git(tree / "libs/sub", "rev-parse", "HEAD") == nested.old[0]
        assert git(tree / "libs/sub/inner", "rev-parse", "HEAD") == nested.old[1]
        assert not read_commit(tree).dirty
    assert not tree.exists()
    assert [worktrees(one) for one in repositories] == counts
    assert [git(one, "rev-parse", "HEAD") for one in repositories] == heads
    assert git(root, "status", "--short") == ""
    with worktree(root, nested.first, submodules=False) as tree:
        assert list((tree / "libs/sub").iterdir()) == []


def test_a_submodule_that_is_not_checked_out_stays_empty(nested: Nested) -> None:
    root = nested.check_out()
    with worktree(root, nested.first) as tree:
        assert list((tree / "libs/sub").iterdir()) == []
    git(root, "submodule", "update", "-q", "--init")
    with worktree(root, nested.first) as tree:
        assert (tree / "libs/sub/file").read_text() == "sub two"
        assert list((tree / "libs/sub/inner").iterdir()) == []


def test_a_submodule_that_lacks_the_commit_names_what_to_fetch(nested: Nested) -> None:
    root = nested.check_out("--recurse-submodules")
    sub = root / "libs/sub"
    # A base that names a commit which was made elsewhere and never fetched here.
    missing = commit(nested.sub, "elsewhere")
    git(root, "update-index", "--cacheinfo", f"160000,{missing},libs/sub")
    git(root, "commit", "-q", "-m", "ahead")
    sha = git(root, "rev-parse", "HEAD")
    git(root, "reset", "-q", "--hard", "HEAD~1")
    with pytest.raises(InfrastructureError) as caught, worktree(root, sha):
        pass
    assert caught.value.what == f"the submodule libs/sub does not have the commit {missing}"
    assert caught.value.fix == "git -C libs/sub fetch"
    assert (worktrees(root), worktrees(sub)) == (1, 1)
    git(sub, "fetch", "-q")
    with worktree(root, sha) as tree:
        assert (tree / "libs/sub/file").read_text() == "elsewhere"


def test_a_nested_submodule_that_lacks_the_commit_is_named_by_its_whole_path(nested: Nested) -> None:
    root = nested.check_out("--recurse-submodules")
    commit(nested.inner, "inner elsewhere")
    git(nested.sub / "inner", "pull", "-q", "origin", "main")
    commit(nested.sub, "sub elsewhere")
    git(root / "libs/sub", "fetch", "-q", "--no-recurse-submodules", "origin")
    git(root / "libs/sub", "checkout", "-q", "origin/main")
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "ahead")
    with pytest.raises(InfrastructureError) as caught, worktree(root, "HEAD"):
        pass
    assert caught.value.fix == "git -C libs/sub/inner fetch"
    assert [worktrees(one) for one in (root, root / "libs/sub", root / "libs/sub/inner")] == [1, 1, 1]
