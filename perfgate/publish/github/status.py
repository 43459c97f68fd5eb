"""The one required context: a commit status on the head commit, set on every path."""

from __future__ import annotations

import re
from typing import Final, Literal

from perfgate.errors import UsageError
from perfgate.publish.github.client import GitHubClient

CONTEXT: Final = "perfgate/gate"
PERMISSIONS: Final = "statuses: write  # the commit status perfgate/gate"
_LIMIT = 140
State = Literal["pending", "success", "failure", "error"]


def set_status(
    client: GitHubClient, sha: str, state: State, text: str, *, url: str = "", context: str = CONTEXT
) -> None:
    """Set the status of a full commit SHA. Raises `ApiError`.

    A status is a list that the last entry of a context wins, so that sending one twice changes nothing.
    """
    if not re.fullmatch(r"[0-9a-f]{40}", sha):
        raise UsageError(f"is not a full commit SHA: {sha[:80]!r}", where="status")
    shown = text if len(text) <= _LIMIT else f"{text[: _LIMIT - 1]}…"
    body = {"state": state, "context": context, "description": shown}
    if url.startswith("https://"):
        body["target_url"] = url
    client.create(f"statuses/{sha}", body, permissions=PERMISSIONS)


def current_state(client: GitHubClient, sha: str, *, context: str = CONTEXT) -> str:
    """The newest state of a context on a commit; empty where there is none."""
    for status in client.pages(f"commits/{sha}/statuses", permissions=PERMISSIONS):
        if isinstance(status, dict) and status.get("context") == context:
            return str(status.get("state", ""))
    return ""
