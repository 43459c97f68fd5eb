"""A pull request of changed files, made through the API alone: no clone holds a token that can write.

Blobs, a tree, a commit, a branch, a pull request: https://docs.github.com/en/rest/git
"""

from __future__ import annotations

import base64
import re
from typing import Any, Final

from perfgate.errors import UsageError
from perfgate.publish.github.client import ApiError, GitHubClient, UnsureError
from perfgate.records import Record

PERMISSIONS: Final = "contents: write  # the branch, pull-requests: write  # the pull request"
WAITING_NOTE: Final = (
    "This pull request was opened with the workflow's own token, so that its checks wait: GitHub starts "
    "none for it until somebody with write access approves or closes and reopens it. A GitHub App's token "
    "(`PERFGATE_APP_ID`, `PERFGATE_APP_KEY`) starts them at once."
)


class Proposal(Record):
    """What is proposed. `files` are paths with new content, or None for one that goes away."""

    branch: str
    base: str
    title: str
    body: str
    files: dict[str, bytes | None]


def propose(client: GitHubClient, proposal: Proposal) -> int:
    """Open the pull request, or bring the open one of this branch up to date; its number.

    Raises `ApiError`, and `UsageError` for a name that git would not take.
    """
    for name in (proposal.branch, proposal.base):
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,200}", name) or ".." in name:
            raise UsageError(f"is not a branch's name: {name[:80]!r}", where="branch")
    tip = client.get(f"git/ref/heads/{proposal.base}", permissions=PERMISSIONS)["object"]["sha"]
    parent = client.get(f"git/commits/{tip}", permissions=PERMISSIONS)
    entries = [_entry(client, path, data) for path, data in sorted(proposal.files.items())]
    # Git objects are named by what they hold: making one twice leaves one, or an orphan that git drops.
    layout = {"base_tree": parent["tree"]["sha"], "tree": entries}
    tree = client.create("git/trees", layout, permissions=PERMISSIONS)
    body = {"message": proposal.title, "tree": tree["sha"], "parents": [tip]}
    commit = client.create("git/commits", body, permissions=PERMISSIONS)
    _point(client, proposal.branch, commit["sha"])
    return _open_pull(client, proposal)


def _entry(client: GitHubClient, path: str, data: bytes | None) -> dict[str, Any]:
    entry: dict[str, Any] = {"path": path, "mode": "100644", "type": "blob", "sha": None}
    if data is not None:
        body = {"content": base64.b64encode(data).decode(), "encoding": "base64"}
        entry["sha"] = client.create("git/blobs", body, permissions=PERMISSIONS)["sha"]
    return entry


def _point(client: GitHubClient, branch: str, sha: str) -> None:
    """The branch is ours alone: last night's proposal is replaced by tonight's."""
    try:
        client.write("POST", "git/refs", {"ref": f"refs/heads/{branch}", "sha": sha}, permissions=PERMISSIONS)
    except ApiError as error:
        if not isinstance(error, UnsureError) and error.status != 422:
            raise
        client.write(
            "PATCH", f"git/refs/heads/{branch}", {"sha": sha, "force": True}, permissions=PERMISSIONS
        )


def _open_pull(client: GitHubClient, proposal: Proposal) -> int:
    text = {"title": proposal.title, "body": proposal.body}
    if known := _find(client, proposal):
        client.write("PATCH", f"pulls/{known['number']}", text, permissions=PERMISSIONS)
        return int(known["number"])
    body = {**text, "head": proposal.branch, "base": proposal.base}
    made = client.create("pulls", body, permissions=PERMISSIONS, made=lambda: _find(client, proposal))
    return int(made["number"])


def _find(client: GitHubClient, proposal: Proposal) -> dict[str, Any] | None:
    owner = client.repository.split("/")[0]
    query = {"state": "open", "head": f"{owner}:{proposal.branch}", "base": proposal.base}
    return next(iter(client.pages("pulls", permissions=PERMISSIONS, **query)), None)
