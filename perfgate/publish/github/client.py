"""A small REST client that follows GitHub's own rules on retries, pages and limits.

https://docs.github.com/en/rest/using-the-rest-api/best-practices-for-using-the-rest-api: obey `Retry-After`;
else, where `x-ratelimit-remaining` is 0, wait until `x-ratelimit-reset`; else, at a secondary limit (403 or
429), a minute, then twice as long. A request that was limited was not carried out, so that a POST may be
repeated then, and only then: after a timeout or a 5xx its caller has to look first.

The token goes to the API's own host in one header, and into no URL, log line, error or repr.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import requests

from perfgate._version import __version__
from perfgate.errors import InfrastructureError, UsageError
from perfgate.util.http import is_loopback, is_private, request_fault, retry_after, silence, split_url

API_VERSION: Final = "2026-03-10"
ATTEMPTS: Final = 5
TIMEOUT_S: Final = 20.0
MAX_WAIT_S: Final = 300.0
_SECONDARY_WAIT_S = 60.0
_JSON_LIMIT_BYTES = 32 << 20
_MAX_PAGES = 500
_NO_JSON: Final = object()
_LIMITED = re.compile(r"rate limit|abuse detection", re.IGNORECASE)
# Repeating one of these has the effect of doing it once.
_IDEMPOTENT = ("GET", "PATCH", "PUT", "DELETE")


class ApiError(InfrastructureError):
    """GitHub refused, or could not be reached. `status` is 0 where no answer came."""

    def __init__(self, what: str, *, where: str, status: int = 0, fix: str | None = None) -> None:
        super().__init__(what, where=where, fix=fix)
        self.status = status


class UnsureError(ApiError):
    """A POST of which nobody knows whether it was carried out: look before it is sent again."""


@dataclass(frozen=True)
class Response:
    """An answer with its whole body."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


@dataclass(frozen=True)
class _Verdict:
    """What to make of an answer: a fault in words, or None; whether, and after how long, to ask again."""

    fault: str | None = None
    again: bool = False
    wait_s: float | None = None
    fix: str | None = None


