"""From a workflow run and its results to the commit status: one pure function, so that all paths are seen."""

from __future__ import annotations

from perfgate.publish.github.events import Run
from perfgate.publish.github.resolve import Target
from perfgate.publish.github.status import State
from perfgate.records import Record

WAITING = "waits for a maintainer: Actions, gate, Run workflow, with #{number} and the full SHA"


class Decision(Record):
    """What is told: the status, and whether the results are worth a comment."""

    state: State
    text: str
    comment: bool = False


def decide(run: Run, target: Target, *, exit_code: int | None, headline: str, fits: bool) -> Decision:
    """The status of a gate's run. `exit_code` is None where no results came.

    Green needs both: a run that succeeded, and whole results of this very commit that pass. Whatever else
    happens is red or pending, so that a required context never turns green by an accident.
    """
    if not target.trusted:
        number = target.number or "the pull request"
        return Decision(state="pending", text=WAITING.format(number=number))
    if not run.finished:
        return Decision(state="pending", text="is being measured")
    if exit_code is None:
        return Decision(state="error", text=f"no results: the run ended as {run.conclusion or 'unknown'}")
    if not fits:
        return Decision(state="error", text="the results are of another commit")
    if exit_code == 0 and run.conclusion != "success":
        text = f"the cases pass, but the run ended as {run.conclusion or 'unknown'}"
        return Decision(state="error", text=text, comment=True)
    state: State = "success" if exit_code == 0 else "failure" if exit_code == 1 else "error"
    return Decision(state=state, text=headline, comment=True)
