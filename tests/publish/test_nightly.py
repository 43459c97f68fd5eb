"""The nightly job's steps, end to end on loopback: measure, keep, look back, publish, tell the team."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from perfgate.util.process import package_environment

ROOT = Path(__file__).resolve().parents[2]
QUICK = {
    "PERFGATE_BACKEND": "onnxruntime",
    "PERFGATE_DEVICE": "cpu",
    "PERFGATE_LAUNCHES": "3",
    "PERFGATE_DURATION_MS": "60",
    "PERFGATE_FOREIGN_CPU_LIMIT": "1",
    "PERFGATE_EXPLAIN": "false",
}


class Chat(ThreadingHTTPServer):
    """A chat service that takes every message."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.messages: list[dict[str, object]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook/very-secret-token"


class _Handler(BaseHTTPRequestHandler):
    server: Chat

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.messages.append(json.loads(body))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        return None


@pytest.fixture
def chat() -> Iterator[Chat]:
    server = Chat()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_regressed_night_is_kept_shown_and_told_once(tmp_path: Path, chat: Chat) -> None:
    models = tmp_path / "models"
    models.mkdir()
    for name in ("tinyconv.py", "tinyconv.toml", "_graph.py"):
        shutil.copy(ROOT / "models" / name, models)
    environment = {**package_environment(), **QUICK, "PERFGATE_WEBHOOK_TEAM": f"slack {chat.url}"}

    def perfgate(*words: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "perfgate", *words],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == code, f"{words}\n{done.stdout}\n{done.stderr}"
        assert "very-secret-token" not in done.stdout + done.stderr
        return done.stdout

    results = "perfgate-out/results.json"
    perfgate("run")
    perfgate("promote", results, "--reason", "first")
    perfgate("history", "add", results)
    perfgate("alert", results, "--state", "alerts.json")
    assert chat.messages == []

    spec = models / "tinyconv.toml"
    spec.write_text(spec.read_text().replace("seed = 0\n", "seed = 0\nargs = { repeat = 8 }\n", 1))
    perfgate("run", code=1)
    perfgate("history", "add", results)
    perfgate("alert", results, "--state", "alerts.json")
    perfgate("alert", results, "--state", "alerts.json")
    assert len(chat.messages) == 1, "the same regression is told once"
    assert "tinyconv/fp32/b1" in json.dumps(chat.messages)

    assert "tinyconv/fp32/b1" in perfgate("trend")
    perfgate("site", "--out", "public")
    assert "tinyconv/fp32/b1" in (tmp_path / "public" / "index.html").read_text()
    perfgate("metrics", results, "--textfile", "perfgate.prom")
    assert "perfgate_verdict{" in (tmp_path / "perfgate.prom").read_text()
    assert perfgate("history", "list").count("REGRESSION") == 1
