"""One comment on a pull request, found again by its marker *and* its author, and updated in place."""

from __future__ import annotations

import re
from typing import Any, Final

from perfgate.errors import UsageError
from perfgate.publish.github.client import ApiError, GitHubClient
from perfgate.records import Record

PERMISSIONS: Final = "pull-requests: write  # the comment"
LIMIT: Final = 65_000  # GitHub takes 65,536 characters
ACTIONS_BOT: Final = "github-actions[bot]"


class Posted(Record):
    """Where the comment is, and whether it is a new one."""

    id: int
    url: str
    created: bool


def marker(key: str) -> str:
    """The hidden line that a comment of ours opens with. `key` tells several gates of a repository apart."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9._/-]{0,60}", key):
        raise UsageError(f"is not a comment's key: {key[:80]!r}", where="--key", fix="such as perfgate")
    return f"<!-- perfgate:v1 key={key} -->"


def upsert(
    client: GitHubClient,
    number: int,
    text: str,
    *,
    key: str = "perfgate",
    author: str = ACTIONS_BOT,
    always_new: bool = False,
) -> Posted:
    """Update our comment on pull request `number`, or make the first one. Raises `ApiError`.

    A comment that somebody deleted meanwhile is made anew; a POST whose fate is unknown is looked for
    before it is sent a second time. `always_new` posts another comment each time.
    """
    body = f"{marker(key)}\n{text}"
    if len(body) > LIMIT:
        raise UsageError(f"has {len(body)} characters, GitHub takes {LIMIT}", where="comment")
    known = {comment["id"] for comment in find(client, number, key=key, author=author)}
    if known and not always_new:
        oldest = min(known)
        try:
            made = client.write("PATCH", f"issues/comments/{oldest}", {"body": body}, permissions=PERMISSIONS)
            return _posted(made, created=False)
        except ApiError as error:
            if error.status not in (404, 410):
                raise
    made = _create(client, number, body, known, (key, author))
    return made if always_new else _settle(client, number, body, made, (key, author))


def _create(client: GitHubClient, number: int, body: str, known: set[int], ours: tuple[str, str]) -> Posted:
    """POST; where its fate is unknown, look for the comment, and only if it is not there POST once more."""

    def newest() -> Any:
        fresh = [one for one in find(client, number, key=ours[0], author=ours[1]) if one["id"] not in known]
        return fresh[-1] if fresh else None

    path = f"issues/{number}/comments"
    made = client.create(path, {"body": body}, permissions=PERMISSIONS, made=newest)
    return _posted(made, created=True)


def _settle(client: GitHubClient, number: int, body: str, made: Posted, ours: tuple[str, str]) -> Posted:
    """Two runs may have made the first comment at once: the older one stays, with the newer text."""
    oldest = find(client, number, key=ours[0], author=ours[1])[:1]
    if not oldest or oldest[0]["id"] >= made.id:
        return made
    path = f"issues/comments/{oldest[0]['id']}"
    kept = _posted(client.write("PATCH", path, {"body": body}, permissions=PERMISSIONS), created=False)
    client.write("DELETE", f"issues/comments/{made.id}", {}, permissions=PERMISSIONS)
    return kept


def find(client: GitHubClient, number: int, *, key: str, author: str) -> list[dict[str, Any]]:
    """Our comments, oldest first: anybody can write the marker, so the author has to fit as well."""
    mark = marker(key)
    found = []
    for comment in client.pages(f"issues/{number}/comments", permissions=PERMISSIONS):
        user = (comment.get("user") or {}).get("login") if isinstance(comment, dict) else None
        lines = str(comment.get("body") or "").splitlines() if user == author else []
        if lines and lines[0].strip() == mark and isinstance(comment.get("id"), int):
            found.append(comment)
    return sorted(found, key=lambda comment: int(comment["id"]))


def _posted(made: Any, *, created: bool) -> Posted:
    if not isinstance(made, dict) or not isinstance(made.get("id"), int):
        raise ApiError("did not answer with a comment", where="comments")
    return Posted(id=made["id"], url=str(made.get("html_url", "")), created=created)
