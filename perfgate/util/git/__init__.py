"""git, as the product uses it: the commits that matter to a run, and their files.

Every call of git goes through `run_git`.
"""

from perfgate.util.git.base import find_base
from perfgate.util.git.commits import (
    NO_REPOSITORY,
    Base,
    read_commit,
    resolve,
    top_level,
    without_commits,
)
from perfgate.util.git.program import NO_HOOKS, find_git, git_environment, run_git
from perfgate.util.git.worktrees import worktree

__all__ = [
    "NO_HOOKS",
    "NO_REPOSITORY",
    "Base",
    "find_base",
    "find_git",
    "git_environment",
    "read_commit",
    "resolve",
    "run_git",
    "top_level",
    "without_commits",
    "worktree",
]
