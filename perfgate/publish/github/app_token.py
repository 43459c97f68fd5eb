"""A GitHub App's token, where one is configured: pull requests that it opens start their checks at once.

A JSON Web Token signed with the App's key (RS256, by `openssl`, so that no cryptography is bundled) is
exchanged for a token of this repository's installation, good for an hour.
https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
import tempfile
import time
from collections.abc import Callable
from typing import Any, Final

from perfgate.errors import UsageError
from perfgate.publish.github.client import ApiError, GitHubClient

_TIMEOUT_S: Final = 20
_LIFE_S: Final = 540  # GitHub takes ten minutes at most
_SKEW_S: Final = 60


def app_token(
    repository: str,
    app_id: str,
    key: str,
    *,
    api_url: str = "https://api.github.com",
    clock: Callable[[], float] = time.time,
) -> str:
    """A token with the rights that a proposal needs, and no more. Raises `UsageError`, `ApiError`."""
    if not re.fullmatch(r"[A-Za-z0-9.]{1,60}", app_id):
        raise UsageError("is not an App's id", where="PERFGATE_APP_ID")
    client = GitHubClient(repository, signed_token(app_id, key, clock()), api_url=api_url, clock=clock)
    installation = client.get("installation")
    number = installation.get("id") if isinstance(installation, dict) else None
    if not isinstance(number, int):
        raise ApiError("does not say which installation is this repository's", where="installation")
    rights = {
        "repositories": [repository.split("/")[1]],
        "permissions": {"contents": "write", "pull_requests": "write"},
    }
    url = f"{client.api_url}/app/installations/{number}/access_tokens"
    made: Any = json.loads(client.send("POST", url, body=rights).body)
    token = made.get("token") if isinstance(made, dict) else None
    if not isinstance(token, str):
        raise ApiError("gave no token", where="installation")
    return token


def signed_token(app_id: str, key: str, now_s: float) -> str:
    """The App's own token; its clock may be a minute behind GitHub's."""
    claims = {"iat": int(now_s) - _SKEW_S, "exp": int(now_s) + _LIFE_S, "iss": app_id}
    text = f"{_encoded({'alg': 'RS256', 'typ': 'JWT'})}.{_encoded(claims)}"
    return f"{text}.{_base64(_sign(text.encode(), key))}"


def _sign(data: bytes, key: str) -> bytes:
    """RSA with SHA-256. The key is a file that only we can read, for as long as openssl runs."""
    with tempfile.NamedTemporaryFile("w", prefix="perfgate-", suffix=".pem") as file:
        file.write(key.strip() + "\n")
        file.flush()
        try:
            done = subprocess.run(
                ["openssl", "dgst", "-sha256", "-sign", file.name],  # noqa: S607
                input=data,
                capture_output=True,
                timeout=_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UsageError(
                f"openssl does not run ({type(error).__name__})", where="PERFGATE_APP_KEY"
            ) from None
    if done.returncode or not done.stdout:
        # What openssl says may quote the file: it is not shown.
        raise UsageError("is not a private key that openssl reads", where="PERFGATE_APP_KEY")
    return done.stdout


def _encoded(record: dict[str, Any]) -> str:
    return _base64(json.dumps(record, separators=(",", ":")).encode())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
