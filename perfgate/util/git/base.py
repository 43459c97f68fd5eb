"""Which commit a change starts from."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from perfgate.errors import UsageError
from perfgate.util.git.commits import DEEPEN, Base, as_commit, read_commit, resolve, without_commits
from perfgate.util.git.program import git_output

# Where a change usually goes when nobody says so.
_USUAL = ("origin/HEAD", "origin/main", "origin/master", "main", "master")
_MERGE_REF = re.compile(r"refs/pull/[0-9]+/merge")


def find_base(
    folder: Path, asked: str = "", *, target: str = "", environ: Mapping[str, str] = os.environ
) -> Base:
    """The base of HEAD, or of the uncommitted changes on top of it: found by the ancestry of the target
    branch, never by the shape of HEAD.

    1. A revision that is `asked` for is base.
    2. The target is `target`, else the branch `GITHUB_BASE_REF`, else the usual one: origin's default branch,
       main or master.
    3. HEAD is not in the target's history: base is their merge base. Of several it is the one on the target's
       first-parent line, else the newest.
    4. HEAD is in the target's history, with uncommitted changes: base is HEAD.
    5. HEAD is on the target's first-parent line: base is HEAD's first parent.
    6. HEAD was merged into the target since: base is the newest commit of the target's first-parent line that
       HEAD contains.
    7. HEAD is GitHub's merge of a pull request, and the clone cannot answer rule 3, as with `fetch-depth: 2`:
       base is HEAD's first parent, which GitHub took from the target.

    Raises `UsageError` for a revision or a target that was named and is not there.
    """
    if (none := without_commits(folder)) is not None:
        if asked:
            raise UsageError(f"cannot look for {asked!r}: {none.why}", where=folder, fix=none.fix)
        return none
    if asked:
        return Base(commit=resolve(folder, asked))
    tip = _tip(folder, target, environ)
    if tip and git_output(folder, "merge-base", "--is-ancestor", "HEAD", tip) is not None:
        return _of_history(folder, tip)
    sha = _merge_base(folder, tip) if tip else ""
    sha = sha or _first_parent_of_github(folder, environ)
    if sha or tip or _shallow(folder):
        return _base(folder, sha)
    names = ", ".join(_names(environ))
    return Base(why=f"no target branch is known here (looked for {names}): --target REV, or --base REV")


def _names(environ: Mapping[str, str]) -> tuple[str, ...]:
    branch = environ.get("GITHUB_BASE_REF", "")
    return (f"origin/{branch}", branch) if branch else _USUAL


def _tip(folder: Path, target: str, environ: Mapping[str, str]) -> str:
    """The target's newest commit; empty where no target is known. Raises `UsageError`."""
    if target:
        # A branch goes before a tag of the same name.
        places = (f"refs/heads/{target}", f"refs/remotes/{target}", target, f"refs/remotes/origin/{target}")
        shas = () if target.startswith("-") else (_sha(folder, name) for name in places)
        if not (sha := next(filter(None, shas), "")):
            raise UsageError(f"no such branch or commit: {target}", where="target", fix=DEEPEN)
        return sha
    # As branches: a tag of the same name, which others may push, says nothing of where a change goes.
    return next(filter(None, (_sha(folder, _ref(name)) for name in _names(environ))), "")


def _ref(name: str) -> str:
    return f"refs/remotes/{name}" if name.startswith("origin/") else f"refs/heads/{name}"


def _of_history(folder: Path, tip: str) -> Base:
    """The base where the target's history has HEAD."""
    head = read_commit(folder)
    if head.dirty:
        return _base(folder, head.sha)
    start = _newest_on_line(folder, head.sha, tip)
    return _base(folder, _sha(folder, "HEAD^1") if start == head.sha else start)


def _newest_on_line(folder: Path, sha: str, tip: str) -> str:
    """The newest commit of the first-parent line of `tip` that `sha` contains, or is."""
    beyond = git_output(folder, "rev-list", "--first-parent", f"{sha}..{tip}")
    if beyond is None:
        return ""
    # Newest first: the oldest that is not in it comes right after the one looked for.
    return _sha(folder, f"{beyond.split()[-1]}^1") if beyond else tip


def _merge_base(folder: Path, tip: str) -> str:
    found = (git_output(folder, "merge-base", "--all", "HEAD", tip) or "").split()
    if len(found) < 2:
        return "".join(found)
    # None of them contains another, so at most one is on the line.
    for sha in found:
        if _newest_on_line(folder, sha, tip) == sha:
            return sha
    return git_output(folder, "rev-list", "--no-walk=sorted", "--max-count=1", *found) or found[0]


def _first_parent_of_github(folder: Path, environ: Mapping[str, str]) -> str:
    merge = _sha(folder, "HEAD^2") and environ.get("GITHUB_SHA") == _sha(folder, "HEAD")
    named = _MERGE_REF.fullmatch(environ.get("GITHUB_REF", ""))
    return _sha(folder, "HEAD^1") if merge and named else ""


def _base(folder: Path, sha: str) -> Base:
    if sha:
        return Base(commit=as_commit(folder, sha))
    if _shallow(folder):
        return Base(why=f"the history is too shallow to tell the base commit: {DEEPEN}")
    return Base(why="HEAD has no parent and no commit in common with the target branch")


def _shallow(folder: Path) -> bool:
    return git_output(folder, "rev-parse", "--is-shallow-repository") == "true"


def _sha(folder: Path, revision: str) -> str:
    return git_output(folder, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}") or ""
