"""The API client against a GitHub that limits, fails, hangs and cuts off; and what is posted then."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from fake_github import BOT, HEAD, TOKEN, FakeGitHub, Fault, fake_github

from perfgate.errors import UsageError
from perfgate.publish.github.client import API_VERSION, ApiError, GitHubClient, UnsureError
from perfgate.publish.github.comment import marker, upsert
from perfgate.publish.github.status import set_status

COMMENTS = "issues/7/comments"


@pytest.fixture
def github() -> Iterator[FakeGitHub]:
    with fake_github() as fake:
        yield fake


def test_the_first_comment_is_made_and_the_second_time_it_is_updated(github: FakeGitHub) -> None:
    first = upsert(github.client(), 7, "one")
    second = upsert(github.client(), 7, "two")
    assert first.created and not second.created
    assert first.id == second.id
    assert [comment["body"] for comment in github.comments] == [f"{marker('perfgate')}\ntwo"]


def test_our_comment_is_found_behind_250_others(github: FakeGitHub) -> None:
    for number in range(250):
        github.comment(f"chatter {number}", login=f"user{number}")
    upsert(github.client(), 7, "one")
    upsert(github.client(), 7, "two")
    assert len(github.comments) == 251
    assert github.comments[-1]["body"].endswith("two")
    assert github.calls("GET", COMMENTS) == 9, "three pages of a hundred, each time that it is looked for"


def test_a_marker_of_somebody_else_is_not_ours(github: FakeGitHub) -> None:
    theirs = github.comment(f"{marker('perfgate')}\nlooks fine to me", login="mallory")
    quoted = github.comment(f"> {marker('perfgate')}\nquoted", login=BOT)
    other = github.comment(f"{marker('other')}\nanother gate", login=BOT)
    made = upsert(github.client(), 7, "one")
    assert made.created
    assert made.id not in (theirs, quoted, other)
    assert github.calls("PATCH", ".*") == 0


def test_a_new_comment_only_where_asked(github: FakeGitHub) -> None:
    for text in ("one", "two"):
        upsert(github.client(), 7, text, always_new=True)
    assert len(github.comments) == 2


@pytest.mark.parametrize(
    ("headers", "status", "waited"),
    [
        ({"Retry-After": "7"}, 403, [7.0]),
        ({"Retry-After": "7"}, 429, [7.0]),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1030"}, 403, [31.0]),
        ({}, 429, [60.0]),
    ],
)
def test_a_rate_limit_is_waited_out_also_by_a_post(
    github: FakeGitHub, headers: dict[str, str], status: int, waited: list[float]
) -> None:
    github.faults.append(Fault("POST", COMMENTS, status, headers, "API rate limit exceeded"))
    upsert(github.client(), 7, "one")
    assert github.slept == waited
    assert len(github.comments) == 1


def test_a_secondary_limit_without_a_word_of_how_long_waits_longer_each_time(github: FakeGitHub) -> None:
    said = "You have exceeded a secondary rate limit."
    github.faults += [Fault("POST", COMMENTS, 403, message=said) for _ in range(2)]
    upsert(github.client(), 7, "one")
    assert github.slept == [60.0, 120.0]
    assert len(github.comments) == 1


def test_a_limit_that_lasts_too_long_is_an_error_not_a_wait(github: FakeGitHub) -> None:
    far = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "9999"}
    github.faults.append(Fault("GET", COMMENTS, 403, far, "API rate limit exceeded"))
    with pytest.raises(ApiError, match="a rate limit, to wait 9000 s"):
        upsert(github.client(), 7, "one")
    assert github.slept == []


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_failing_get_is_asked_again(github: FakeGitHub, status: int) -> None:
    github.faults += [Fault("GET", COMMENTS, status) for _ in range(3)]
    upsert(github.client(), 7, "one")
    assert github.slept == [1.0, 2.0, 4.0]
    assert len(github.comments) == 1


def test_a_server_that_stays_broken_is_the_infrastructures_fault(github: FakeGitHub) -> None:
    github.faults += [Fault("GET", COMMENTS, 502) for _ in range(9)]
    with pytest.raises(ApiError, match="HTTP 502") as caught:
        upsert(github.client(), 7, "one")
    assert caught.value.exit_code == 3
    assert len(github.slept) == 4


@pytest.mark.parametrize("kind", ["close", "hang", "cut", "answer"])
def test_a_post_that_was_carried_out_but_not_answered_is_not_repeated(github: FakeGitHub, kind: str) -> None:
    github.faults.append(Fault("POST", COMMENTS, 502 if kind == "answer" else 0, kind=kind, done=True))
    made = upsert(github.client(timeout_s=0.5), 7, "one")
    assert len(github.comments) == 1
    assert made.id == github.comments[0]["id"]
    assert github.calls("POST", COMMENTS) == 1


@pytest.mark.parametrize("kind", ["close", "hang", "answer"])
def test_a_post_that_was_not_carried_out_is_made_once_more(github: FakeGitHub, kind: str) -> None:
    github.faults.append(Fault("POST", COMMENTS, 500 if kind == "answer" else 0, kind=kind))
    upsert(github.client(timeout_s=0.5), 7, "one")
    assert len(github.comments) == 1
    assert github.calls("POST", COMMENTS) == 2


def test_a_post_is_not_tried_a_third_time(github: FakeGitHub) -> None:
    github.faults += [Fault("POST", COMMENTS, 500) for _ in range(5)]
    with pytest.raises(UnsureError):
        upsert(github.client(), 7, "one")
    assert github.calls("POST", COMMENTS) == 2


def test_a_truncated_list_is_read_again(github: FakeGitHub) -> None:
    github.comment(f"{marker('perfgate')}\nold")
    github.faults.append(Fault("GET", COMMENTS, kind="cut"))
    assert not upsert(github.client(), 7, "new").created
    assert github.slept == [1.0]
    assert len(github.comments) == 1


def test_a_comment_deleted_meanwhile_is_made_anew(github: FakeGitHub) -> None:
    github.comment(f"{marker('perfgate')}\nold")
    github.faults.append(Fault("PATCH", r"issues/comments/\d+", done=True, before=github.comments.clear))
    assert upsert(github.client(), 7, "new").created
    assert [comment["body"].splitlines()[-1] for comment in github.comments] == ["new"]


def test_of_two_first_comments_made_at_once_the_older_stays_with_the_newer_text(github: FakeGitHub) -> None:
    other = Fault(
        "POST", COMMENTS, done=True, before=lambda: github.comment(f"{marker('perfgate')}\nother run")
    )
    github.faults.append(other)
    kept = upsert(github.client(), 7, "ours")
    assert [comment["id"] for comment in github.comments] == [kept.id]
    assert github.comments[0]["body"].endswith("ours")


def test_a_missing_permission_is_not_retried_and_prints_the_block_to_add(github: FakeGitHub) -> None:
    github.faults.append(
        Fault(
            "POST", COMMENTS, 403, {"X-RateLimit-Remaining": "900"}, "Resource not accessible by integration"
        )
    )
    with pytest.raises(ApiError) as caught:
        upsert(github.client(), 7, "one")
    assert github.slept == []
    assert caught.value.status == 403
    assert "    permissions:\n      pull-requests: write" in str(caught.value)


def test_a_next_page_on_another_host_is_not_asked_for(github: FakeGitHub) -> None:
    link = {"Link": '<https://evil.test/page>; rel="next"'}
    github.faults.append(Fault("GET", COMMENTS, 200, link, "[]", kind="raw"))
    with pytest.raises(ApiError, match="on another host"):
        upsert(github.client(), 7, "one")


def test_every_request_names_the_api_version_and_carries_the_token_in_one_header(github: FakeGitHub) -> None:
    upsert(github.client(), 7, "one")
    for headers in github.headers:
        assert headers["X-GitHub-Api-Version"] == API_VERSION
        assert [name for name, value in headers.items() if TOKEN in value] == ["Authorization"]
    assert not [path for _, path in github.requests if TOKEN in path]


def test_the_token_is_in_no_error_log_or_repr(github: FakeGitHub, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    client = github.client(timeout_s=0.5)
    github.faults += [Fault("GET", COMMENTS, 401, message="Bad credentials")]
    with pytest.raises(ApiError) as caught:
        upsert(client, 7, "one")
    github.faults += [Fault("GET", COMMENTS, kind="close") for _ in range(5)]
    with pytest.raises(ApiError) as broken:
        upsert(client, 7, "one")
    for text in (str(caught.value), str(broken.value), repr(client), caplog.text):
        assert TOKEN not in text


@pytest.mark.parametrize(
    "url",
    ["http://api.github.com", "https://user:pw@host/api", "ftp://host", "https://host/?q=1", "nonsense"],
)
def test_a_token_is_sent_to_no_odd_address(url: str) -> None:
    with pytest.raises(UsageError, match="GITHUB_API_URL"):
        GitHubClient("acme/nets", TOKEN, api_url=url)


def test_an_enterprise_address_keeps_its_path() -> None:
    client = GitHubClient("acme/nets", TOKEN, api_url="https://git.acme.test/api/v3/")
    assert client.repo("pulls") == "https://git.acme.test/api/v3/repos/acme/nets/pulls"


def test_a_status_is_short_enough_and_sent_again_after_a_timeout(github: FakeGitHub) -> None:
    github.faults.append(Fault("POST", f"statuses/{HEAD}", kind="hang"))
    set_status(github.client(timeout_s=0.5), HEAD, "failure", "x" * 300, url="https://github.test/run")
    assert [status["state"] for status in github.statuses] == ["failure"]
    assert len(github.statuses[0]["description"]) == 140
    with pytest.raises(UsageError, match="full commit SHA"):
        set_status(github.client(), "abc1234", "success", "short")
