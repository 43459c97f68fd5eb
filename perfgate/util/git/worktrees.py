"""The files of another commit, beside the user's checkout."""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from perfgate.errors import InfrastructureError
from perfgate.util.git.commits import DEEPEN, Base, top_level, without_commits
from perfgate.util.git.program import NO_HOOKS, git_output, run_git

_TIMEOUT_S = 600
_LISTING_BYTES = 256 << 20
_GITLINK = re.compile(r"160000 commit ([0-9a-f]{40,64})\t(.+)", re.S)


@contextlib.contextmanager
def worktree(folder: Path, sha: str, *, submodules: bool = True) -> Iterator[Path]:
    """The files of a commit of the repository around `folder`, in a temporary folder that is always removed.

    Yields the place that `folder` has in it. The user's index and HEAD stay as they are, also inside a hook.
    No hook of the repository runs.

    A submodule has the commit that `sha` names, where the user's checkout has the submodule; otherwise its
    folder is empty, and `submodules=False` leaves all of them so. Nothing is fetched.

    Raises `InfrastructureError` where git cannot make it, or a submodule lacks the commit.
    """
    top = top_level(folder)
    if top is None:
        none = without_commits(folder) or Base(why="it has no working tree")
        raise InfrastructureError(f"git makes no worktree: {none.why}", where=folder, fix=none.fix or None)
    with tempfile.TemporaryDirectory(prefix="perfgate-base-") as name, contextlib.ExitStack() as stack:
        tree = Path(name).resolve() / "tree"
        _check_out(stack, top, sha, tree)
        if submodules:
            _check_out_submodules(stack, top, sha, tree, inside="")
        yield tree / folder.resolve().relative_to(top.resolve())


def _check_out(stack: contextlib.ExitStack, repository: Path, sha: str, tree: Path) -> None:
    stack.callback(_remove, repository, tree)
    words = ("worktree", "add", "--detach", "--force", tree, sha)
    done = run_git(repository, *NO_HOOKS, *words, timeout_s=_TIMEOUT_S)
    if done.failure:
        raise InfrastructureError(
            f"git worktree {done.failure}: {done.stderr_tail[-500:]}", where=sha, fix=DEEPEN
        )


def _remove(repository: Path, tree: Path) -> None:
    # Twice: a worktree whose making was interrupted is locked.
    words = ("worktree", "remove", "--force", "--force", tree)
    if run_git(repository, *NO_HOOKS, *words, timeout_s=_TIMEOUT_S).failure:
        shutil.rmtree(tree, ignore_errors=True)
        git_output(repository, "worktree", "unlock", tree)
    git_output(repository, "worktree", "prune")


def _check_out_submodules(
    stack: contextlib.ExitStack, repository: Path, sha: str, tree: Path, *, inside: str
) -> None:
    """The submodules of a commit, and theirs, from their repositories in the user's checkout. `inside` is
    where `repository` is in that checkout."""
    for commit, path in _gitlinks(repository, sha):
        source, shown = repository / path, inside + path
        if not (source / ".git").exists():
            continue
        if (none := without_commits(source)) is not None:
            raise InfrastructureError(f"the submodule {shown}: {none.why}", where=sha, fix=none.fix or None)
        if git_output(source, "cat-file", "-e", f"{commit}^{{commit}}") is None:
            raise InfrastructureError(
                f"the submodule {shown} does not have the commit {commit}",
                where=sha,
                fix=f"git -C {shlex.quote(shown)} fetch",
            )
        _check_out(stack, source, commit, tree / path)
        _check_out_submodules(stack, source, commit, tree / path, inside=f"{shown}/")


def _gitlinks(repository: Path, sha: str) -> list[tuple[str, str]]:
    """The commit and the path of each submodule of a commit."""
    words = ("ls-tree", "-r", "-z", "--full-tree", sha)
    done = run_git(repository, *words, timeout_s=_TIMEOUT_S, stdout_bytes=_LISTING_BYTES)
    if done.failure:
        raise InfrastructureError(f"git ls-tree {done.failure}: {done.stderr_tail[-500:]}", where=sha)
    found = map(_GITLINK.fullmatch, done.stdout_tail.split("\0"))
    return [(one[1], one[2]) for one in found if one]
