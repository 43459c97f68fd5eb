"""The visible GPU through NVML, without a CUDA context; `nvidia-smi` where NVML's binding is absent."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from typing import Any

_SMI_TIMEOUT_S = 20
_ANY = ("auto", "gpu")
_chosen = ""


def device_name(device: str = "auto") -> str | None:
    """The GPU's name, such as `NVIDIA H200`, or None where there is none."""

    def name(pynvml: Any, handle: Any) -> str:
        found = pynvml.nvmlDeviceGetName(handle)
        return found.decode() if isinstance(found, bytes) else str(found)

    return _ask(device, name) or _smi("name", device)


def visible_count() -> int:
    """How many GPUs CUDA may use here: all, or those that CUDA_VISIBLE_DEVICES names."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([word for word in visible.split(",") if word.strip()])
    found = _ask("auto", lambda pynvml, _: pynvml.nvmlDeviceGetCount())
    return int(found or 0)


def device_uuid(device: str = "auto") -> str:
    """The GPU's UUID, which names its lock; `gpu` where none answers."""

    def uuid(pynvml: Any, handle: Any) -> str:
        return str(pynvml.nvmlDeviceGetUUID(handle))

    return _ask(device, uuid) or _smi("uuid", device) or "gpu"


def free_memory_bytes(device: str = "auto") -> int | None:
    """Free device memory in bytes, or None where it cannot be read."""
    found = _ask(device, lambda pynvml, handle: pynvml.nvmlDeviceGetMemoryInfo(handle).free)
    if found is not None:
        return int(found)
    text = _smi("memory.free", device)
    number = text.split()[0] if text else ""
    return int(number) << 20 if number.isdigit() else None


def compute_capability(device: str = "auto") -> tuple[int, int] | None:
    """(9, 0) for an H200; None where it cannot be read."""
    found = _ask(device, lambda pynvml, handle: pynvml.nvmlDeviceGetCudaComputeCapability(handle))
    return None if found is None else (int(found[0]), int(found[1]))


def selected(device: str = "auto") -> str:
    """The index or UUID of the GPU that CUDA's device 0 is, given `--device` and CUDA_VISIBLE_DEVICES.

    Empty where nothing is visible. An index counts in PCI order, as NVML does; on a host with mixed GPUs
    CUDA agrees only under CUDA_DEVICE_ORDER=PCI_BUS_ID, which `choose` sets.
    """
    if not device.isdigit() and device not in _ANY:
        return device
    number = int(device) if device.isdigit() else 0
    if _chosen == device:
        return os.environ["CUDA_VISIBLE_DEVICES"]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return str(number)
    words = [word.strip() for word in visible.split(",")]
    return words[number] if number < len(words) else ""


def choose(device: str) -> None:
    """Make `--device` CUDA's only device in this process. For child processes, before CUDA starts."""
    global _chosen
    if device in _ANY or _chosen == device:
        return
    os.environ["CUDA_VISIBLE_DEVICES"] = selected(device)
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    _chosen = device


def _ask(device: str, question: Callable[[Any, Any], Any]) -> Any | None:
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # no binding, no driver, no permission
        return None
    try:
        word = selected(device)
        by_index, by_uuid = pynvml.nvmlDeviceGetHandleByIndex, pynvml.nvmlDeviceGetHandleByUUID
        return question(pynvml, by_index(int(word)) if word.isdigit() else by_uuid(word))
    except Exception:
        return None
    finally:
        pynvml.nvmlShutdown()


def _smi(field: str, device: str) -> str | None:
    word = selected(device)
    if not word:
        return None
    try:
        argv = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader", f"--id={word}"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_SMI_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip().splitlines()[0].strip() if done.stdout.strip() else None
