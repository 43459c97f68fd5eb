from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from perfgate.errors import CaseError
from perfgate.records import Protocol
from perfgate.util import process as children
from perfgate.util.interpreter import PACKAGE
from perfgate.util.process import Finished, call_child, package_environment, run_child, scrubbed_environment

LONG_S = 60.0


def python(code: str, timeout_s: float = LONG_S) -> Finished:
    return run_child([sys.executable, "-c", code], timeout_s=timeout_s)


def gone(pid: int) -> bool:
    """Is the process dead (a zombie that nobody has reaped counts as dead)?"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def eventually(true: Callable[[], bool], *, within_s: float = 20) -> bool:
    limit = time.monotonic() + within_s
    while not true():
        if time.monotonic() > limit:
            return False
        threading.Event().wait(0.01)
    return True


def test_a_child_that_ends_well() -> None:
    child = python("import sys; print('out'); print('err', file=sys.stderr)")
    assert (child.failure, child.returncode) == (None, 0)
    assert (child.stdout_tail, child.stderr_tail) == ("out", "err")


def test_what_a_child_says_is_heard_line_by_line_while_it_runs(tmp_path: Path) -> None:
    go_on = tmp_path / "go-on"
    code = (
        "import os, sys\n"
        "print('first', file=sys.stderr, flush=True)\n"
        "sys.stderr.write('half a '); sys.stderr.flush()\n"
        f"while not os.path.exists({str(go_on)!r}): pass\n"
        "print('line', file=sys.stderr, flush=True)\n"
        "sys.stdin.read()\n"
        f"while os.path.exists({str(go_on)!r}): pass\n"
    )
    lines: list[str] = []

    def heard(text: str) -> None:
        lines.extend(text.splitlines())
        if lines == ["first"]:
            go_on.touch()
        if lines == ["first", "half a line"]:
            go_on.unlink(missing_ok=True)

    child = run_child([sys.executable, "-c", code], timeout_s=LONG_S, env=package_environment(), heard=heard)
    assert (child.failure, lines) == (None, ["first", "half a line"])
    assert child.stderr_tail == "first\nhalf a line"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise SystemExit(3)", "exit code 3"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
        ("import os; os.abort()", "SIGABRT"),
    ],
)
def test_a_child_that_fails_says_how(code: str, words: str) -> None:
    child = python(code)
    assert child.failure is not None
    assert words in child.failure
    assert child.last_words == child.failure


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise ValueError('no weights')", "ended with exit code 1: ValueError: no weights"),
        ("raise SystemExit('x' * 1000)", f"ended with exit code 1: {'x' * 300}"),
        (
            "import os, sys; print('alive', file=sys.stderr, flush=True); os.kill(os.getpid(), 9)",
            "was killed by SIGKILL",
        ),
    ],
)
def test_the_last_words_are_the_last_line_of_a_child_that_ended_by_itself(code: str, words: str) -> None:
    assert python(code).last_words == words


FAMILY = """
import os, subprocess, sys, threading
WAIT = "import threading; print(1, flush=True); threading.Event().wait()"
child = subprocess.Popen([sys.executable, "-c", WAIT],
                         stdout=subprocess.PIPE)
child.stdout.readline()
open({path!r} + ".part", "w").write(f"{{os.getpid()}} {{child.pid}}")
os.rename({path!r} + ".part", {path!r})
{then}
"""
WAIT = "threading.Event().wait()"


@pytest.mark.parametrize("then", [WAIT, "raise SystemExit(0)", "os.abort()"])
def test_no_grandchild_outlives_the_child(tmp_path: Path, then: str) -> None:
    path = tmp_path / "pids"
    child = python(FAMILY.format(path=str(path), then=then), timeout_s=5 if then == WAIT else LONG_S)
    assert child.timed_out == (then == WAIT)
    parent, grandchild = map(int, path.read_text().split())
    assert gone(parent)
    assert eventually(lambda: gone(grandchild))


def test_a_child_that_hangs_is_stopped_after_its_time() -> None:
    started = time.monotonic()
    child = python("import signal, threading; signal.signal(15, lambda *_: 0); " + WAIT, timeout_s=0.5)
    assert child.timed_out
    assert "did not end within" in str(child.failure)
    assert time.monotonic() - started < 30


def test_a_flood_of_output_is_stopped_and_only_its_end_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "OUTPUT_LIMIT_BYTES", 1 << 20)
    child = python("import sys\nwhile True: sys.stdout.write('x' * 65536)")
    assert child.flooded
    assert "printed more than 1 MiB" in str(child.failure)
    assert len(child.stdout_tail) <= children.TAIL_BYTES


def test_output_that_is_not_text_is_shown_as_far_as_it_goes() -> None:
    child = python("import sys; sys.stderr.buffer.write(b'\\xff\\xfe end')")
    assert child.stderr_tail.endswith("end")


def test_a_child_reads_nothing_from_our_standard_input() -> None:
    assert python("import sys; print(repr(sys.stdin.read()))").stdout_tail == "''"


INTERRUPTED = """
import sys
from perfgate.util.process import run_child
try:
    run_child([sys.executable, "-c", sys.argv[1]], timeout_s=600)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_child_outlives_us(tmp_path: Path, number: int) -> None:
    """Ctrl-C is passed on after the children are dead; a child of perfgate dies with its parent anyhow."""
    path = tmp_path / "pids"
    code = "from perfgate.util.process import die_with_parent\ndie_with_parent()\n" + FAMILY.format(
        path=str(path), then=WAIT
    )
    ours = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, code],
        env=package_environment(),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert eventually(path.exists)
        os.kill(ours.pid, number)
        out, _ = ours.communicate(timeout=30)
        child, grandchild = map(int, path.read_text().split())
        assert eventually(lambda: gone(child))
        if number == signal.SIGINT:
            assert out.strip() == "interrupted"
            assert eventually(lambda: gone(grandchild))
    finally:
        ours.kill()
        ours.wait()
        if path.exists():
            for pid in map(int, path.read_text().split()):
                if not gone(pid):
                    os.kill(pid, signal.SIGKILL)


