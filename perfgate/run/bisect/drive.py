"""The first commit that is slower: `git bisect run` in a temporary worktree, the confirmation as its test.

The user's own checkout is never touched: git keeps the state of a bisection apart for each worktree.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec

from perfgate.errors import CaseError, InfrastructureError, RefusedError, UsageError
from perfgate.records import Commit, Record, Verdict
from perfgate.run.base_engine import BaseEngine
from perfgate.run.bisect.step import Finding, StepContext, Task, read_task
from perfgate.settings import Settings
from perfgate.util.files import record_json, write_text
from perfgate.util.git import NO_HOOKS, Base, resolve, run_git, top_level, without_commits, worktree
from perfgate.util.process import Finished, package_environment

_TIMEOUT_S = 86_400
_SHORT_TIMEOUT_S = 60
# More candidates than this say nothing that their number does not, and git's answer is kept short.
_MOST = 50


class Bisection(Record):
    """What was found. `first` is the first slower commit, None where `candidates` are all that is left after
    skips; `confirmed` says that it is slower than its own parent, in a trial of their own."""

    good: Commit
    bad: Commit
    ends: Finding
    steps: tuple[Finding, ...] = ()
    first: Commit | None = None
    confirmed: Finding | None = None
    candidates: tuple[Commit, ...] = ()

    @property
    def sure(self) -> bool:
        return self.confirmed is not None and self.confirmed.verdict is Verdict.REGRESSION


def bisect(settings: Settings, good: str, bad: str, case_id: str, say: Callable[[str], None]) -> Bisection:
    """Find the first slower commit after `good`, up to `bad`; the device is held by the caller.

    Raises `UsageError` for revisions that do not fit, `RefusedError` where `bad` is not slower than `good`,
    `CaseError` where an end cannot be built, and `InfrastructureError` for git's and the machine's faults.
    """
    root = Path(settings.root)
    top = top_level(root)
    if top is None:
        none = without_commits(root) or Base(why="there is no working tree", fix="bisect inside one")
        raise UsageError(f"cannot bisect: {none.why}", where=root, fix=none.fix)
    start, end = resolve(root, good), resolve(root, bad)
    if start.sha == end.sha or _git(top, "merge-base", "--is-ancestor", start.sha, end.sha).failure:
        raise UsageError(
            f"{good} is no ancestor of {bad}", where="GOOD", fix="name an older commit of its line"
        )
    bench = StepContext(settings, case_id, say)
    # Other commits are checked out in it: submodules of this one would be wrong for them.
    with worktree(root, end.sha, submodules=False) as place:
        tree = top_level(place)
        assert tree is not None
        base = _at(bench, tree, place, start, say)
        head = _at(bench, tree, place, end, say)
        ends = _tested(bench, base, head)
        if ends.verdict is not Verdict.REGRESSION:
            said = ends.verdict.value if ends.verdict else "undecided"
            raise RefusedError(
                f"{end.sha[:12]} is not confirmed slower than {start.sha[:12]}: {said}, {ends.note}",
                where="bisect",
                fix="choose other ends, or take more launches with --budget",
            )
        say(f"both ends are confirmed: {f'{ends.ratio.estimate:.3f} × as long' if ends.ratio else ends.note}")
        task = Task(settings=settings, case_id=case_id, root=str(place), good=base)
        task = msgspec.structs.replace(
            task,
            known={
                **_known(base, Verdict.PASS),
                **_known(head, Verdict.REGRESSION),
            },
        )
        task = _run(tree, start, end, task)
        found = Bisection(good=start, bad=end, ends=ends, steps=task.steps)
        left = _left(tree)
        if len(left) != 1:
            return msgspec.structs.replace(found, candidates=tuple(left))
        first = left[0]
        say(f"{first.sha[:12]} it is; confirming it against its parent")
        found = msgspec.structs.replace(found, first=first)
        return msgspec.structs.replace(found, confirmed=_against_parent(bench, tree, place, first, say))


def _run(tree: Path, start: Commit, end: Commit, task: Task) -> Task:
    """`git bisect run` to its end. Raises `InfrastructureError` where a step stopped it."""
    with tempfile.TemporaryDirectory(prefix="perfgate-bisect-") as name:
        path = Path(name) / "task.json"
        write_text(path, record_json(task))
        _checked(_git(tree, "bisect", "start", end.sha, start.sha), "bisect start")
        command = (sys.executable, "-m", "perfgate.run.bisect.step", str(path))
        # What a step measures is measured in the user's language, as both ends were.
        done = _git(tree, "bisect", "run", *command, timeout_s=_TIMEOUT_S, parsed=False)
        task = read_task(path)
        # git ends with an error of its own where only skipped commits are left, which is no fault here.
        if task.stopped or done.timed_out or done.flooded or (done.failure and not task.steps):
            why = task.stopped or f"git bisect {done.failure}: {done.stderr_tail[-1500:]}"
            raise InfrastructureError(f"the bisection was stopped: {why}")
        return task


def _left(tree: Path) -> list[Commit]:
    """The commits that may be the first slower one: one, or with skips several."""
    refs = _checked(
        _git(tree, "for-each-ref", "--format=%(refname)", "refs/bisect/"), "for-each-ref"
    ).stdout_tail.split()
    good = [ref for ref in refs if "/good-" in ref]
    found = _checked(
        _git(tree, "rev-list", f"--max-count={_MOST}", "refs/bisect/bad", "--not", *good), "rev-list"
    )
    return [resolve(tree, sha) for sha in found.stdout_tail.split()]


def _against_parent(
    bench: StepContext, tree: Path, place: Path, first: Commit, say: Callable[[str], None]
) -> Finding:
    parent = resolve(tree, f"{first.sha}^")
    try:
        base, head = (_at(bench, tree, place, one, say) for one in (parent, first))
        return _tested(bench, base, head)
    except CaseError as error:
        return Finding(commit=first, note=f"cannot be held against its parent: {error.what}"[:2000])


def _tested(bench: StepContext, base: BaseEngine, head: BaseEngine) -> Finding:
    verdict, ratio, note = bench.trial(base, head)
    digest = head.job.engine.digest if head.job.engine else ""
    return Finding(commit=head.commit, verdict=verdict, engine_digest=digest, ratio=ratio, note=note)


def _at(
    bench: StepContext, tree: Path, place: Path, commit: Commit, say: Callable[[str], None]
) -> BaseEngine:
    say(f"{commit.sha[:12]}: the engine, built or from the cache")
    _checked(_git(tree, "checkout", "--detach", "--force", commit.sha), "checkout")
    return bench.engine(place, commit)


def _known(engine: BaseEngine, verdict: Verdict) -> dict[str, Verdict]:
    return {engine.job.engine.digest: verdict} if engine.job.engine else {}


def _checked(done: Finished, what: str) -> Finished:
    if done.failure:
        raise InfrastructureError(f"git {what} {done.failure}: {done.stderr_tail[-500:]}")
    return done


def _git(folder: Path, *words: str, timeout_s: float = _SHORT_TIMEOUT_S, parsed: bool = True) -> Finished:
    environ = package_environment()
    return run_git(folder, *NO_HOOKS, *words, timeout_s=timeout_s, environ=environ, parsed=parsed)
