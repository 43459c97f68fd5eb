"""Child processes: each has a timeout, its own process group, bounded output, and is always reaped.

The protocol between perfgate and its own children is small. `call_child` writes a request (one record as
JSON) into a private folder and starts `python -m MODULE REQUEST REPLY`; the child's `serve` decodes the
request, works, and writes the reply atomically: `{"result": …}`, or `{"error": …, "fix": …}` for a failure
that it can name. Whatever it prints is not the reply; the end of its stderr is kept for the error message.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeVar

import msgspec

from perfgate.errors import CaseError, DataError, InfrastructureError, PerfgateError
from perfgate.records import Record
from perfgate.util.files import read_bytes, write_bytes
from perfgate.util.interpreter import HERE, Interpreter

if TYPE_CHECKING:
    from perfgate.util.observe import Observer

T = TypeVar("T")

REPLY_LIMIT_BYTES = 64 << 20
TAIL_BYTES = 4_000
OUTPUT_LIMIT_BYTES = 32 << 20
_POLL_S = 0.02
_LINE = 300  # characters of the last line of stderr that a message takes


class Finished(Record):
    """How a child ended. `returncode` is negative for a signal, as in `subprocess`."""

    returncode: int
    stdout_tail: str
    stderr_tail: str
    timed_out: bool = False
    flooded: bool = False
    seconds: float = 0.0

    @property
    def failure(self) -> str | None:
        """Why the child failed, in words, or None."""
        if self.timed_out:
            return f"did not end within its {self.seconds:.0f} s and was stopped"
        if self.flooded:
            return f"printed more than {OUTPUT_LIMIT_BYTES >> 20} MiB and was stopped"
        if self.returncode < 0:
            return f"was killed by {signal_name(-self.returncode)}"
        return f"ended with exit code {self.returncode}" if self.returncode else None

    @property
    def last_words(self) -> str:
        """Why a child failed, with the last line that it wrote to stderr where it ended by itself: of a
        traceback that is the exception."""
        lines = self.stderr_tail.strip().splitlines() if self.returncode > 0 else []
        return f"{self.failure}: {lines[-1].strip()[:_LINE]}" if lines else str(self.failure)

    @property
    def signal(self) -> str:
        """The signal that ended it, where it was not ours."""
        ours = self.timed_out or self.flooded or self.returncode >= 0
        return "" if ours else signal_name(-self.returncode)


_PARENT = "PERFGATE_PARENT_PID"

# What a child may keep of our environment: where programs and libraries are, never tokens.
_KEPT = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "LANG", "LC_ALL", "TZ", "SYSTEMROOT", "VIRTUAL_ENV")


def package_environment() -> dict[str, str]:
    """Our environment, with this very perfgate importable in a child (also from a plain checkout)."""
    return HERE.environment()


def given_variables(more: Sequence[str] = ()) -> dict[str, str]:
    """Our variables that code that is not ours gets: the usual ones, and those that are asked for by name."""
    return {key: value for key, value in package_environment().items() if key in (*_KEPT, *more)}


def scrubbed_environment(*, home: Path, more: Sequence[str] = ()) -> dict[str, str]:
    """The environment for code that is not ours: no secrets but what is asked for by name (`more`), `home` as
    its home and temporary folder."""
    return {
        **given_variables(more),
        "HOME": str(home),
        "TMPDIR": str(home),
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def call_child(
    module: str,
    request: Record,
    result: type[T],
    *,
    timeout_s: float,
    python: Interpreter = HERE,
    heard: Callable[[str], None] | None = None,
) -> T:
    """Run one request in a fresh process, of `python`, and return its result. `heard` is as in `run_child`.

    Raises `CaseError` when the child crashes, hangs, answers garbage or reports a failure of its own, and
    `InfrastructureError` when it says that the machine is at fault.
    """
    with tempfile.TemporaryDirectory(prefix="perfgate-call-") as name:
        question, answer = Path(name) / "request.json", Path(name) / "reply.json"
        question.write_bytes(msgspec.json.encode(request))
        with python.argv(module, Path(name)) as argv:
            child = run_child(
                [*argv, question, answer],
                timeout_s=timeout_s,
                env={**python.environment(), _PARENT: str(os.getpid())},
                heard=heard,
            )
        if child.failure:
            raise CaseError(
                f"the process {child.last_words}", stderr_tail=child.stderr_tail, kind=child.signal
            )
        try:
            reply = msgspec.json.decode(read_bytes(answer, limit_bytes=REPLY_LIMIT_BYTES), type=_Reply)
            if reply.error and reply.infrastructure:
                raise InfrastructureError(reply.error, fix=reply.fix or None)
            if reply.error:
                tail = "\n".join(part for part in (reply.tail, child.stderr_tail) if part)
                raise CaseError(
                    reply.error, stderr_tail=tail[-TAIL_BYTES:], fix=reply.fix or None, kind=reply.kind
                )
            return msgspec.json.decode(reply.result, type=result)
        except (msgspec.MsgspecError, UnicodeDecodeError, DataError) as error:
            raise CaseError(
                f"the process answered garbage: {error}", stderr_tail=child.stderr_tail
            ) from error


def serve(request: type[T], work: Callable[[T], Record]) -> None:
    """The child's side of `call_child`: decode, work, reply. An unforeseen error is a traceback on stderr."""
    die_with_parent()
    question = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=request)
    try:
        reply = _Reply(result=msgspec.Raw(msgspec.json.encode(work(question))))
    except PerfgateError as error:
        reply = _Reply(
            error=error.what,
            fix=error.fix or "",
            infrastructure=isinstance(error, InfrastructureError),
            kind=type(error).__name__,
            tail=getattr(error, "stderr_tail", ""),
        )
    write_bytes(Path(sys.argv[2]), msgspec.json.encode(reply))


