"""A job's environment: the event, the repository, the token, the files of the runner, the matrix."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Final

from perfgate.errors import UsageError
from perfgate.publish.github.app_token import app_token
from perfgate.publish.github.client import GitHubClient
from perfgate.publish.github.events import Event, read_event

LEGS_VARIABLE: Final = "PERFGATE_LEGS"


def event() -> Event:
    """The event that this job is about."""
    return read_event(
        runner_file("GITHUB_EVENT_PATH"),
        os.environ.get("GITHUB_EVENT_NAME", ""),
        repository=os.environ.get("GITHUB_REPOSITORY", ""),
        sha=os.environ.get("GITHUB_SHA", ""),
    )


def client(token: str | None = None) -> GitHubClient:
    """A client with GITHUB_TOKEN, or another token."""
    return GitHubClient(
        os.environ.get("GITHUB_REPOSITORY", ""),
        os.environ.get("GITHUB_TOKEN", "") if token is None else token,
        api_url=_api_url(),
    )


def app_client() -> GitHubClient | None:
    """A client with a GitHub App's token, where an App is configured."""
    app_id, key = (os.environ.get(name, "").strip() for name in ("PERFGATE_APP_ID", "PERFGATE_APP_KEY"))
    if not app_id and not key:
        return None
    return client(app_token(os.environ.get("GITHUB_REPOSITORY", ""), app_id, key, api_url=_api_url()))


def runner_file(variable: str) -> Path:
    """A file of the runner's. Raises `UsageError` outside of a job."""
    name = os.environ.get(variable, "")
    if not name:
        raise UsageError("is not set", where=variable, fix="run this in a GitHub Actions job")
    return Path(name)


def expected_legs(*, required: bool) -> list[str]:
    """The legs of the matrix: a JSON list of runner labels in the variable PERFGATE_LEGS."""
    text = os.environ.get(LEGS_VARIABLE, "")
    if not text and not required:
        return []
    try:
        legs = json.loads(text)
    except ValueError:
        legs = None
    label = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,80}")
    ours = isinstance(legs, list) and all(isinstance(leg, str) and label.fullmatch(leg) for leg in legs)
    if not ours or not legs or len(set(legs)) != len(legs) or len(legs) > 64:
        raise UsageError(
            "is not a JSON list of runner labels",
            where=LEGS_VARIABLE,
            fix='a repository variable such as ["gpu-h200"]: Settings, Variables, Actions',
        )
    return list(legs)


def run_url() -> str:
    """This run's page, where there is one."""
    names = ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_RUN_ID")
    server, repository, run = (os.environ.get(name, "") for name in names)
    return f"{server}/{repository}/actions/runs/{run}" if server and repository and run else ""


def _api_url() -> str:
    return os.environ.get("GITHUB_API_URL") or "https://api.github.com"
