"""What happened, from the event file that GitHub wrote: parsed strictly where it matters, the rest unread.

Field names are those of GitHub's published webhook schemas (https://docs.github.com/en/webhooks). A payload
has hundreds of fields that are no concern of ours, so that unknown ones are allowed here, and here alone.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from perfgate.errors import DataError, UsageError
from perfgate.records import Record
from perfgate.util.files import read_bytes

EVENT_LIMIT_BYTES: Final = 25 << 20  # GitHub's own cap on a payload
EVENTS: Final = ("pull_request", "merge_group", "workflow_run", "workflow_dispatch", "schedule", "push")
# The run-name of a maintainer's dispatch, as gate.yml writes it: the way that it is read back.
DISPATCH_NAME: Final = "gate: pull request #{number} at {sha}"
_DISPATCH = re.compile(r"gate: pull request #([1-9][0-9]{0,8}) at ([0-9a-f]{40})")

Sha = Annotated[str, Meta(pattern=r"^[0-9a-f]{40}$")]
Number = Annotated[int, Meta(ge=1, lt=1 << 53)]
FullName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,100}/[A-Za-z0-9._-]{1,100}$")]


class _Repository(msgspec.Struct):
    full_name: FullName


class _Side(msgspec.Struct):
    sha: Sha
    ref: Annotated[str, Meta(min_length=1, max_length=1_000)]
    repo: _Repository | None = None  # None where a fork was deleted


class _PullRequest(msgspec.Struct):
    number: Number
    head: _Side
    base: _Side


class _MergeGroup(msgspec.Struct):
    head_sha: Sha
    base_sha: Sha


class _WorkflowRun(msgspec.Struct):
    id: Number
    event: str
    head_sha: Sha
    path: str
    head_branch: str | None = None
    head_repository: _Repository | None = None
    status: str | None = None
    conclusion: str | None = None
    display_title: str = ""
    html_url: str = ""


class _Payload(msgspec.Struct):
    """Every event's own part, of which one is there; `inputs` are a dispatch's."""

    repository: _Repository | None = None  # a schedule has none
    pull_request: _PullRequest | None = None
    merge_group: _MergeGroup | None = None
    workflow_run: _WorkflowRun | None = None
    inputs: dict[str, Any] | None = None


class Dispatch(Record):
    """A maintainer's word for one commit of one pull request, to be checked against the API."""

    number: Number
    sha: Sha


class Run(Record):
    """The workflow run that a `workflow_run` event is about. `fork` is whether its code is a stranger's."""

    id: Number
    event: str
    path: str
    fork: bool
    head: str = ""  # owner:branch, as the API looks a pull request up
    conclusion: str = ""
    finished: bool = False
    url: str = ""


class Event(Record):
    """What perfgate has to know of an event. `head_sha` is the commit that the verdict is about."""

    name: str
    repository: FullName
    head_sha: str = ""
    base_sha: str = ""
    number: int | None = None
    fork: bool = False
    dispatch: Dispatch | None = None
    run: Run | None = None


def read_event(path: Path, name: str, *, repository: str, sha: str = "") -> Event:
    """The event in the file that `GITHUB_EVENT_PATH` names; `sha` is `GITHUB_SHA`. Raises `DataError`."""
    if name not in EVENTS:
        raise UsageError(
            f"nothing is known of the event {name[:80]!r}",
            where="GITHUB_EVENT_NAME",
            fix=f"one of {', '.join(EVENTS)}",
        )
    try:
        payload = msgspec.json.decode(read_bytes(path, limit_bytes=EVENT_LIMIT_BYTES), type=_Payload)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise DataError(f"is not a {name} event as GitHub writes it: {error}", where=path) from error
    if payload.repository and payload.repository.full_name != repository:
        raise DataError(f"is an event of {payload.repository.full_name}, not of {repository}", where=path)
    return _event(name, payload, repository, sha, str(path))


def _event(name: str, payload: _Payload, repository: str, sha: str, where: str) -> Event:
    pull, group, run = payload.pull_request, payload.merge_group, payload.workflow_run
    if name == "pull_request" and pull:
        return Event(
            name=name,
            repository=repository,
            head_sha=pull.head.sha,
            base_sha=pull.base.sha,
            number=pull.number,
            fork=_is_fork(pull.head.repo, repository),
        )
    if name == "merge_group" and group:
        return Event(name=name, repository=repository, head_sha=group.head_sha, base_sha=group.base_sha)
    if name == "workflow_run" and run:
        made = _run(run, repository)
        named = parse_dispatch_name(run.display_title) if run.event == "workflow_dispatch" else None
        return Event(
            name=name, repository=repository, head_sha=run.head_sha, run=made, fork=made.fork, dispatch=named
        )
    if name == "workflow_dispatch":
        asked = parse_inputs(payload.inputs or {})
        head = asked.sha if asked else sha
        return Event(
            name=name,
            repository=repository,
            head_sha=head,
            dispatch=asked,
            number=asked.number if asked else None,
        )
    if name in ("schedule", "push"):
        return Event(name=name, repository=repository, head_sha=sha)
    raise DataError(f"says nothing of what {name} is about", where=where)


def _run(run: _WorkflowRun, repository: str) -> Run:
    owner = run.head_repository.full_name.split("/")[0] if run.head_repository else ""
    return Run(
        id=run.id,
        event=run.event,
        path=run.path.split("@")[0],
        fork=_is_fork(run.head_repository, repository),
        head=f"{owner}:{run.head_branch}" if owner and run.head_branch else "",
        conclusion=run.conclusion or "",
        finished=run.status == "completed",
        url=run.html_url,
    )


def _is_fork(head: _Repository | None, repository: str) -> bool:
    return head is None or head.full_name.lower() != repository.lower()


def parse_dispatch_name(title: str) -> Dispatch | None:
    """Number and full SHA from a run's name; None for any other name."""
    found = _DISPATCH.fullmatch(title)
    return Dispatch(number=int(found[1]), sha=found[2]) if found else None


def parse_inputs(inputs: dict[str, Any]) -> Dispatch | None:
    """A dispatch's inputs; None where both are empty. Raises `UsageError` for half of them or a short SHA."""
    number, sha = (str(inputs.get(name) or "").strip() for name in ("pull_request", "sha"))
    if not number and not sha:
        return None
    found = parse_dispatch_name(DISPATCH_NAME.format(number=number, sha=sha))
    if found is None:
        raise UsageError(
            "needs the number of a pull request and the full SHA of its head, 40 digits",
            where="workflow_dispatch",
            fix="copy the SHA of the commit that you have reviewed",
        )
    return found
