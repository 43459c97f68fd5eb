"""Messages, signatures and sending, against a service on loopback; and that no secret is ever shown."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import socket
import traceback
from datetime import datetime, timezone
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from publish_runs import HOSTILE, Answer, chat, result, run

from perfgate.errors import InfrastructureError, UsageError
from perfgate.publish.alerts import Alert, Limits, events
from perfgate.publish.webhooks import (
    ATTEMPTS,
    SERVICES,
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    Destination,
    destinations,
    message,
    request,
    send,
)
from perfgate.records import Verdict

NOW = datetime(2026, 11, 22, 8, tzinfo=timezone.utc)
TOKEN, SECRET = "T0PS3CRETTOKEN", "SECverysecretsecret"
KINDS = sorted(SERVICES)


def alert(*names: str, reason: str = "slower") -> Alert:
    cases = [result(name, Verdict.REGRESSION, 1.08, reason=reason) for name in names or ("a/fp16",)]
    return events(run(*cases), {}, NOW, Limits())[0].alert


def destination(url: str, kind: str = "slack", secret: str = "") -> Destination:
    return Destination(name="team", kind=kind, url=f"{url}/hook/{TOKEN}", secret=secret)


def good(kind: str) -> Answer:
    return Answer(body=json.dumps(dict.fromkeys(SERVICES[kind].code, 0) or "ok").encode())


def fault(to: Destination, **more: Any) -> str:
    """The error of a delivery that fails, after a search for what must not be in it."""
    waits: list[float] = []
    with pytest.raises(InfrastructureError) as caught:
        send(to, alert(), **{"sleep": waits.append, **more})
    error = caught.value
    shown = "".join(traceback.format_exception(error)) + repr(error) + repr(to) + str(to)
    assert error.__context__ is None
    assert TOKEN not in shown
    assert SECRET not in shown
    assert error.exit_code == 3
    return str(error)


@pytest.mark.parametrize("kind", KINDS)
def test_each_service_takes_its_message(kind: str) -> None:
    with chat(good(kind)) as service:
        send(destination(service.url, kind), alert())
    assert service.paths == [f"/hook/{TOKEN}"]
    assert service.headers[0]["content-type"] == "application/json; charset=utf-8"
    assert "authorization" not in service.headers[0]
    assert "a/fp16" in service.bodies[0].decode()


def test_the_services_own_formats() -> None:
    slack = message(alert(), "slack")
    assert slack["blocks"][0]["text"]["type"] == "plain_text"
    assert slack["blocks"][1]["text"]["text"].startswith("```\na/fp16: +8.0% latency; slower\n")
    card = message(alert(), "teams")["attachments"][0]
    assert card["contentType"] == "application/vnd.microsoft.card.adaptive"
    assert card["content"]["body"][1]["inlines"][0]["text"].startswith("a/fp16")
    assert message(alert(), "feishu")["card"]["header"]["template"] == "red"
    assert message(alert(), "dingtalk")["at"] == {"isAtAll": False}
    assert message(alert(), "wecom")["markdown"]["content"].startswith("### perfgate: 1 case slower")
    generic = message(alert(), "json")
    assert generic["schema"] == "perfgate-trt/alert/v1"
    assert generic["kind"] == "regression"


def test_feishu_signature() -> None:
    with chat(good("feishu")) as service:
        send(destination(service.url, "feishu", SECRET), alert(), clock=lambda: 1_599_360_473.9)
    body = json.loads(service.bodies[0])
    key = f"1599360473\n{SECRET}".encode()
    assert body["timestamp"] == "1599360473"
    assert body["sign"] == base64.b64encode(hmac.new(key, b"", hashlib.sha256).digest()).decode()


def test_dingtalk_signature_beside_the_url_s_own_query() -> None:
    with chat(good("dingtalk")) as service:
        to = Destination(name="t", kind="dingtalk", url=f"{service.url}/send?access_token=x", secret=SECRET)
        send(to, alert(), clock=lambda: 1_599_360_473.123)
    query = parse_qs(urlsplit(service.paths[0]).query)
    signed = hmac.new(SECRET.encode(), f"1599360473123\n{SECRET}".encode(), hashlib.sha256).digest()
    assert query == {
        "access_token": ["x"],
        "timestamp": ["1599360473123"],
        "sign": [base64.b64encode(signed).decode()],
    }


def test_generic_signature_covers_time_and_body() -> None:
    with chat() as service:
        send(destination(service.url, "json", SECRET), alert())
    headers = service.headers[0]
    data = headers[TIMESTAMP_HEADER.lower()].encode() + b"." + service.bodies[0]
    expected = hmac.new(SECRET.encode(), data, hashlib.sha256).hexdigest()
    assert headers[SIGNATURE_HEADER.lower()] == f"sha256={expected}"


@pytest.mark.parametrize("after", ["7", "date"])
def test_429_waits_as_asked_and_then_delivers(after: str) -> None:
    value = format_datetime(datetime(2020, 1, 1, tzinfo=timezone.utc)) if after == "date" else after
    waits: list[float] = []
    with chat(Answer(429, headers={"Retry-After": value}), Answer(503), good("slack")) as service:
        send(destination(service.url), alert(), sleep=waits.append)
    assert len(service.bodies) == 3
    assert waits == [0.0 if after == "date" else 7.0, 2.0]


def test_each_attempt_is_signed_anew() -> None:
    times = iter((100.0, 200.0))
    with chat(Answer(500), good("feishu")) as service:
        send(
            destination(service.url, "feishu", SECRET),
            alert(),
            sleep=lambda _: None,
            clock=lambda: next(times),
        )
    assert [json.loads(body)["timestamp"] for body in service.bodies] == ["100", "200"]


def test_500s_end_after_a_bounded_number_of_tries() -> None:
    waits: list[float] = []
    with chat(Answer(500)) as service:
        text = fault(destination(service.url), sleep=waits.append)
    assert "HTTP 500" in text
    assert len(service.bodies) == ATTEMPTS
    assert waits == [1.0, 2.0, 4.0]


def test_a_wait_beyond_the_bound_is_not_waited() -> None:
    with chat(Answer(429, headers={"Retry-After": "3600"})) as service:
        assert "asked to wait 3600 s" in fault(destination(service.url))
    assert len(service.bodies) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_4xx_is_not_tried_again(status: int) -> None:
    with chat(Answer(status, body=f"bad token {TOKEN} {SECRET}".encode())) as service:
        assert f"HTTP {status}" in fault(destination(service.url))
    assert len(service.bodies) == 1


@pytest.mark.parametrize(
    ("kind", "body", "said"),
    [
        ("feishu", {"code": 19021, "msg": f"sign {TOKEN}"}, "code 19021: the signature"),
        ("lark", {"code": 9499}, "code 9499"),
        ("dingtalk", {"errcode": 310000, "errmsg": SECRET}, "errcode 310000: signature, keyword"),
        ("wecom", {"errcode": 93000, "errmsg": f"invalid webhook url {TOKEN}"}, "errcode 93000"),
        ("wecom", {"errcode": "0"}, "no errcode"),
        ("dingtalk", [], "no errcode"),
        ("feishu", "ok", "no code"),
    ],
)
def test_200_with_an_error_in_the_body_is_a_failure(kind: str, body: Any, said: str) -> None:
    with chat(Answer(body=json.dumps(body).encode())) as service:
        assert said in fault(destination(service.url, kind))
    assert len(service.bodies) == 1


def test_a_body_that_is_no_json_or_has_no_end_is_a_failure() -> None:
    for body in (b"<html>", b"[" * 100_000):
        with chat(Answer(body=body)) as service:
            assert "no errcode" in fault(destination(service.url, "wecom"))


def test_a_redirect_is_refused_and_not_followed() -> None:
    with chat() as other, chat(Answer(302, headers={"Location": other.url})) as service:
        assert "redirects (HTTP 302)" in fault(destination(service.url))
    assert other.bodies == []


def test_a_hanging_service_ends_by_the_timeout() -> None:
    with chat(Answer(hang_s=30)) as service:
        assert "no answer within 0.1 s" in fault(destination(service.url), timeout_s=0.1)
        assert len(service.bodies) == ATTEMPTS


def test_loopback_goes_through_no_proxy_and_takes_no_password(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password hunter2")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with chat() as proxy, chat() as service:
        monkeypatch.setenv("http_proxy", proxy.url)
        send(destination(service.url), alert())
    assert (len(proxy.bodies), len(service.bodies)) == (0, 1)
    assert "authorization" not in service.headers[0]


def test_nobody_there() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        text = fault(destination(f"http://127.0.0.1:{held.getsockname()[1]}"))
    assert text.startswith("team (slack, 127.0.0.1): the regression alert was not delivered: no connection")


@pytest.mark.parametrize("kind", KINDS)
def test_no_log_line_has_the_url_or_the_secret(
    kind: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = SECRET if SERVICES[kind].signed else ""
    with chat(Answer(500), good(kind)) as service:
        send(destination(service.url, kind, secret), alert(), sleep=lambda _: None)
    out, err = capfd.readouterr()
    shown = caplog.text + out + err
    assert TOKEN not in shown
    assert SECRET not in shown
    assert SECRET not in repr(request(destination("http://localhost", kind, secret), alert(), 1.0))


# Hostile text.


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "json"])
def test_hostile_text_is_no_markup_no_link_and_no_mention(kind: str) -> None:
    text = json.dumps(message(alert(HOSTILE, reason="<at id=all></at> @here"), kind), ensure_ascii=False)
    text = text.replace("http://adaptivecards.io", "")
    assert "@all" not in text
    assert "@here" not in text
    assert "https://" not in text
    if kind == "slack":
        assert "<" not in text
        assert "&lt;!channel&gt;" in text
        assert text.count("```") == 2
    if kind in ("dingtalk", "wecom"):
        assert not set("<>[]`*") & set(text[text.index("- x/") :].split('"')[0])
    if kind == "teams":
        assert '"TextBlock"' not in text
    if kind in ("feishu", "lark"):
        assert '"lark_md"' not in text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("letter", ["x", "é", "层", "<", "&", '"'])
def test_a_long_message_loses_whole_lines_and_says_how_many(kind: str, letter: str) -> None:
    names = [f"{number:02}{letter * 280}" for number in range(30)]
    made = message(alert(*names), kind)
    encoded = json.dumps(made, ensure_ascii=False)
    hard = {"slack": 3000, "wecom": 4096, "dingtalk": 20_000, "feishu": 20_000, "lark": 20_000}
    assert len(encoded.encode()) <= hard.get(kind, 28_000)
    if kind == "json":
        assert len(made["lines"]) + made["rest"] == 30
        return
    shown = sum(f"{number:02}" + (letter if letter in "xé层" else "") in encoded for number in range(30))
    assert "and " in encoded and " more" in encoded
    if letter in "xé层":
        assert f"… and {30 - shown} more" in encoded


# Settings.


def test_destinations_come_from_the_environment() -> None:
    found = destinations(
        {
            "PERFGATE_WEBHOOK_TEAM": " slack  https://hooks.slack.com/services/T/B/x ",
            "PERFGATE_WEBHOOK_CN": "feishu https://open.feishu.cn/open-apis/bot/v2/hook/x",
            "PERFGATE_WEBHOOK_CN_SECRET": SECRET,
            "PATH": "/bin",
        }
    )
    assert [str(one) for one in found] == ["cn (feishu, open.feishu.cn)", "team (slack, hooks.slack.com)"]
    assert found[0].secret == SECRET
    assert SECRET not in repr(found)
    assert "/services" not in repr(found)


@pytest.mark.parametrize(
    "value",
    [
        "",
        TOKEN,
        f"https://h/{TOKEN}",
        f"irc https://h/{TOKEN}",
        f"slack http://h/{TOKEN}",
        f"slack http://127.0.0.1.evil.test/{TOKEN}",
        f"slack http://localhost.evil.test/{TOKEN}",
        f"slack https://user:{TOKEN}@h/",
        f"slack https://h/#{TOKEN}",
        f"slack https:///{TOKEN}",
        f"slack https://h:{TOKEN}/",
        f"slack https://[{TOKEN}/",
        f"slack file:///{TOKEN}",
        f"slack https://h/{TOKEN} extra",
        f"slack https://h\\@evil/{TOKEN}",
        f"slack https://h/é{TOKEN}",
    ],
)
def test_a_setting_that_does_not_fit_is_refused_without_showing_it(value: str) -> None:
    with pytest.raises(UsageError) as caught:
        destinations({"PERFGATE_WEBHOOK_TEAM": value})
    shown = "".join(traceback.format_exception(caught.value))
    assert "PERFGATE_WEBHOOK_TEAM" in shown
    assert TOKEN not in shown


@pytest.mark.parametrize(
    "environ",
    [
        {"PERFGATE_WEBHOOK_A_SECRET": SECRET},
        {"PERFGATE_WEBHOOK_A": "slack https://h/x", "PERFGATE_WEBHOOK_A_SECRET": SECRET},
        {"PERFGATE_WEBHOOK_A": "json https://h/x", "PERFGATE_WEBHOOK_A_SECRET": SECRET + "\udcff"},
        {"PERFGATE_WEBHOOK_": "json https://h/x"},
        {"PERFGATE_WEBHOOK_a b": "json https://h/x"},
    ],
    ids=["orphan", "unsigned kind", "bytes", "no name", "odd name"],
)
def test_names_and_secrets_that_do_not_fit(environ: dict[str, str]) -> None:
    with pytest.raises(UsageError) as caught:
        destinations(environ)
    assert SECRET not in "".join(traceback.format_exception(caught.value))
