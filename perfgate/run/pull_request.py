"""One workflow run to its pull request: status, comment and check."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVar

from perfgate.errors import PerfgateError, UsageError
from perfgate.publish.github import environment
from perfgate.publish.github.artifacts import fetch_results
from perfgate.publish.github.checks import annotate, check_run
from perfgate.publish.github.comment import upsert
from perfgate.publish.github.events import Event
from perfgate.publish.github.resolve import Target, head_moved, measured_commit_fits, resolve
from perfgate.publish.github.status import current_state, set_status
from perfgate.publish.github.verdict import Decision, decide
from perfgate.records import Leg, Record
from perfgate.report.run.legs import headline, markdown
from perfgate.run.merge import exit_code, read_legs
from perfgate.util.files import write_bytes

T = TypeVar("T")


class PublishOptions(Record):
    """What counts, and what is written. `key` tells several gates' comments apart, `author` is who ours are
    by; `check` makes a check run too."""

    workflow: str
    key: str
    author: str
    new_comment: bool = False
    check: bool = False


class PullRequestPublisher:
    """One event from its run to the pull request; each step's fault is told, none hides another."""

    def __init__(self, options: PublishOptions, say: Callable[[str], None]) -> None:
        self._options, self._say = options, say
        self._client = environment.client()
        self._faults: list[PerfgateError] = []

    def run(self) -> list[PerfgateError]:
        """Set the status and write the comment; returns what could not be done. Raises `UsageError`."""
        event = environment.event()
        if event.run is None:
            raise UsageError(f"is {event.name}, not workflow_run", where="GITHUB_EVENT_NAME")
        target = resolve(self._client, event, workflow=self._options.workflow)
        legs: tuple[Leg, ...] | None = None
        if target.trusted and event.run.finished:
            legs = self._attempt("the results", lambda: self._fetch(event))
        code = exit_code(legs) if legs is not None else None
        said = headline(legs, code) if legs is not None and code is not None else ""
        fits = bool(legs) and self._fits(legs or (), target)
        decision = decide(event.run, target, exit_code=code, headline=said, fits=fits)
        self._status(decision, target, event)
        if decision.comment and legs is not None and code is not None:
            self._comment(legs, code, target, event)
        return self._faults

    def _fetch(self, event: Event) -> tuple[Leg, ...] | None:
        shards = fetch_results(self._client, event.run.id if event.run else 0)
        if not shards:
            return None
        with tempfile.TemporaryDirectory(prefix="perfgate-") as folder:
            paths = []
            for number, shard in enumerate(shards):
                paths.append(Path(folder) / str(number) / "results.json")
                write_bytes(paths[-1], shard.data)
            return read_legs(paths, expected=environment.expected_legs(required=True))

    def _fits(self, legs: tuple[Leg, ...], target: Target) -> bool:
        shas = {leg.result.commit.sha for leg in legs if leg.result}
        return all(measured_commit_fits(self._client, sha, target) for sha in shas)

    def _status(self, decision: Decision, target: Target, event: Event) -> None:
        url = event.run.url if event.run else ""
        before: str | None = ""
        if not target.trusted:
            before = self._attempt("the status", lambda: current_state(self._client, target.sha))
        if before:
            # A maintainer's run has spoken already; the stranger's own run does not take that back.
            self._say("a status is there already, and a fork's own run does not change it")
            return
        self._attempt(
            "the status",
            lambda: set_status(self._client, target.sha, decision.state, decision.text, url=url),
        )
        self._say(f"perfgate/gate on {target.sha[:12]}: {decision.state}, {decision.text}")

    def _comment(self, legs: tuple[Leg, ...], code: int, target: Target, event: Event) -> None:
        number = target.number
        if number is None:
            self._say(f"no comment: {target.stale or 'this run belongs to no pull request'}")
            return
        if self._attempt("the comment", lambda: head_moved(self._client, target)):
            self._say(f"no comment: the head of #{number} has moved on, its own run will speak")
            return
        links = [("the workflow run, with reports", event.run.url)] if event.run and event.run.url else []
        text = markdown(legs, code, links=links)
        posted = self._attempt(
            "the comment",
            lambda: upsert(
                self._client,
                number,
                text,
                key=self._options.key,
                author=self._options.author,
                always_new=self._options.new_comment,
            ),
        )
        if posted:
            self._say(f"comment {'made' if posted.created else 'updated'}: {posted.url}")
        if self._options.check:
            self._attempt("the check run", lambda: self._make_check(legs, code, target, headline(legs, code)))

    def _make_check(self, legs: tuple[Leg, ...], code: int, target: Target, title: str) -> int:
        found = [one for leg in legs if leg.result for one in annotate(leg.result)]
        conclusion: Literal["success", "failure"] = "success" if code == 0 else "failure"
        return check_run(self._client, target.sha, conclusion, title, markdown(legs, code), found)

    def _attempt(self, what: str, act: Callable[[], T]) -> T | None:
        try:
            return act()
        except PerfgateError as error:
            error.what = f"{what}: {error.what}"
            self._faults.append(error)
            return None
