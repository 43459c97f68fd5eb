"""The git commits that matter to a run: the one that is measured, and the one that the change starts from."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from perfgate.errors import InfrastructureError, UsageError
from perfgate.records import Commit, Record
from perfgate.util.process import run_child

_TIMEOUT_S = 20
_CHECKOUT_TIMEOUT_S = 600
_SHA = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
# Where a change usually goes when nobody says so.
_TARGETS = ("origin/HEAD", "origin/main", "origin/master", "main", "master")
NO_REPOSITORY = "there is no git repository around the project"
_DEEPEN = "fetch the whole history: actions/checkout with fetch-depth: 0, or git fetch --unshallow"


class Base(Record):
    """The commit that a change starts from; where there is none, `why` says so, and `fix` what helps, where
    naming a revision does not."""

    commit: Commit = Commit()
    why: str = ""
    fix: str = ""


def read_commit(folder: Path, *, sources: Path | None = None) -> Commit:
    """HEAD of the repository around `folder`, and whether tracked files differ from it, or it lacks a spec or
    a script below `sources` that is not ignored: what was measured is then not what the commit has. Weights
    may well be fetched from elsewhere.

    Without git, GitHub's own `GITHUB_SHA`; otherwise an empty commit.
    """
    sha = _git(folder, "rev-parse", "HEAD")
    if sha is None:
        # In a container job git may be absent, or refuse a checkout that another user owns.
        sha = os.environ.get("GITHUB_SHA", "")
        return Commit(sha=sha) if re.fullmatch(r"[0-9a-f]{40}", sha) else Commit()
    status = _git(folder, "status", "--porcelain", "--untracked-files=no")
    others = ("ls-files", "--others", "--exclude-standard", "--")
    # A pathspec's asterisk reaches into folders.
    new = (
        _git(folder, *others, *(f"{sources.resolve()}/*.{kind}" for kind in ("toml", "py")))
        if sources
        else ""
    )
    return Commit(sha=sha, dirty=status is None or bool(status or new), subject=_subject(folder, sha))


def find_base(
    folder: Path, asked: str = "", head: Commit | None = None, environ: Mapping[str, str] = os.environ
) -> Base:
    """The base of HEAD, or of the uncommitted changes on top of it.

    What is `asked` for; otherwise the first parent of a merge commit, as a pull request is checked out;
    otherwise the merge base with the target branch (`GITHUB_BASE_REF`, or origin's default branch). On the
    target branch itself it is the commit before, and HEAD where the tree has uncommitted changes.

    Raises `UsageError` for a revision that was asked for and is not there.
    """
    head = read_commit(folder) if head is None else head
    if (none := without_commits(folder)) is not None:
        if asked:
            raise UsageError(f"cannot look for {asked!r}: {none.why}", where=folder, fix=none.fix)
        return none
    if asked:
        return Base(commit=resolve(folder, asked))
    target = _target(folder, environ.get("GITHUB_BASE_REF", ""))
    on_target = bool(target) and _git(folder, "merge-base", "--is-ancestor", "HEAD", target) is not None
    if on_target and head.dirty:
        return Base(commit=Commit(sha=head.sha, subject=head.subject))
    if _git(folder, "rev-parse", "--verify", "--quiet", "HEAD^2") is not None or on_target:
        return _or_none(folder, _git(folder, "rev-parse", "--verify", "--quiet", "HEAD^1^{commit}"))
    if not target:
        return Base(why=f"no target branch is known here (looked for {', '.join(_TARGETS)}): --base REV")
    return _or_none(folder, _git(folder, "merge-base", "HEAD", target))


def resolve(folder: Path, revision: str) -> Commit:
    """A revision as a commit. Raises `UsageError` where it is not there."""
    sha = None
    if not revision.startswith("-"):
        sha = _git(folder, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
    if sha is None or not _SHA.fullmatch(sha):
        if (none := without_commits(folder)) is not None:
            raise UsageError(f"cannot look for {revision!r}: {none.why}", where=folder, fix=none.fix)
        raise UsageError(f"no such commit: {revision}", where=folder, fix=_DEEPEN)
    return Commit(sha=sha, subject=_subject(folder, sha))


def without_commits(folder: Path) -> Base | None:
    """Why git knows no commit here, in its own words where they are needed; None where it knows one."""
    # In English, whatever the user's language: it is read here.
    words: list[str | Path] = ["git", "-C", folder, "rev-parse", "--verify", "HEAD"]
    try:
        done = run_child(words, timeout_s=_TIMEOUT_S, env={**os.environ, "LC_ALL": "C"})
    except OSError as error:
        return Base(why=f"git does not run: {error.strerror}", fix="install git, or set PATH")
    if done.failure is None:
        return None
    said = done.stderr_tail
    if refused := re.search(r"dubious ownership in repository at '(.*)'", said):
        return Base(
            why=f"git refuses the repository at {refused[1]}: it belongs to another user",
            fix=f"git config --global --add safe.directory {shlex.quote(refused[1])}",
        )
    if "not a git repository" in said:
        return Base(why=NO_REPOSITORY, fix="run it in a checkout of a git repository, or name no revision")
    if _git(folder, "rev-parse", "--git-dir") is not None:
        return Base(why="the git repository has no commit yet", fix="commit first: git add, git commit")
    last = said.splitlines()[-1] if said else done.failure
    return Base(why=f"git tells no commit: {last}", fix="git rev-parse HEAD must print a commit")


def top_level(folder: Path) -> Path | None:
    """The root of the repository around `folder`."""
    found = _git(folder, "rev-parse", "--show-toplevel")
    return Path(found) if found else None


@contextlib.contextmanager
def worktree(folder: Path, sha: str) -> Iterator[Path]:
    """The files of a commit of the repository around `folder`, in a temporary folder that is always removed.

    Yields the place that `folder` has in it. No hook of the repository runs. Raises `InfrastructureError`
    where git cannot make it.
    """
    top = top_level(folder)
    if top is None:
        none = without_commits(folder) or Base(why="it has no working tree")
        raise InfrastructureError(f"git makes no worktree: {none.why}", where=folder, fix=none.fix or None)
    with tempfile.TemporaryDirectory(prefix="perfgate-base-") as name:
        tree = Path(name).resolve() / "tree"
        quiet = ("-c", "core.hooksPath=/dev/null")
        done = run_child(
            ["git", "-C", top, *quiet, "worktree", "add", "--detach", "--force", tree, sha],
            timeout_s=_CHECKOUT_TIMEOUT_S,
        )
        try:
            if done.failure:
                raise InfrastructureError(
                    f"git worktree {done.failure}: {done.stderr_tail[-500:]}", where=sha, fix=_DEEPEN
                )
            yield tree / folder.resolve().relative_to(top.resolve())
        finally:
            _git(top, "worktree", "remove", "--force", str(tree))
            _git(top, "worktree", "prune")


def _target(folder: Path, base_ref: str) -> str:
    names = (f"origin/{base_ref}", base_ref) if base_ref else _TARGETS
    for name in names:
        if _git(folder, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}") is not None:
            return name
    return ""


def _or_none(folder: Path, sha: str | None) -> Base:
    if sha and _SHA.fullmatch(sha):
        return Base(commit=Commit(sha=sha, subject=_subject(folder, sha)))
    if _git(folder, "rev-parse", "--is-shallow-repository") == "true":
        return Base(why=f"the history is too shallow to tell the base commit: {_DEEPEN}")
    return Base(why="HEAD has no parent and no commit in common with the target branch")


def _subject(folder: Path, sha: str) -> str:
    return _git(folder, "log", "-1", "--format=%s", sha) or ""


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = run_child(["git", "-C", folder, *words], timeout_s=_TIMEOUT_S)
    except OSError:
        return None
    return done.stdout_tail if done.failure is None else None
