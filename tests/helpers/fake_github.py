"""GitHub's API on loopback: comments, statuses, pull requests, issues, git objects, artifacts; and faults.

It holds state, so that what is asserted is what a reader would see. A fault is scripted for the next requests
that match: a limit, a 5xx, a hang-up in the middle of a body, an answer that never comes.
"""

from __future__ import annotations

import io
import json
import re
import socket
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from perfgate.publish.github.client import GitHubClient

REPOSITORY = "acme/nets"
TOKEN = "ghs_secretsecretsecret"
BOT = "github-actions[bot]"
HEAD = "a" * 40
BASE = "b" * 40
MERGE = "c" * 40

Match = re.Match[str]


@dataclass
class Fault:
    """What happens instead of, or after, the request: `done` lets it take effect first."""

    method: str
    path: str
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    message: str = "no"
    kind: str = "answer"  # answer, raw (the message as the body), cut, hang, close
    done: bool = False
    before: Callable[[], object] | None = None


@dataclass
class FakeGitHub:
    url: str = ""
    store_url: str = ""
    comments: list[dict[str, Any]] = field(default_factory=list)
    statuses: list[dict[str, Any]] = field(default_factory=list)
    pulls: list[dict[str, Any]] = field(default_factory=list)
    issues: list[dict[str, Any]] = field(default_factory=list)
    checks: list[dict[str, Any]] = field(default_factory=list)
    commits: dict[str, list[str]] = field(default_factory=dict)
    artifacts: dict[str, bytes] = field(default_factory=dict)
    # Runs of the nightly workflow, what each run's artifacts hold, and what the default branch contains.
    runs: list[dict[str, Any]] = field(default_factory=list)
    kept: dict[int, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    expired: set[int] = field(default_factory=set)
    merged: set[str] = field(default_factory=set)
    git: dict[str, Any] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    store_headers: list[dict[str, str]] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def client(self, **more: Any) -> GitHubClient:
        options: dict[str, Any] = {"sleep": self.slept.append, "clock": lambda: 1_000.0, **more}
        return GitHubClient(REPOSITORY, TOKEN, api_url=self.url, **options)

    def pull(self, number: int, *, head: str = HEAD, owner: str = "acme", state: str = "open") -> None:
        self.pulls.append(
            {
                "number": number,
                "state": state,
                "head": {"sha": head, "ref": "change", "label": f"{owner}:change"},
                "base": {"sha": BASE, "ref": "main"},
            }
        )

    def comment(self, body: str, login: str = BOT) -> int:
        number = 100 + len(self.comments)
        self.comments.append(
            {
                "id": number,
                "issue": 7,
                "body": body,
                "user": {"login": login},
                "html_url": f"https://x/{number}",
            }
        )
        return number

    def calls(self, method: str, pattern: str) -> int:
        return sum(verb == method and bool(re.search(pattern, path)) for verb, path in self.requests)

    # Routes: the status and the body of each request.

    def handle(self, method: str, path: str, query: dict[str, str], body: dict[str, Any]) -> tuple[int, Any]:
        for verb, pattern, act in self._routes():
            found = re.fullmatch(pattern, path)
            if verb == method and found:
                return act(found, query, body)
        return 404, {"message": "Not Found"}

    def _routes(self) -> list[tuple[str, str, Callable[..., tuple[int, Any]]]]:
        return [
            ("GET", r"issues/(\d+)/comments", self._list_comments),
            ("POST", r"issues/(\d+)/comments", self._add_comment),
            ("PATCH", r"issues/comments/(\d+)", self._edit_comment),
            ("DELETE", r"issues/comments/(\d+)", self._drop_comment),
            ("POST", r"statuses/([0-9a-f]{40})", self._add_status),
            ("GET", r"commits/([0-9a-f]{40})/statuses", self._list_statuses),
            ("GET", r"pulls/(\d+)", self._get_pull),
            ("GET", r"pulls", self._list_pulls),
            ("POST", r"pulls", self._open_pull),
            ("PATCH", r"pulls/(\d+)", lambda m, q, b: _edited(self.pulls, m, b)),
            ("GET", r"commits/([0-9a-f]{40})", self._get_commit),
            ("GET", r"actions/runs/(\d+)/artifacts", self._list_artifacts),
            ("GET", r"actions/workflows/nightly\.yml/runs", self._list_runs),
            ("GET", r"compare/([0-9a-f]{40})\.\.\.main", self._compare),
            ("GET", r"actions/artifacts/(\d+)/zip", self._redirect),
            ("POST", r"check-runs", self._add_check),
            ("PATCH", r"check-runs/(\d+)", self._add_annotations),
            ("GET", r"issues", self._list_issues),
            ("POST", r"issues", self._open_issue),
            ("PATCH", r"issues/(\d+)", lambda m, q, b: _edited(self.issues, m, b)),
            ("GET", r"git/ref/heads/(\S+)", lambda m, q, b: (200, {"object": {"sha": self.refs[m[1]]}})),
            ("GET", r"git/commits/(\S+)", lambda m, q, b: (200, {"tree": {"sha": "f" * 40}})),
            ("POST", r"git/(blobs|trees|commits)", self._add_object),
            ("POST", r"git/refs", self._add_ref),
            ("PATCH", r"git/refs/heads/(\S+)", self._move_ref),
            ("GET", r"installation", lambda m, q, b: (200, {"id": 77})),
            ("POST", r"/app/installations/77/access_tokens", lambda m, q, b: (201, {"token": "ghs_app"})),
        ]

    def _list_comments(self, m: Match, q: dict[str, str], b: dict[str, Any]) -> tuple[int, Any]:
        return 200, [comment for comment in self.comments if comment["issue"] == int(m[1])]

    def _add_comment(self, m: Match, q: dict[str, str], b: dict[str, Any]) -> tuple[int, Any]:
        self.comment(b["body"])
        return 201, self.comments[-1]

    def _list_statuses(self, m: Match, q: dict[str, str], b: dict[str, Any]) -> tuple[int, Any]:
        return 200, [one for one in self.statuses[::-1] if one["sha"] == m[1]]

    def _get_pull(self, m: Match, q: dict[str, str], b: dict[str, Any]) -> tuple[int, Any]:
        found = [pull for pull in self.pulls if pull["number"] == int(m[1])]
        return (200, found[0]) if found else (404, {"message": "Not Found"})

    def _list_pulls(self, m: Match, q: dict[str, str], b: dict[str, Any]) -> tuple[int, Any]:
        return 200, [pull for pull in self.pulls if pull["head"]["label"] == q.get("head")]

    def _get_commit(self, m: Match, q: dict[str, str], b: dict[str, Any]) -> tuple[int, Any]:
        if m[1] not in self.commits:
            return 422, {"message": "No commit found"}
        return 200, {"parents": [{"sha": sha} for sha in self.commits[m[1]]]}

    def night(self, number: int, sha: str, **more: Any) -> None:
        """A run of the nightly workflow, as GitHub describes it."""
        path, home = ".github/workflows/nightly.yml", {"full_name": REPOSITORY}
        made = {"id": number, "path": path, "event": "schedule", "head_sha": sha, "head_branch": "main"}
        self.runs.append({**made, "head_repository": home, **more})

    def _list_runs(self, m: Match, q: dict[str, str], b: dict[str, Any]) -> tuple[int, Any]:
        found = [one for one in self.runs[::-1] if one["event"] == q["event"]][: int(q["per_page"])]
        return 200, {"total_count": len(found), "workflow_runs": found}

    def _compare(self, m: Match, q: dict[str, str], b: dict[str, Any]) -> tuple[int, Any]:
        return 200, {"status": "ahead" if m[1] in self.merged else "diverged"}

    def _list_artifacts(self, m: Match, q: dict[str, str], b: dict[str, Any]) -> tuple[int, Any]:
        if q.get("name"):
            names = [name for name in self.kept.get(int(m[1]), {}) if name == q["name"]]
            gone = int(m[1]) in self.expired
            made = [{"id": 1, "name": name, "size_in_bytes": 1, "expired": gone} for name in names]
            return 200, {"total_count": len(made), "artifacts": made}
        found = [
            {"id": number, "name": name, "size_in_bytes": len(data), "expired": False}
            for number, (name, data) in enumerate(self.artifacts.items(), 1)
        ]
        return 200, {"total_count": len(found), "artifacts": found}

    def _redirect(self, m: Match, q: dict[str, str], b: dict[str, Any]) -> tuple[int, Any]:
        return 302, f"{self.store_url}/{m[1]}?signature=1"

    def _add_annotations(self, m: Match, q: dict[str, str], b: dict[str, Any]) -> tuple[int, Any]:
        check = self.checks[int(m[1])]
        check["output"]["annotations"] += b["output"]["annotations"]
        return 200, check

    def _list_issues(self, m: Match, q: dict[str, str], b: dict[str, Any]) -> tuple[int, Any]:
        return 200, [one for one in self.issues[::-1] if one["state"] == q.get("state")]

    def _move_ref(self, m: Match, q: dict[str, str], b: dict[str, Any]) -> tuple[int, Any]:
        self.refs[m[1]] = b["sha"]
        return 200, {}

    def _edit_comment(self, m: Match, q: dict[str, str], b: dict[str, Any]) -> tuple[int, Any]:
        for comment in self.comments:
            if comment["id"] == int(m[1]):
                comment["body"] = b["body"]
                return 200, comment
        return 404, {"message": "Not Found"}

    def _drop_comment(self, m: Match, q: dict[str, str], b: dict[str, Any]) -> tuple[int, Any]:
        self.comments = [comment for comment in self.comments if comment["id"] != int(m[1])]
        return 204, None

    def _add_status(self, m: Match, q: dict[str, str], b: dict[str, Any]) -> tuple[int, Any]:
        self.statuses.append({"sha": m[1], **b})
        return 201, b

    def _open_pull(self, m: Match, q: dict[str, str], b: dict[str, Any]) -> tuple[int, Any]:
        made = {**b, "number": 50 + len(self.pulls), "state": "open"}
        made["head"] = {"label": f"acme:{b['head']}", "sha": HEAD}
        self.pulls.append(made)
        return 201, made

    def _open_issue(self, m: Match, q: dict[str, str], b: dict[str, Any]) -> tuple[int, Any]:
        self.issues.append({**b, "number": 200 + len(self.issues), "state": "open", "user": {"login": BOT}})
        return 201, self.issues[-1]

    def _add_check(self, m: Match, q: dict[str, str], b: dict[str, Any]) -> tuple[int, Any]:
        self.checks.append({**b, "id": len(self.checks)})
        return 201, self.checks[-1]

    def _add_object(self, m: Match, q: dict[str, str], b: dict[str, Any]) -> tuple[int, Any]:
        sha = f"{len(self.git):040x}"
        self.git[sha] = {"kind": m[1], **b}
        return 201, {"sha": sha}

    def _add_ref(self, m: Match, q: dict[str, str], b: dict[str, Any]) -> tuple[int, Any]:
        name = b["ref"].removeprefix("refs/heads/")
        if name in self.refs:
            return 422, {"message": "Reference already exists"}
        self.refs[name] = b["sha"]
        return 201, {}

    def fault(self, method: str, path: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.method == method and re.fullmatch(fault.path, path):
                    self.faults.remove(fault)
                    return fault
        return None


def zipped(data: bytes, name: str = "results.json") -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, data)
    return sink.getvalue()


def _edited(found: list[dict[str, Any]], m: Match, changes: dict[str, Any]) -> tuple[int, Any]:
    one = next(one for one in found if one["number"] == int(m[1]))
    one.update(changes)
    return 200, one


@contextmanager
def fake_github() -> Iterator[FakeGitHub]:
    """GitHub and its artifact store, two servers: the store is another host as far as a token goes."""
    fake = FakeGitHub()
    servers = [
        ThreadingHTTPServer(("127.0.0.1", 0), _api(fake)),
        ThreadingHTTPServer(("127.0.0.1", 0), _store(fake)),
    ]
    threads = [threading.Thread(target=server.serve_forever, args=(0.02,)) for server in servers]
    for server, thread in zip(servers, threads, strict=True):
        server.daemon_threads = True
        thread.start()
    fake.url, fake.store_url = (f"http://127.0.0.1:{server.server_port}" for server in servers)
    try:
        yield fake
    finally:
        fake.release.set()
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            thread.join()
            server.server_close()


class _Quiet(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass

    def answer(self, status: int, data: bytes, headers: dict[str, str], *, cut: bool = False) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if cut else data)
        self.close_connection = self.close_connection or cut


def _store(fake: FakeGitHub) -> type[BaseHTTPRequestHandler]:
    class Store(_Quiet):
        def do_GET(self) -> None:
            fake.store_headers.append(dict(self.headers))
            index = int(urlsplit(self.path).path.strip("/")) - 1
            self.answer(200, list(fake.artifacts.values())[index], {})

    return Store


def _api(fake: FakeGitHub) -> type[BaseHTTPRequestHandler]:
    class Api(_Quiet):
        def serve(self) -> None:
            parts = urlsplit(self.path)
            path = parts.path.removeprefix(f"/repos/{REPOSITORY}/")
            query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length) or b"{}")
            fake.requests.append((self.command, path))
            fake.headers.append(dict(self.headers))
            fault = fake.fault(self.command, path)
            if fault and fault.before:
                fault.before()
            if fault and not fault.done and fault.kind in ("answer", "raw") and fault.status:
                made_up = fault.message if fault.kind == "raw" else json.dumps({"message": fault.message})
                text = made_up.encode()
                return self.answer(fault.status, text, fault.headers)
            status, made = (
                (0, None)
                if fault and not fault.done and fault.kind != "cut"
                else fake.handle(self.command, path, query, body)
            )
            if fault and fault.kind == "hang":
                fake.release.wait(5)
            if fault and fault.kind in ("hang", "close"):
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return None
            if fault and fault.done and fault.status:
                return self.answer(fault.status, b"{}", fault.headers)
            headers: dict[str, str] = {}
            if status == 302:
                headers, made = {"Location": str(made)}, None
            if isinstance(made, list):
                page, size = int(query.get("page", 1)), int(query.get("per_page", 30))
                if page * size < len(made):
                    # An opaque address, as GitHub asks one to treat it.
                    kept = "&".join(f"{k}={v}" for k, v in query.items() if k != "page")
                    headers["Link"] = (
                        f'<{fake.url}{parts.path}?{kept}&page={page + 1}>; rel="next", '
                        f'<{fake.url}/x>; rel="last"'
                    )
                made = made[(page - 1) * size : page * size]
            data = b"" if made is None else json.dumps(made).encode()
            self.answer(status, data, headers, cut=bool(fault and fault.kind == "cut"))
            return None

        do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = serve

    return Api
