"""Runs to alert of and to export, and a chat service on loopback that answers as it is told."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from perfgate.records import (
    RESULTS_SCHEMA,
    Case,
    CaseResult,
    Commit,
    EngineFacts,
    Environment,
    Interval,
    Judgement,
    Launch,
    Measured,
    Mode,
    Outcome,
    Protocol,
    RunResult,
    Slo,
    Summary,
    Telemetry,
    Tolerance,
    Verdict,
)

HOSTILE = 'x/@all <!channel> <@U1> [a](https://evil.test) **b** `c` "q" \\ \n\u202e</at>&amp;<b>'


def result(
    name: str, verdict: Verdict | None = Verdict.PASS, ratio: float | None = None, **more: Any
) -> CaseResult:
    """A judged case of four samples a launch, two launches: 1, 1, 1 and 2 ms; 3, 3, 3 and 4 ms."""
    case = Case(
        id=name,
        model=name.split("/")[0],
        backend="tensorrt",
        precision="fp16",
        shape={"b": 8},
        mode=Mode(drive="graph"),
        tolerance=Tolerance(ignore=0.005, catch=0.02),
        slo=Slo(engine_p99_ms=1.5),
    )
    interval = None if ratio is None else Interval(estimate=ratio, low=ratio, high=ratio, confidence=0.95)
    judgement = None
    if verdict is not None:
        judgement = Judgement(
            verdict=verdict, reason=more.pop("reason", "as it is"), ratio=interval, base=more.pop("base", {})
        )
    outcome: Outcome = more.pop("outcome", None) or measured()
    return CaseResult(case=case, outcome=outcome, judgement=judgement)


def measured() -> Measured:
    facts = EngineFacts(
        digest="a" * 64, engine_bytes=51_000_000, build_ns=45_000_000_000, device_memory_bytes=1 << 24
    )
    return Measured(engine=facts, launches=(_launch(1, slowdowns=("sw_power_cap",)), _launch(3)))


def _launch(ms: int, slowdowns: tuple[str, ...] = ()) -> Launch:
    ns = ms * 1_000_000
    return Launch(
        samples_ns=(ns, ns, ns, ns + 1_000_000),
        wall_ns=4 * ns,
        load_ns=1,
        first_inference_ns=1,
        telemetry=Telemetry(slowdowns=slowdowns),
    )


def run(*cases: CaseResult, created: str = "2026-11-22T02:00:00Z", **more: Any) -> RunResult:
    fields: dict[str, Any] = {
        "run_id": "run-1",
        "environment": Environment(device="nvidia-h200", toolchain="tensorrt-8.5.3.1", key={}),
        "summary": Summary(verdict=Verdict.PASS, exit_code=0, sentence="ok"),
        "commit": Commit(sha="c" * 40),
        **more,
    }
    return RunResult(
        schema=RESULTS_SCHEMA,
        created=created,
        perfgate="0.1.0",
        protocol=Protocol(),
        cases=cases,
        **fields,
    )


@dataclass
class Answer:
    """One answer of the service; `hang_s` comes before it."""

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    hang_s: float = 0.0


@dataclass
class Chat:
    """A service: what it was sent, and what it will answer (the last answer for ever)."""

    url: str
    answers: list[Answer]
    paths: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)


@contextmanager
def chat(*answers: Answer) -> Iterator[Chat]:
    state = Chat(url="", answers=list(answers) or [Answer()])

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            state.paths.append(self.path)
            state.headers.append({key.lower(): value for key, value in self.headers.items()})
            state.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            answer = state.answers.pop(0) if len(state.answers) > 1 else state.answers[0]
            if answer.hang_s and state.stop.wait(answer.hang_s):
                return
            self.send_response(answer.status)
            for key, value in answer.headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        state.stop.set()
        server.shutdown()
        server.server_close()
        thread.join()
