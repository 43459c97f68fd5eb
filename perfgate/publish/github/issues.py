"""One issue a regression: opened at night, updated while it lasts, closed when the case recovers."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final

from perfgate.publish.github.client import GitHubClient
from perfgate.publish.github.comment import ACTIONS_BOT
from perfgate.records import Leg, Record, Verdict

PERMISSIONS: Final = "issues: write  # one issue a regression"
LABEL: Final = "perfgate-regression"
_MARKER = re.compile(r"<!-- perfgate:v1 regression=([0-9a-f]{16}) -->")
_RECOVERED = (Verdict.PASS, Verdict.UNCHANGED, Verdict.IMPROVEMENT, Verdict.WAIVED)
_CLOSED = "This case is as fast as its baseline again."


class Regression(Record):
    """A case that is slow tonight, and what its issue says."""

    title: str
    text: str


class Changes(Record):
    """The numbers of the issues that were opened, updated and closed."""

    opened: tuple[int, ...] = ()
    updated: tuple[int, ...] = ()
    closed: tuple[int, ...] = ()


def issue_key(leg: str, case_id: str) -> str:
    """What ties an issue to a case on a leg; a digest, since a case's name could end the marker early."""
    return hashlib.sha256(f"{leg}\n{case_id}".encode()).hexdigest()[:16]


def recovered(legs: tuple[Leg, ...]) -> set[str]:
    """The keys of cases that were judged and are well: a case that did not run has not recovered."""
    return {
        issue_key(leg.name, case.case.id)
        for leg in legs
        if leg.result
        for case in leg.result.cases
        if case.judgement and case.judgement.verdict in _RECOVERED
    }


def sync(
    client: GitHubClient, found: Mapping[str, Regression], well: set[str], *, author: str = ACTIONS_BOT
) -> Changes:
    """Make the open issues those of tonight. Raises `ApiError`.

    Issues of others are left alone, whatever they say: label, marker and author have to fit.
    """
    known = _open(client, author)
    opened, updated, closed = [], [], []
    for key, regression in found.items():
        body = {"title": regression.title[:250], "body": f"{_mark(key)}\n{regression.text}"}
        if key in known:
            if (known[key].get("title"), known[key].get("body")) != (body["title"], body["body"]):
                client.write("PATCH", f"issues/{known[key]['number']}", body, permissions=PERMISSIONS)
                updated.append(int(known[key]["number"]))
        else:
            opened.append(_create(client, key, {**body, "labels": [LABEL]}, author))
    for key in sorted(known.keys() & (well - found.keys())):
        body = {"state": "closed", "body": f"{_mark(key)}\n{_CLOSED}"}
        client.write(
            "PATCH",
            f"issues/{known[key]['number']}",
            {**body, "state_reason": "completed"},
            permissions=PERMISSIONS,
        )
        closed.append(int(known[key]["number"]))
    return Changes(opened=tuple(opened), updated=tuple(updated), closed=tuple(closed))


def _open(client: GitHubClient, author: str) -> dict[str, dict[str, Any]]:
    known: dict[str, dict[str, Any]] = {}
    for issue in client.pages("issues", state="open", labels=LABEL, permissions=PERMISSIONS):
        if (issue.get("user") or {}).get("login") != author or "pull_request" in issue:
            continue
        first = str(issue.get("body") or "").splitlines()[:1]
        mark = _MARKER.fullmatch(first[0].strip()) if first else None
        if mark and isinstance(issue.get("number"), int):
            # GitHub lists the newest first: of two issues of one case the older one is kept.
            known[mark[1]] = issue
    return known


def _create(client: GitHubClient, key: str, body: dict[str, Any], author: str) -> int:
    made = client.create("issues", body, permissions=PERMISSIONS, made=lambda: _open(client, author).get(key))
    return int(made["number"])


def _mark(key: str) -> str:
    return f"<!-- perfgate:v1 regression={key} -->"