class GitHubClient:
    """One repository at one API. `permissions` names what a caller needs, for the advice on a 403."""

    def __init__(
        self,
        repository: str,
        token: str,
        *,
        api_url: str = "https://api.github.com",
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.time,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,100}/[A-Za-z0-9._-]{1,100}", repository):
            raise UsageError(f"is not owner/name: {repository[:200]!r}", where="GITHUB_REPOSITORY")
        if not token:
            raise UsageError("is empty", where="GITHUB_TOKEN", fix="env: GITHUB_TOKEN: ${{ github.token }}")
        if not (token.isascii() and token.isprintable() and " " not in token):
            raise UsageError("has characters that no token has", where="GITHUB_TOKEN")
        self.repository = repository
        self.api_url = _checked_url(api_url)
        self._token = token
        self._sleep, self._clock, self._timeout_s = sleep, clock, timeout_s
        self._session = requests.Session()
        # What goes to this machine in the clear must not leave it through a proxy.
        self._session.trust_env = not is_loopback(urlsplit(self.api_url).hostname or "")

    def __repr__(self) -> str:
        return f"GitHubClient({self.repository} at {self.api_url})"

    def repo(self, path: str) -> str:
        """The address of something in this repository."""
        return f"{self.api_url}/repos/{self.repository}/{path}"

    def get(self, path: str, *, permissions: str = "", **query: str | int) -> Any:
        """One thing, as JSON."""
        url = self.repo(path)
        return _parsed(self.send("GET", url, query=query, permissions=permissions), url)

    def write(self, method: str, path: str, body: Mapping[str, Any], *, permissions: str) -> Any:
        """POST, PATCH, PUT or DELETE. Raises `UnsureError` for a POST that may have been carried out."""
        url = self.repo(path)
        return _parsed(self.send(method, url, body=body, permissions=permissions), url)

    def create(
        self,
        path: str,
        body: Mapping[str, Any],
        *,
        permissions: str,
        made: Callable[[], Any] = lambda: None,
    ) -> Any:
        """POST; where its fate is unknown, what `made` finds of it, and if that is nothing a second POST."""
        try:
            return self.write("POST", path, body, permissions=permissions)
        except UnsureError:
            return made() or self.write("POST", path, body, permissions=permissions)

    def pages(
        self, path: str, *, permissions: str = "", key: str | None = None, **query: str | int
    ) -> Iterator[Any]:
        """All items of a list, page by page along `Link: rel="next"`; `key` is where an object holds them."""
        url: str | None = self.repo(path)
        asked: Mapping[str, str | int] = {"per_page": 100, **query}
        for _ in range(_MAX_PAGES):
            if url is None:
                return
            response = self.send("GET", url, query=asked, permissions=permissions)
            found = _parsed(response, url)
            items = found.get(key) if key and isinstance(found, dict) else found
            if not isinstance(items, list):
                raise ApiError("did not answer with a list", where=_shown(url), status=response.status)
            yield from items
            url, asked = self._next(response, url), {}
        raise ApiError(f"has more than {_MAX_PAGES} pages", where=_shown(self.repo(path)))

    def _next(self, response: Response, url: str) -> str | None:
        links = requests.utils.parse_header_links(response.headers.get("Link", ""))
        following = next((link["url"] for link in links if link.get("rel") == "next"), None)
        if following and urlsplit(following)[:2] != urlsplit(self.api_url)[:2]:
            # The token goes with the request: a page on another host is not asked for.
            raise ApiError("the next page is on another host", where=_shown(url), status=response.status)
        return following

    def send(
        self,
        method: str,
        url: str,
        *,
        query: Mapping[str, str | int] | None = None,
        body: Mapping[str, Any] | None = None,
        permissions: str = "",
    ) -> Response:
        """The answer, 2xx or a redirect, after as many attempts as GitHub's rules allow."""
        where = f"{method} {_shown(url)}"
        waited_s = 0.0
        for attempt in range(1, ATTEMPTS + 1):
            response, broken = self._try(method, url, query, body)
            verdict = _judge(method, response, broken, self._clock(), permissions)
            if verdict.fault is None and response is not None:
                return response
            wait_s = 2.0 ** (attempt - 1) if verdict.wait_s is None else verdict.wait_s
            if verdict.wait_s == _SECONDARY_WAIT_S:
                wait_s *= 2.0 ** (attempt - 1)
            if not verdict.again or attempt == ATTEMPTS or waited_s + wait_s > MAX_WAIT_S:
                break
            waited_s += wait_s
            self._sleep(wait_s)
        status = response.status if response else 0
        kind = UnsureError if method == "POST" and (broken or status >= 500) else ApiError
        raise kind(str(verdict.fault), where=where, status=status, fix=verdict.fix)

    def _try(
        self,
        method: str,
        url: str,
        query: Mapping[str, str | int] | None,
        body: Mapping[str, Any] | None,
    ) -> tuple[Response | None, str]:
        """One request: the whole answer, or what broke. Redirects are handed back, never followed."""
        headers = {
            "Accept": "application/vnd.github+json",
            "X-GitHub-Api-Version": API_VERSION,
            "User-Agent": f"perfgate/{__version__}",
        }
        deadline = time.monotonic() + self._timeout_s
        try:
            with (
                silence(),
                self._session.request(
                    method,
                    url,
                    params=query,
                    json=body,
                    headers=headers,
                    timeout=self._timeout_s,
                    allow_redirects=False,
                    stream=True,
                    auth=self._authorise,
                ) as response,
            ):
                data = bytearray()
                for chunk in response.iter_content(1 << 13):
                    data += chunk
                    if len(data) > _JSON_LIMIT_BYTES:
                        return None, f"the answer is larger than {_JSON_LIMIT_BYTES >> 20} MiB"
                    if time.monotonic() > deadline:
                        return None, f"the answer took longer than {self._timeout_s:g} s"
                made = Response(response.status_code, response.headers, bytes(data))
        except (requests.RequestException, OSError, ValueError) as error:
            return None, request_fault(error, self._timeout_s)
        if 200 <= made.status < 300 and made.body and _json(made.body) is _NO_JSON:
            return None, "the answer was cut off: its body is not JSON"
        return made, ""

    def _authorise(self, prepared: requests.PreparedRequest) -> requests.PreparedRequest:
        # An own `auth` also keeps requests from adding a password that it finds in a .netrc.
        prepared.headers["Authorization"] = f"Bearer {self._token}"
        return prepared


