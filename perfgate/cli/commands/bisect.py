"""`perfgate bisect`: find the commit that made a case slower."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import rich_click as click
from click.exceptions import Exit

from perfgate.cli.options import load, settings_options

if TYPE_CHECKING:
    from perfgate.run.bisect.drive import Bisection


@click.command()
@click.argument("good")
@click.argument("bad")
@click.option("--case", "case_id", required=True, help="The case that became slower.")
@settings_options("models", "backend", "device")
def bisect(good: str, bad: str, case_id: str, **flags: Any) -> None:
    """Find the first commit after GOOD, up to BAD, that makes a case slower.

    It drives `git bisect run` in a temporary worktree; your checkout is not touched. Both ends are confirmed
    first, and the commit that is found is confirmed against its parent last: exit code 0. Exit code 1: it is
    not confirmed, or commits that cannot be tested hide it.

    Example: perfgate bisect v1.0 main --case resnet50/fp16/b8
    """
    from perfgate.engine import get_backend
    from perfgate.measure.lock import DeviceLock
    from perfgate.run.bisect.drive import bisect as find
    from perfgate.util.progress import make_progress

    settings = load(flags)
    backend = get_backend(settings.backend, settings.device)
    with make_progress() as progress, DeviceLock(backend, settings, progress.say)():
        found = find(settings, good, bad, case_id, progress.say)
    click.echo(bisection_text(found))
    if not found.sure:
        raise Exit(1)


def bisection_text(found: Bisection) -> str:
    """The bisection for a terminal: what was tested, and what came out."""
    from perfgate.report.explanation import printable

    lines = []
    for step in found.steps:
        ratio = f"{step.ratio.estimate:.3f} × as long" if step.ratio else "-"
        verdict = step.verdict.value if step.verdict else "skipped"
        subject = step.commit.subject[:50]
        lines.append(f"  {step.commit.sha[:12]}  {verdict:<12}  {ratio:<18}  {subject}  {step.note}")
    if found.first is None:
        names = ", ".join(commit.sha[:12] for commit in found.candidates)
        lines.append(f"one of these is the first slower commit; the others could not be tested: {names}")
    else:
        state = "confirmed against its parent" if found.sure else "NOT confirmed against its parent"
        if found.confirmed is not None and found.confirmed.ratio:
            state += f", {found.confirmed.ratio.estimate:.3f} × as long"
        lines.append(f"{found.first.sha} is the first slower commit: {found.first.subject[:100]}")
        lines.append(f"  {state}")
    return "\n".join(printable(line) for line in lines)
