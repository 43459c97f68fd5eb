"""Chat services and a generic webhook: each alert in the service's own format, sent until it is there.

A destination comes from the environment alone: `PERFGATE_WEBHOOK_<NAME>="slack https://…"`, and its secret
from `PERFGATE_WEBHOOK_<NAME>_SECRET`. For most services the URL *is* the secret, so neither ever reaches a
log, an error or a repr; a destination is shown as its name and host. Sending is at least once: a service
that took a message and then timed out may get it again.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote_plus, urlsplit

import requests
from msgspec import to_builtins
from msgspec.structs import replace

from perfgate.errors import InfrastructureError, UsageError
from perfgate.publish.alerts import Alert
from perfgate.util.http import is_loopback, is_private, request_fault, retry_after, silence, split_url

PREFIX: Final = "PERFGATE_WEBHOOK_"
ATTEMPTS: Final = 4
TIMEOUT_S: Final = 10.0
SIGNATURE_HEADER: Final = "X-Perfgate-Signature"
TIMESTAMP_HEADER: Final = "X-Perfgate-Timestamp"
_SECRET = "_SECRET"  # noqa: S105
_MAX_WAIT_S = 60.0
_ANSWER_LIMIT_BYTES = 16 << 10
_COLOURS = {"alarm": "red", "warning": "orange", "good": "green"}
_LOOKALIKES = str.maketrans("<>[]`*#~|", "＜＞［］'∗＃～｜")
# What the codes that a user can do something about mean, by the services' documentation.
_ADVICE = {
    ("feishu", 11232): "it limits the rate",
    ("feishu", 19021): "the signature does not match, or this clock is off",
    ("feishu", 19022): "this address is not on the bot's list",
    ("feishu", 19024): "the bot's keyword is missing: set it to perfgate",
    ("dingtalk", 310000): "signature, keyword or address do not fit the bot's security settings",
    ("dingtalk", 300001): "the access token is not valid",
    ("wecom", 45009): "it limits the rate",
    ("wecom", 93000): "the webhook's key is not valid",
}


@dataclass(frozen=True)
class Destination:
    """Where alerts go. Only the name, the kind and the host are ever shown."""

    name: str
    kind: str
    url: str = field(repr=False)
    secret: str = field(repr=False, default="")

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or "?"

    def __str__(self) -> str:
        return f"{self.name} ({self.kind}, {self.host})"


@dataclass(frozen=True)
class Request:
    """One POST: what is added to the URL, headers and body. It may hold a signature: never shown."""

    body: bytes = field(repr=False)
    query: str = field(repr=False, default="")
    headers: Mapping[str, str] = field(repr=False, default_factory=dict)


@dataclass(frozen=True)
class Service:
    """A kind of destination: its message, how large one may be, and the code it answers with in the body."""

    render: Callable[[Alert], dict[str, Any]]
    limit_bytes: int
    signed: bool = False
    code: tuple[str, ...] = ()


def destinations(environ: Mapping[str, str]) -> list[Destination]:
    """The destinations that the environment names. Raises `UsageError`, which never shows a value."""
    names = sorted(key for key in environ if key.startswith(PREFIX) and not key.endswith(_SECRET))
    secrets = [key for key in environ if key.startswith(PREFIX) and key.endswith(_SECRET)]
    if orphan := next((key for key in secrets if key[: -len(_SECRET)] not in names), None):
        raise UsageError("is set, but the webhook that it signs for is not", where=orphan)
    return [_destination(key, environ[key], environ.get(key + _SECRET, "").strip()) for key in names]


def _destination(variable: str, value: str, secret: str) -> Destination:
    fix = f'{variable}="KIND https://…", KIND one of {", ".join(sorted(SERVICES))}'
    words = value.split()
    if len(words) != 2 or words[0] not in SERVICES:
        raise UsageError("is not a kind and a URL", where=variable, fix=fix)
    kind, url = words
    if not re.fullmatch(r"[A-Z0-9][A-Z0-9_]{0,60}", variable[len(PREFIX) :]):
        raise UsageError("a webhook's name is capitals, digits and _", where=variable[:80])
    if fault := _url_fault(url):
        raise UsageError(f"the URL {fault}", where=variable, fix=fix)
    if not (secret.isascii() and secret.isprintable()):
        raise UsageError("has characters that no service's secret has", where=variable + _SECRET)
    if secret and not SERVICES[kind].signed:
        raise UsageError(f"{kind} takes no secret: its URL is one", where=variable + _SECRET, fix="unset it")
    return Destination(name=variable[len(PREFIX) :].lower(), kind=kind, url=url, secret=secret)


def _url_fault(url: str) -> str | None:
    parts = split_url(url)
    if parts is None or not url.isascii() or not url.isprintable() or "\\" in url:
        return "cannot be read"
    if parts.username is not None or parts.password is not None or parts.fragment:
        return "has a user, a password or a fragment"
    return None if is_private(parts) else "is not https"


# Messages. Text from a result may come from a stranger: no format may take it for markup, a link or a
# mention. A zero-width space stays invisible and keeps "@all" and "https://" from being either.


def _plain(text: str) -> str:
    return text.replace("@", "@\u200b").replace("://", ":\u200b//")


def _lines(alert: Alert) -> list[str]:
    rest = [f"… and {alert.rest} more"] if alert.rest else []
    tail = [f"run {alert.run_id}, commit {alert.commit[:12] or 'unknown'}"] if alert.run_id else []
    return [_plain(line) for line in (*alert.lines, *rest, *tail)]


def _slack(alert: Alert) -> dict[str, Any]:
    def escape(text: str) -> str:
        return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")

    title = _plain(alert.title)
    # Inside a code block nothing is formatted but <…>, which is escaped; so a line must not end the block.
    body = "\n".join(escape(line.replace("`", "'")) for line in _lines(alert))
    section = {"type": "mrkdwn", "text": f"```\n{body}\n```", "verbatim": True}
    return {
        "text": escape(title.translate(_LOOKALIKES)),
        "blocks": [
            {"type": "header", "text": {"type": "plain_text", "text": title[:150], "emoji": False}},
            {"type": "section", "text": section},
        ],
    }


def _teams(alert: Alert) -> dict[str, Any]:
    def block(text: str, **run: Any) -> dict[str, Any]:
        # A TextRun shows its text as it is; a TextBlock would read Markdown.
        return {"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": text, **run}]}

    colour = {"alarm": "Attention", "warning": "Warning", "good": "Good"}[alert.severity]
    title = block(_plain(alert.title), weight="Bolder", size="Medium", color=colour)
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "msteams": {"width": "Full"},
        "body": [title, *(block(line) for line in _lines(alert))],
    }
    kind = "application/vnd.microsoft.card.adaptive"
    return {"type": "message", "attachments": [{"contentType": kind, "contentUrl": None, "content": card}]}


def _feishu(alert: Alert) -> dict[str, Any]:
    title = {"tag": "plain_text", "content": _plain(alert.title)}
    text = {"tag": "plain_text", "content": "\n".join(_lines(alert))}
    card = {
        "config": {"wide_screen_mode": True},
        "header": {"title": title, "template": _COLOURS[alert.severity]},
        "elements": [{"tag": "div", "text": text}],
    }
    return {"msg_type": "interactive", "card": card}


def _markdown(alert: Alert) -> tuple[str, str]:
    # Neither service documents an escape in its Markdown, so that markup becomes what only looks like it.
    title = _plain(alert.title).translate(_LOOKALIKES)
    lines = [line.translate(_LOOKALIKES).replace("__", "＿＿") for line in _lines(alert)]
    return title, "\n".join([f"### {title}", "", *(f"- {line}" for line in lines)])


def _dingtalk(alert: Alert) -> dict[str, Any]:
    title, text = _markdown(alert)
    return {"msgtype": "markdown", "markdown": {"title": title, "text": text}, "at": {"isAtAll": False}}


def _wecom(alert: Alert) -> dict[str, Any]:
    return {"msgtype": "markdown", "markdown": {"content": _markdown(alert)[1]}}


# The services' own limits: a Slack section 3,000 characters, a Teams message 28 KB, a Feishu body 20 KB, a
# DingTalk body 20,000 bytes, a WeCom text 4,096 bytes; with a little to spare for what surrounds the text.
SERVICES: Final = {
    "slack": Service(_slack, 3_000),
    "teams": Service(_teams, 27_000),
    "feishu": Service(_feishu, 19_000, signed=True, code=("code", "StatusCode")),
    "lark": Service(_feishu, 19_000, signed=True, code=("code", "StatusCode")),
    "dingtalk": Service(_dingtalk, 19_000, signed=True, code=("errcode",)),
    "wecom": Service(_wecom, 4_000, code=("errcode",)),
    "json": Service(to_builtins, 256_000, signed=True),
}


def message(alert: Alert, kind: str) -> dict[str, Any]:
    """The alert in a service's format; whole lines are left out, and counted, until it fits."""
    service = SERVICES[kind]
    for count in range(len(alert.lines), -1, -1):
        dropped = len(alert.lines) - count
        rendered = service.render(replace(alert, lines=alert.lines[:count], rest=alert.rest + dropped))
        if len(_encoded(rendered)) <= service.limit_bytes:
            return rendered
    return rendered


