"""What a job tells its runner through files: the summary and the outputs."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from perfgate.errors import OutputError, UsageError

# Above 1 MiB GitHub drops the whole summary of a step, not its end.
SUMMARY_LIMIT_BYTES: Final = (1 << 20) - (4 << 10)
_CUT = "\n\nThe rest did not fit GitHub's limit of 1 MiB; the report artifact has everything.\n"


def add_summary(path: Path, text: str) -> None:
    """Append to the job's summary what still fits, in whole lines, and say so where something does not."""
    before = path.stat().st_size if path.exists() else 0
    room = SUMMARY_LIMIT_BYTES - before
    data = text.encode()
    if len(data) > room:
        head = data[: max(0, room - len(_CUT.encode()))].decode(errors="ignore")
        data = (head[: head.rfind("\n") + 1] + _CUT).encode()
        if len(data) > room:
            return
    _append(path, data)


def set_outputs(path: Path, values: Mapping[str, str]) -> None:
    """Write step outputs, each with a delimiter that no value can hold."""
    lines = []
    for name, value in values.items():
        if not re.fullmatch(r"[a-z][a-z0-9_-]{0,60}", name):
            raise UsageError(f"is not an output's name: {name!r}", where="GITHUB_OUTPUT")
        fence = f"perfgate_{secrets.token_hex(16)}"
        lines.append(f"{name}<<{fence}\n{value}\n{fence}\n")
    _append(path, "".join(lines).encode())


def _append(path: Path, data: bytes) -> None:
    try:
        with path.open("ab") as sink:
            sink.write(data)
    except OSError as error:
        raise OutputError(f"cannot be written: {error.strerror}", where=path) from error
