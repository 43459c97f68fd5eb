"""Which pull request and which commit a verdict is for: from GitHub's own fields, checked against the API.

A number that the measured code could have written is never believed
(https://securitylab.github.com/resources/github-actions-preventing-pwn-requests/).
"""

from __future__ import annotations

from typing import Any, Final

from perfgate.errors import RefusedError
from perfgate.publish.github.client import ApiError, GitHubClient
from perfgate.publish.github.events import Dispatch, Event
from perfgate.records import Record

PERMISSIONS: Final = "pull-requests: read  # which pull request a run belongs to"


class Target(Record):
    """Where a verdict goes. `stale` says why it goes nowhere any more; `trusted` is whether results of this
    run may decide: those of a stranger's workflow may not."""

    sha: str
    number: int | None = None
    base_sha: str = ""
    fork: bool = False
    trusted: bool = True
    stale: str = ""


def resolve(client: GitHubClient, event: Event, *, workflow: str) -> Target:
    """The target of an event. `workflow` is the file whose runs count, such as `.github/workflows/gate.yml`.

    Raises `RefusedError` for a dispatch that does not fit the pull request it names.
    """
    if event.dispatch and event.run and (event.run.fork or event.run.path != workflow):
        raise RefusedError("is not a dispatch of this repository's gate", where=event.run.path[:200])
    if event.dispatch:
        return check_dispatch(client, event.dispatch)
    if event.run is None:
        return Target(sha=event.head_sha, number=event.number, base_sha=event.base_sha, fork=event.fork)
    if event.run.path != workflow:
        raise RefusedError(f"is not {workflow}", where=event.run.path[:200])
    if event.run.event != "pull_request":
        return Target(sha=event.head_sha, fork=event.fork, trusted=not event.run.fork)
    pull = _open_pull(client, event)
    if pull is None:
        gone = "no open pull request has this run's commit at its head: it moved on, or was closed"
        return Target(sha=event.head_sha, fork=event.run.fork, trusted=not event.run.fork, stale=gone)
    return Target(
        sha=event.head_sha,
        number=int(pull["number"]),
        base_sha=str(pull["base"]["sha"]),
        fork=event.run.fork,
        trusted=not event.run.fork,
    )


def check_dispatch(client: GitHubClient, dispatch: Dispatch) -> Target:
    """The pull request that a maintainer named, if it is open and its head is that very commit."""
    pull = client.get(f"pulls/{dispatch.number}", permissions=PERMISSIONS)
    head, base, state = _sides(pull)
    where = f"pull request #{dispatch.number}"
    if state != "open":
        raise RefusedError(f"is {state or 'unknown'}, not open", where=where)
    if head != dispatch.sha:
        raise RefusedError(
            f"its head is {head}, not {dispatch.sha}",
            where=where,
            fix="review the new commits, then dispatch again with the new SHA",
        )
    return Target(sha=head, number=dispatch.number, base_sha=base, fork=True)


def head_moved(client: GitHubClient, target: Target) -> bool:
    """Whether the pull request has a newer head by now: a comment on the old one would mislead."""
    if target.number is None:
        return False
    head, _, state = _sides(client.get(f"pulls/{target.number}", permissions=PERMISSIONS))
    return state != "open" or head != target.sha


def measured_commit_fits(client: GitHubClient, measured: str, target: Target) -> bool:
    """Whether results are of the target: of its commit, or of GitHub's merge of it into its base."""
    if measured == target.sha:
        return True
    if not measured:
        return False
    try:
        commit = client.get(f"commits/{measured}", permissions="contents: read")
    except ApiError as error:
        if error.status in (404, 422):
            return False
        raise
    parents = commit.get("parents") if isinstance(commit, dict) else None
    shas = [parent.get("sha") for parent in parents or [] if isinstance(parent, dict)]
    return len(shas) == 2 and shas[1] == target.sha


def _open_pull(client: GitHubClient, event: Event) -> dict[str, Any] | None:
    run = event.run
    if run is None or not run.head:
        return None
    for pull in client.pages("pulls", permissions=PERMISSIONS, head=run.head, state="open"):
        head, base, state = _sides(pull)
        if state == "open" and head == event.head_sha and base and isinstance(pull.get("number"), int):
            return dict(pull)
    return None


def _sides(pull: Any) -> tuple[str, str, str]:
    """Head SHA, base SHA and state of a pull request; empty where the answer does not have them."""
    if not isinstance(pull, dict):
        return "", "", ""
    head, base = pull.get("head"), pull.get("base")
    return (
        str(head.get("sha", "")) if isinstance(head, dict) else "",
        str(base.get("sha", "")) if isinstance(base, dict) else "",
        str(pull.get("state", "")),
    )
