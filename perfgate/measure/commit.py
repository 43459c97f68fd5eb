"""The git commit that is measured."""

from __future__ import annotations

import os
import re
from pathlib import Path

from perfgate.children import run_child
from perfgate.records import Commit

_TIMEOUT_S = 20


def read_commit(folder: Path) -> Commit:
    """HEAD of the repository around `folder`, and whether tracked files differ from it.

    Without git, GitHub's own `GITHUB_SHA`; otherwise an empty commit.
    """
    sha = _git(folder, "rev-parse", "HEAD")
    if sha is None:
        # In a container job git may be absent, or refuse a checkout that another user owns.
        sha = os.environ.get("GITHUB_SHA", "")
        return Commit(sha=sha) if re.fullmatch(r"[0-9a-f]{40}", sha) else Commit()
    status = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return Commit(
        sha=sha, dirty=status is None or bool(status), subject=_git(folder, "log", "-1", "--format=%s") or ""
    )


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = run_child(["git", "-C", folder, *words], timeout_s=_TIMEOUT_S)
    except OSError:
        return None
    return done.stdout_tail if done.failure is None else None
