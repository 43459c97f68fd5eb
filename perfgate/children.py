"""Child processes: each has a timeout, its own process group, bounded output, and is always reaped."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from perfgate.records import Record

TAIL_BYTES = 4_000
OUTPUT_LIMIT_BYTES = 32 << 20
_POLL_S = 0.02


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


def signal_name(number: int) -> str:
    """`SIGSEGV` for 11, and so on."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def run_child(
    argv: Sequence[str | Path], *, timeout_s: float, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Finished:
    """Run a child to its end and return how it ended; never raises for what the child does.

    The child gets a process group of its own. Timeout, flood, and any exception here (Ctrl-C) kill the
    whole group and reap it.
    """
    started = time.monotonic()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            [str(part) for part in argv],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env=None if env is None else dict(env),
            cwd=cwd,
            start_new_session=True,
        )
        timed_out = flooded = False
        try:
            while process.poll() is None:
                timed_out = time.monotonic() - started > timeout_s
                flooded = max(os.fstat(f.fileno()).st_size for f in (out, err)) > OUTPUT_LIMIT_BYTES
                if timed_out or flooded:
                    break
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_POLL_S)
        finally:
            kill_group(process)
        return Finished(
            returncode=process.returncode,
            stdout_tail=_tail(out),
            stderr_tail=_tail(err),
            timed_out=timed_out,
            flooded=flooded,
            seconds=time.monotonic() - started,
        )


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the child's process group and reap the child."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _tail(stream: IO[bytes]) -> str:
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - TAIL_BYTES))
    return stream.read(TAIL_BYTES).decode(errors="replace").strip()