SERVE = """
from perfgate.util.process import serve
from perfgate.errors import CaseError, InfrastructureError
from perfgate.records import Protocol, Tolerance
import os, sys
def work(request):
    {body}
serve(Protocol, work)
"""


def ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, timeout_s: float = LONG_S, module: str = SERVE
) -> Protocol:
    name = f"served_{abs(hash(tmp_path)) % 10**9}"
    (tmp_path / f"{name}.py").write_text(module.format(body=body))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return call_child(name, Protocol(launches=7), Protocol, timeout_s=timeout_s)


def test_a_request_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = ask(tmp_path, monkeypatch, "print('noise'); return Protocol(launches=request.launches + 1)")
    assert answer == Protocol(launches=8)


def test_an_error_that_the_child_can_name_comes_back_with_its_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = "print('detail', file=sys.stderr); raise CaseError('does not build', fix='mend it')"
    with pytest.raises(CaseError, match="does not build") as caught:
        ask(tmp_path, monkeypatch, body)
    assert caught.value.fix == "mend it"
    assert "detail" in caught.value.stderr_tail


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise RuntimeError('surprise')", "exit code 1: RuntimeError: surprise$"),
        ("os.abort()", "SIGABRT"),
        ("os._exit(0)", "garbage"),
        ("return Tolerance(ignore=1, catch=2)", "garbage"),
    ],
)
def test_a_crash_and_a_wrong_answer_are_the_cases_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, words: str
) -> None:
    with pytest.raises(CaseError, match=words) as caught:
        ask(tmp_path, monkeypatch, body)
    assert caught.value.kind == ("SIGABRT" if "abort" in body else "CaseError")
    if "surprise" in body:
        assert "surprise" in caught.value.stderr_tail


GARBAGE = "import os, sys\n{body}\n"


@pytest.mark.parametrize(
    "answer",
    [
        "b''",
        "b'garbage'",
        "b'\\xff'",
        "b'[]'",
        "b'{{\"result\": 1'",
        "b'{{\"surprise\": 1}}'",
        "b'[' * 100000",
    ],
)
def test_a_garbage_reply_is_the_cases_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    body = f"open(sys.argv[2], 'wb').write({answer})".replace("{{", "{").replace("}}", "}")
    with pytest.raises(CaseError, match="garbage"):
        ask(tmp_path, monkeypatch, body, module=GARBAGE)


def test_a_reply_without_end_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CaseError, match="larger than"):
        ask(tmp_path, monkeypatch, "os.truncate(open(sys.argv[2], 'w').name, 1 << 30)", module=GARBAGE)


def test_a_request_that_hangs_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CaseError, match="did not end within"):
        ask(tmp_path, monkeypatch, "import threading; threading.Event().wait()", timeout_s=1, module=GARBAGE)


def test_the_scrubbed_environment_holds_places_and_no_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "hunter2")
    monkeypatch.setenv("SSH_AUTH_SOCK", "/hunter2")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/lib")
    environment = scrubbed_environment(home=tmp_path)
    assert "hunter2" not in str(environment)
    assert environment["LD_LIBRARY_PATH"] == "/opt/lib"
    assert environment["HOME"] == environment["TMPDIR"] == str(tmp_path)
    assert environment["PATH"] == os.environ["PATH"]


def test_a_child_finds_this_very_package_from_anywhere(tmp_path: Path) -> None:
    code = "import perfgate; print(perfgate.__file__)"
    child = run_child(
        [sys.executable, "-c", code], timeout_s=LONG_S, env=scrubbed_environment(home=tmp_path), cwd=tmp_path
    )
    assert Path(child.stdout_tail).parent == PACKAGE
