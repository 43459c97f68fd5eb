"""Facts about the host's processor, for recipes and the environment."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

_FIELDS = ("model name", "cpu family", "model", "stepping")


def cpu_name() -> str:
    """The processor as `/proc/cpuinfo` has it, with family, model and stepping where the name is vague."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    found = {key: value.strip() for key, value in re.findall(r"^([\w ]+?)\s*:\s*(.*)$", text, re.M)}
    name = found.get("model name") or platform.machine()
    numbers = "-".join(found[key] for key in _FIELDS[1:] if key in found)
    return f"{name} ({numbers})" if numbers else name


def cpu_count() -> int:
    """The processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
