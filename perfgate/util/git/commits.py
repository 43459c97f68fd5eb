"""Commits of the repository around a folder, and why there are none."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

from perfgate.errors import UsageError
from perfgate.records import Commit, Record
from perfgate.util.git.program import git_output, run_git

_SHA = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
NO_REPOSITORY = "there is no git repository around the project"
DEEPEN = "fetch the whole history: actions/checkout with fetch-depth: 0, or git fetch --unshallow"


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
    sha = git_output(folder, "rev-parse", "HEAD")
    if sha is None:
        # In a container job git may be absent, or refuse a checkout that another user owns.
        sha = os.environ.get("GITHUB_SHA", "")
        return Commit(sha=sha) if re.fullmatch(r"[0-9a-f]{40}", sha) else Commit()
    status = git_output(folder, "status", "--porcelain", "--untracked-files=no")
    others = ("ls-files", "--others", "--exclude-standard", "--")
    # A pathspec's asterisk reaches into folders.
    new = (
        git_output(folder, *others, *(f"{sources.resolve()}/*.{kind}" for kind in ("toml", "py")))
        if sources
        else ""
    )
    return Commit(sha=sha, dirty=status is None or bool(status or new), subject=_subject(folder, sha))


def resolve(folder: Path, revision: str) -> Commit:
    """A revision as a commit. Raises `UsageError` where it is not there."""
    sha = None
    if not revision.startswith("-"):
        sha = git_output(folder, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
    if sha is None or not _SHA.fullmatch(sha):
        if (none := without_commits(folder)) is not None:
            raise UsageError(f"cannot look for {revision!r}: {none.why}", where=folder, fix=none.fix)
        raise UsageError(f"no such commit: {revision}", where=folder, fix=DEEPEN)
    return as_commit(folder, sha)


def without_commits(folder: Path) -> Base | None:
    """Why git knows no commit here, in its own words where they are needed; None where it knows one."""
    try:
        done = run_git(folder, "rev-parse", "--verify", "HEAD")
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
    if git_output(folder, "rev-parse", "--git-dir") is not None:
        return Base(why="the git repository has no commit yet", fix="commit first: git add, git commit")
    last = said.splitlines()[-1] if said else done.failure
    return Base(why=f"git tells no commit: {last}", fix="git rev-parse HEAD must print a commit")


def top_level(folder: Path) -> Path | None:
    """The root of the repository around `folder`."""
    found = git_output(folder, "rev-parse", "--show-toplevel")
    return Path(found) if found else None


def as_commit(folder: Path, sha: str) -> Commit:
    """A commit that is there, with its subject."""
    return Commit(sha=sha, subject=_subject(folder, sha))


def _subject(folder: Path, sha: str) -> str:
    return git_output(folder, "log", "-1", "--format=%s", sha) or ""