def _judge(method: str, response: Response | None, broken: str, now_s: float, permissions: str) -> _Verdict:
    """What GitHub's rules make of an answer; see the module's docstring."""
    if response is None:
        return _Verdict(broken, again=method in _IDEMPOTENT)
    status, message = response.status, _message(response)
    if status < 400:
        return _Verdict()
    if status in (403, 429) and (limit := _limit_wait_s(response, message, now_s)) is not None:
        return _Verdict(f"HTTP {status}: a rate limit, to wait {limit:.0f} s", again=True, wait_s=limit)
    if status >= 500:
        return _Verdict(f"HTTP {status}", again=method in _IDEMPOTENT)
    if status == 401:
        return _Verdict("HTTP 401: the token is not valid here", fix="env: GITHUB_TOKEN: ${{ github.token }}")
    if status == 403 or (status == 404 and permissions and method != "GET"):
        return _Verdict(f"HTTP {status}: {message}", fix=_permissions_block(permissions))
    return _Verdict(f"HTTP {status}: {message}")


def _limit_wait_s(response: Response, message: str, now_s: float) -> float | None:
    """Seconds to wait by GitHub's rules, or None where this is no rate limit."""
    headers = response.headers
    if (wait_s := retry_after(headers.get("Retry-After", ""))) is not None:
        return wait_s
    reset = headers.get("X-RateLimit-Reset", "")
    if headers.get("X-RateLimit-Remaining") == "0" and re.fullmatch(r"\d{1,12}", reset):
        return max(0.0, float(reset) - now_s) + 1.0
    if response.status == 429 or _LIMITED.search(message):
        return _SECONDARY_WAIT_S
    return None


def _permissions_block(permissions: str) -> str:
    lines = [f"      {line.strip()}" for line in permissions.split(",") if line.strip()]
    return "\n".join(
        ["give the job that publishes:", "    permissions:", *(lines or ["      contents: read"])]
    )


def _message(response: Response) -> str:
    parsed = _json(response.body)
    text = parsed.get("message", "") if isinstance(parsed, dict) else ""
    return "".join(c for c in str(text)[:300] if c.isprintable()) or "no message"


def _json(body: bytes) -> Any:
    """The body's JSON, or `_NO_JSON`."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return _NO_JSON


def _parsed(response: Response, url: str) -> Any:
    """The answer's JSON; None where it has no body, as a 204 has none."""
    if not response.body:
        return None
    parsed = _json(response.body)
    if parsed is _NO_JSON:
        raise ApiError("did not answer with JSON", where=_shown(url), status=response.status)
    return parsed


def _shown(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.hostname}{parts.path}"


def _checked_url(url: str) -> str:
    """The API's address without a slash at its end. Raises `UsageError`."""
    fault = UsageError("is not an https URL of an API", where="GITHUB_API_URL", fix="https://api.github.com")
    parts = split_url(url)
    if parts is None or parts.username is not None or parts.query or parts.fragment or not url.isascii():
        raise fault
    if not is_private(parts):
        raise fault
    return url.rstrip("/")