def _encoded(body: dict[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode()


def request(destination: Destination, alert: Alert, now_s: float) -> Request:
    """What is posted, signed as the service wants it where there is a secret."""
    body, secret = message(alert, destination.kind), destination.secret
    if not secret:
        return Request(body=_encoded(body))
    if destination.kind == "dingtalk":
        stamp = str(round(now_s * 1000))
        sign = base64.b64encode(_hmac(secret.encode(), f"{stamp}\n{secret}".encode()))
        return Request(body=_encoded(body), query=f"timestamp={stamp}&sign={quote_plus(sign)}")
    stamp = str(int(now_s))
    if destination.kind in ("feishu", "lark"):
        # Feishu's key is what others sign, and its message is empty.
        sign = base64.b64encode(_hmac(f"{stamp}\n{secret}".encode(), b""))
        return Request(body=_encoded({**body, "timestamp": stamp, "sign": sign.decode()}))
    data = _encoded(body)
    signature = _hmac(secret.encode(), f"{stamp}.".encode() + data).hex()
    return Request(body=data, headers={TIMESTAMP_HEADER: stamp, SIGNATURE_HEADER: f"sha256={signature}"})


def _hmac(key: bytes, data: bytes) -> bytes:
    return hmac.new(key, data, hashlib.sha256).digest()


@dataclass(frozen=True)
class _Answer:
    """What came back: a fault in words, or None; whether to try again, and after how long."""

    fault: str | None
    again: bool = False
    wait_s: float | None = None


def send(
    destination: Destination,
    alert: Alert,
    *,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.time,
    timeout_s: float = TIMEOUT_S,
) -> None:
    """Send one alert. Raises `InfrastructureError`, which names the destination's host and nothing more."""
    answer = _Answer("was not tried")
    with requests.Session() as session, silence():
        # What goes to this machine in the clear must not leave it through a proxy.
        session.trust_env = not is_loopback(destination.host)
        for attempt in range(1, ATTEMPTS + 1):
            # Signed anew every time: a signature ages while waiting.
            answer = _post(session, destination, request(destination, alert, clock()), timeout_s)
            if answer.fault is None:
                return
            wait_s = 2.0 ** (attempt - 1) if answer.wait_s is None else answer.wait_s
            if not answer.again or attempt == ATTEMPTS or wait_s > _MAX_WAIT_S:
                break
            sleep(wait_s)
    # Raised here, outside of any except clause: the original error's text has the URL in it.
    raise InfrastructureError(
        f"the {alert.kind.value} alert was not delivered: {answer.fault}", where=str(destination)
    )


def _post(session: requests.Session, destination: Destination, made: Request, timeout_s: float) -> _Answer:
    url = destination.url
    if made.query:
        url += ("&" if urlsplit(url).query else "?") + made.query
    headers = {"Content-Type": "application/json; charset=utf-8", "User-Agent": "perfgate", **made.headers}
    deadline = time.monotonic() + timeout_s
    try:
        # An own `auth` keeps requests from adding a password that it finds in a .netrc.
        with session.post(
            url,
            data=made.body,
            headers=headers,
            timeout=timeout_s,
            allow_redirects=False,
            stream=True,
            auth=lambda prepared: prepared,
        ) as response:
            body = bytearray()
            for byte in response.iter_content(1):
                body += byte
                if len(body) >= _ANSWER_LIMIT_BYTES or time.monotonic() > deadline:
                    break
            return _judge(destination.kind, response.status_code, response.headers, bytes(body))
    except (requests.RequestException, OSError, ValueError) as error:
        again = not isinstance(error, requests.exceptions.SSLError)
        return _Answer(request_fault(error, timeout_s), again=again)


def _judge(kind: str, status: int, headers: Mapping[str, str], body: bytes) -> _Answer:
    if 300 <= status < 400:
        return _Answer(f"it redirects (HTTP {status}), which is refused")
    if status == 429 or status >= 500:
        wait_s = retry_after(headers.get("Retry-After", ""))
        asked = f", and asked to wait {wait_s:.0f} s" if wait_s is not None else ""
        return _Answer(f"HTTP {status}{asked}", again=True, wait_s=wait_s)
    if not 200 <= status < 300:
        return _Answer(f"HTTP {status}")
    if kind == "teams" and b"delivery failed" in body:
        return _Answer("HTTP 200, but the body says that delivery failed")
    keys = SERVICES[kind].code
    if not keys:
        return _Answer(None)
    answer: Any = None
    with contextlib.suppress(ValueError, RecursionError):
        answer = json.loads(body)
    codes = [answer[key] for key in keys if key in answer] if isinstance(answer, dict) else []
    if not codes or not isinstance(codes[0], int):
        return _Answer(f"HTTP {status}, but the body has no {keys[0]}")
    if codes[0] == 0:
        return _Answer(None)
    # The service's own words may repeat the key: the code says it all.
    advice = _ADVICE.get(("feishu" if kind == "lark" else kind, codes[0]))
    return _Answer(f"it answered {keys[0]} {codes[0]}{f': {advice}' if advice else ''}")
