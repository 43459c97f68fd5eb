"""The GPU of a device setting: by NVML, without a CUDA context; by `nvidia-smi` where NVML is not there."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

from perfgate.engine.devices import ANY, Device, is_index, open_device, visible_entries, visible_entry
from perfgate.errors import InfrastructureError, UsageError

_SMI_TIMEOUT_S = 20
_chosen = ""


@contextlib.contextmanager
def open_gpu(device: str = "auto") -> Iterator[Device]:
    """The GPU of a device setting, before and after `choose`. Raises as `open_device` does."""
    with open_device("auto" if device == _chosen else device) as found:
        yield found


def device_name(device: str = "auto") -> str | None:
    """The name of what CUDA runs on, such as `NVIDIA H200 MIG 1g.18gb`, or None where there is none.

    Raises `UsageError` where CUDA might take another GPU.
    """
    found = _ask(device, lambda opened: str(opened.nvml.nvmlDeviceGetName(opened.handle)))
    return found or _smi("name", device)


def visible_count() -> int:
    """How many GPUs CUDA may use here: all, or those that CUDA_VISIBLE_DEVICES names."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len(visible_entries(visible))
    return int(_ask("auto", lambda opened: opened.nvml.nvmlDeviceGetCount()) or 0)


def device_uuid(device: str = "auto") -> str:
    """The physical GPU's UUID, which names its lock: MIG instances share clocks and power. `gpu` where none
    answers."""
    return _ask(device, lambda opened: opened.gpu_uuid) or _smi("uuid", device) or "gpu"


def free_memory_bytes(device: str = "auto") -> int | None:
    """Free device memory in bytes, or None where it cannot be read."""
    found = _ask(device, lambda opened: opened.nvml.nvmlDeviceGetMemoryInfo(opened.handle).free)
    if found is not None:
        return int(found)
    text = _smi("memory.free", device)
    number = text.split()[0] if text else ""
    return int(number) << 20 if number.isdigit() else None


def compute_capability(device: str = "auto") -> tuple[int, int] | None:
    """(9, 0) for an H200; None where it cannot be read."""
    found = _ask(device, lambda opened: opened.nvml.nvmlDeviceGetCudaComputeCapability(opened.gpu))
    return None if found is None else (int(found[0]), int(found[1]))


def choose(device: str) -> None:
    """Make the GPU of a device setting CUDA's only device in this process: the one that is named, locked and
    watched. For child processes, before CUDA starts. Raises `UsageError` as `open_device` does.

    Where NVML does not answer, CUDA is made to count as `nvidia-smi` does.
    """
    global _chosen
    if _chosen == device:
        return
    found = _ask(device, lambda opened: opened.uuid)
    if found is not None or device not in ANY:
        os.environ["CUDA_VISIBLE_DEVICES"] = found or _entry(device)
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    _chosen = device


def _ask(device: str, question: Callable[[Device], Any]) -> Any | None:
    try:
        with open_gpu(device) as opened:
            return question(opened)
    except UsageError:
        raise
    except Exception:  # no binding, no driver, no permission
        return None


def _smi(field: str, device: str) -> str | None:
    entry = _entry(device)
    if not entry:
        return None
    try:
        argv = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader", f"--id={entry}"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_SMI_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip().splitlines()[0].strip() if done.stdout.strip() else None


def _entry(device: str) -> str:
    """The index or UUID of a device setting, as it is written; empty where nothing is visible."""
    if not is_index(device) and device not in ANY:
        return device
    number = int(device) if is_index(device) and device != _chosen else 0
    try:
        return str(visible_entry(number, os.environ.get("CUDA_VISIBLE_DEVICES")))
    except InfrastructureError:
        return ""
