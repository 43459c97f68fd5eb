"""Facts about the host's processor, for recipes and the environment."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


def gpu_names() -> list[str]:
    """The visible NVIDIA GPUs' names in CUDA's order, empty where there are none. Makes no context."""
    return _visible_gpus(lambda pynvml, handle: pynvml.nvmlDeviceGetName(handle))


def gpu_uuid(device: str) -> str:
    """The UUID of the GPU that a device setting names (`auto` is the first); `gpu` where none answers."""
    if device.startswith(("GPU-", "MIG-")):
        return device
    uuids = _visible_gpus(lambda pynvml, handle: pynvml.nvmlDeviceGetUUID(handle))
    index = int(device) if device.isdigit() else 0
    return uuids[index] if index < len(uuids) else "gpu"


def _visible_gpus(read: Callable[[Any, Any], Any]) -> list[str]:
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # no driver, no library, no permission: no GPU for us
        return []
    try:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        if visible is None:
            handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        else:
            handles = [_handle(pynvml, word.strip()) for word in visible.split(",") if word.strip()]
        return [str(read(pynvml, handle)) for handle in handles]
    except Exception:
        return []
    finally:
        pynvml.nvmlShutdown()


def _handle(pynvml: Any, word: str) -> Any:
    if word.isdigit():
        return pynvml.nvmlDeviceGetHandleByIndex(int(word))
    return pynvml.nvmlDeviceGetHandleByUUID(word)
