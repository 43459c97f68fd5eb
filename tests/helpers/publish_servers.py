"""The command line in a process of its own, and real Prometheus parts on loopback."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

DEADLINE_S = 30.0


def command(*args: str | Path) -> list[str]:
    return [sys.executable, "-m", "perfgate", *map(str, args)]


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PERFGATE_")}
    return {**kept, "PYTHONUNBUFFERED": "1", **more}


def perfgate(*args: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command(*args), env=environment(**env), capture_output=True, text=True, timeout=DEADLINE_S
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def binary(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (Debian: apt-get install prometheus prometheus-pushgateway)")
    return found


def free_ports(count: int) -> list[int]:
    """Ports that are free together: taken one after another, two could be the same."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return str(answer.read().decode())


def until(probe: Any, what: str) -> Any:
    """What `probe` returns once it returns something."""
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        try:
            if found := probe():
                return found
        except OSError:
            pass
        time.sleep(0.05)
    pytest.fail(f"no {what} within {DEADLINE_S:g} s")


@contextmanager
def server(arguments: list[str], ready_url: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as sink:
        child = subprocess.Popen(arguments, stdout=sink, stderr=sink, cwd=log.parent, env=environment())
        try:
            until(lambda: child.poll() is not None or fetch(ready_url), arguments[0])
            assert child.poll() is None, log.read_text()
            yield child
        finally:
            child.terminate()
            child.wait(10)


def query(port: int, promql: str) -> list[dict[str, Any]]:
    url = f"http://127.0.0.1:{port}/api/v1/query?" + urllib.parse.urlencode({"query": promql})
    return list(json.loads(fetch(url))["data"]["result"])
