"""Event payloads shaped as GitHub's published webhook schemas, with the fields that matter filled."""

from __future__ import annotations

from typing import Any

from fake_github import BASE, HEAD, REPOSITORY

OWNER = {"login": "acme", "id": 1, "type": "Organization", "site_admin": False}


def repository(full_name: str = REPOSITORY) -> dict[str, Any]:
    owner, name = full_name.split("/")
    return {
        "id": 9,
        "node_id": "R_1",
        "name": name,
        "full_name": full_name,
        "private": False,
        "owner": {**OWNER, "login": owner},
        "html_url": f"https://github.com/{full_name}",
        "fork": full_name != REPOSITORY,
        "default_branch": "main",
    }


def _base(action: str | None = None) -> dict[str, Any]:
    made = {
        "repository": repository(),
        "sender": {"login": "dev", "id": 2, "type": "User"},
        "organization": OWNER,
    }
    return {"action": action, **made} if action else made


def pull_request(*, fork: bool = False) -> dict[str, Any]:
    source = repository("stranger/nets" if fork else REPOSITORY)
    return {
        **_base("synchronize"),
        "number": 7,
        "before": "0" * 40,
        "after": HEAD,
        "pull_request": {
            "id": 70,
            "number": 7,
            "state": "open",
            "locked": False,
            "title": "Deeper | <b>net</b>",
            "user": {"login": "dev", "id": 2},
            "draft": False,
            "merged": False,
            "head": {
                "label": f"{source['owner']['login']}:change",
                "ref": "change",
                "sha": HEAD,
                "repo": source,
            },
            "base": {"label": "acme:main", "ref": "main", "sha": BASE, "repo": repository()},
        },
    }


def merge_group() -> dict[str, Any]:
    return {
        **_base("checks_requested"),
        "merge_group": {
            "head_sha": HEAD,
            "head_ref": "refs/heads/gh-readonly-queue/main/pr-7-bbbb",
            "base_sha": BASE,
            "base_ref": "refs/heads/main",
            "head_commit": {"id": HEAD, "message": "merge"},
        },
    }


def workflow_run(
    *,
    event: str = "pull_request",
    action: str = "completed",
    conclusion: str | None = "success",
    fork: bool = False,
    path: str = ".github/workflows/gate.yml",
    title: str = "Deeper net",
    head_sha: str = HEAD,
) -> dict[str, Any]:
    return {
        **_base(action),
        "workflow": {"id": 3, "name": "gate", "path": path, "state": "active"},
        "workflow_run": {
            "id": 42,
            "name": "gate",
            "display_title": title,
            "head_branch": "change",
            "head_sha": head_sha,
            "path": path,
            "run_number": 5,
            "run_attempt": 1,
            "event": event,
            "status": "completed" if action == "completed" else "queued",
            "conclusion": conclusion if action == "completed" else None,
            "workflow_id": 3,
            "html_url": f"https://github.com/{REPOSITORY}/actions/runs/42",
            # Empty for forks, on GitHub too: it is never read.
            "pull_requests": [],
            "repository": repository(),
            "head_repository": repository("stranger/nets" if fork else REPOSITORY),
        },
    }


def workflow_dispatch(number: str = "7", sha: str = HEAD) -> dict[str, Any]:
    return {
        **_base(),
        "inputs": {"pull_request": number, "sha": sha},
        "ref": "refs/heads/main",
        "workflow": ".github/workflows/gate.yml",
    }


def schedule() -> dict[str, Any]:
    return {"schedule": "17 2 * * *", "workflow": ".github/workflows/nightly.yml"}