class _Reply(Record):
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: str = ""
    fix: str = ""
    infrastructure: bool = False
    kind: str = ""
    tail: str = ""


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies (Linux); called first thing in a child."""
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.environ.get(_PARENT, str(os.getppid())) != str(os.getppid()):
        os._exit(1)  # it died while we were starting


def signal_name(number: int) -> str:
    """`SIGSEGV` for 11, and so on."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def run_child(
    argv: Sequence[str | Path],
    *,
    timeout_s: float,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    heard: Callable[[str], None] | None = None,
    observer: Observer | None = None,
    stdout_bytes: int = TAIL_BYTES,
) -> Finished:
    """Run a child to its end and return how it ended; never raises for what the child does. Meanwhile `heard`
    is given, many times a second, the lines that are new on its standard error, which may be none. `observer`
    sees what a child reads that asks for it; it is to be finished by the caller. Of the child's standard
    output the last `stdout_bytes` are kept.

    The child gets a process group of its own. Timeout, flood, and any exception here (Ctrl-C) kill the whole
    group and reap it.
    """
    started = time.monotonic()
    variables = None if env is None else dict(env)
    if observer:
        variables = {**(os.environ if variables is None else variables), **observer.variables()}
    limit = max(OUTPUT_LIMIT_BYTES, stdout_bytes)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            [str(part) for part in argv],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env=variables,
            cwd=cwd,
            start_new_session=True,
            pass_fds=observer.descriptors() if observer else (),
        )
        if observer:
            observer.start()
        timed_out = flooded = False
        lines = _NewLines(err.fileno())
        try:
            while process.poll() is None:
                timed_out = time.monotonic() - started > timeout_s
                flooded = max(os.fstat(f.fileno()).st_size for f in (out, err)) > limit
                if timed_out or flooded:
                    break
                if heard is not None:
                    heard(lines.read())
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_POLL_S)
        finally:
            kill_group(process)
        return Finished(
            returncode=process.returncode,
            stdout_tail=_tail(out, stdout_bytes),
            stderr_tail=_tail(err, TAIL_BYTES),
            timed_out=timed_out,
            flooded=flooded,
            seconds=time.monotonic() - started,
        )


class _NewLines:
    """The whole lines that a child has written to a file since the last look, of which the last few thousand
    bytes are enough. By `pread`: the child writes at the same offset."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._seen = descriptor, 0

    def read(self) -> str:
        size = os.fstat(self._descriptor).st_size
        start = max(self._seen, size - TAIL_BYTES)
        text = os.pread(self._descriptor, size - start, start)
        whole = text[: text.rfind(b"\n") + 1]
        self._seen = start + len(whole)
        return whole.decode(errors="replace")


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the child's process group and reap the child."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _tail(stream: IO[bytes], most_bytes: int) -> str:
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - most_bytes))
    return stream.read(most_bytes).decode(errors="replace").strip()
