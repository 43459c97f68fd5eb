"""What an earlier night left behind: an artifact of a run that only the default branch can have made.

An artifact belongs to the run that made it, and no other run can replace it; a cache belongs to a branch's
scope, which every job in it may write, a maintainer's dispatch for a fork's commit too. So what is carried
on is an artifact, and the run it comes from is checked: this repository's, of the nightly workflow's file,
started by the clock or by hand, on a commit that the default branch contains. A pull request may edit that
file, or name its branch like the default one: it fails one of these.
https://docs.github.com/en/rest/actions/workflow-runs, https://docs.github.com/en/rest/commits/commits
"""

from __future__ import annotations

import re
from typing import Any, Final

from perfgate.errors import UsageError
from perfgate.publish.github.client import ApiError, GitHubClient
from perfgate.records import Record

WORKFLOW: Final = ".github/workflows/nightly.yml"
PERMISSIONS: Final = "actions: read  # what an earlier night kept, contents: read  # what main contains"
EVENTS: Final = ("schedule", "workflow_dispatch")
MOST_RUNS: Final = 30


class Kept(Record):
    """The run whose artifact is the newest; 0 where there is none. `expired` is one that was there once."""

    run: int = 0
    expired: int = 0


def last_kept(client: GitHubClient, artifact: str, *, branch: str, workflow: str = WORKFLOW) -> Kept:
    """The newest trusted run that has this artifact. Raises `ApiError`, and `UsageError` for odd names."""
    for name, what in ((artifact, "an artifact's name"), (branch, "a branch's name")):
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,200}", name) or ".." in name:
            raise UsageError(f"is not {what}: {name[:80]!r}", where="last")
    expired = 0
    for run in _runs(client, workflow):
        found = list(_artifacts(client, int(run["id"]), artifact))
        if not found or not _is_ours(client, run, branch, workflow):
            continue
        if not all(one.get("expired") for one in found):
            return Kept(run=int(run["id"]), expired=expired)
        expired = expired or int(run["id"])
    return Kept(expired=expired)


def _runs(client: GitHubClient, workflow: str) -> list[dict[str, Any]]:
    """The newest runs by the clock and by hand, asked for apart: a flood of other events hides neither."""
    file = workflow.rsplit("/", 1)[-1]
    found: dict[int, dict[str, Any]] = {}
    for event in EVENTS:
        answer = client.get(
            f"actions/workflows/{file}/runs", permissions=PERMISSIONS, event=event, per_page=MOST_RUNS
        )
        runs = answer.get("workflow_runs") if isinstance(answer, dict) else None
        if not isinstance(runs, list):
            raise ApiError("did not answer with the runs of a workflow", where=f"actions/workflows/{file}")
        found |= {run["id"]: run for run in runs if isinstance(run, dict) and isinstance(run.get("id"), int)}
    return [found[number] for number in sorted(found, reverse=True)]


def _artifacts(client: GitHubClient, run: int, name: str) -> list[dict[str, Any]]:
    path = f"actions/runs/{run}/artifacts"
    listed = client.pages(path, key="artifacts", permissions=PERMISSIONS, name=name)
    return [one for one in listed if isinstance(one, dict) and one.get("name") == name]


def _is_ours(client: GitHubClient, run: dict[str, Any], branch: str, workflow: str) -> bool:
    home = run.get("head_repository")
    owner = str(home.get("full_name", "")) if isinstance(home, dict) else ""
    sha = str(run.get("head_sha", ""))
    if (
        owner.lower() != client.repository.lower()
        or str(run.get("path", "")).split("@")[0] != workflow
        or run.get("event") not in EVENTS
        # A branch's run stays the branch's, also once its commit is part of this one.
        or run.get("head_branch") != branch
        or not re.fullmatch(r"[0-9a-f]{40}", sha)
    ):
        return False
    try:
        # From the run's commit to the branch: "ahead" or "identical" is a commit that the branch contains.
        compared = client.get(f"compare/{sha}...{branch}", permissions=PERMISSIONS, per_page=1)
    except ApiError as error:
        if error.status == 404:
            return False
        raise
    return isinstance(compared, dict) and compared.get("status") in ("ahead", "identical")
