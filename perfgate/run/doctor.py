"""What this machine can do, and why not more: each finding with its remedy."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from perfgate.engine.host import cpu_count, cpu_name
from perfgate.errors import PerfgateError
from perfgate.records import Record
from perfgate.settings import Settings
from perfgate.util.files import STORE_FIX
from perfgate.util.git import find_git

_DISK_BYTES = 10 << 30


class Finding(Record):
    """One line of the doctor's report. `remedy` is empty where all is well."""

    subject: str
    state: Literal["ok", "note", "broken"]
    text: str
    remedy: str = ""


def examine(settings: Settings) -> list[Finding]:
    """All findings on this machine. Imports GPU libraries, but makes no CUDA context."""
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (
        _host,
        _onnxruntime,
        _gpu,
        _tensorrt,
        lambda: _store(settings),
        lambda: _disk(settings),
        lambda: _locks(),
        lambda: _baselines(settings),
    )
    return [finding for check in checks for finding in check()]


def _host() -> Iterator[Finding]:
    yield Finding(
        subject="host",
        state="ok",
        text=f"{cpu_name()}, {cpu_count()} CPUs, Python {platform.python_version()}",
    )
    if find_git() is None:
        yield Finding(
            subject="git",
            state="note",
            text="not found: results carry no commit",
            remedy="install git, or set PATH",
        )


def _onnxruntime() -> Iterator[Finding]:
    try:
        import onnxruntime
    except ImportError as error:
        yield Finding(
            subject="ONNX Runtime",
            state="note",
            text=f"not importable: {error}",
            remedy="pip install 'perfgate[cpu]', or 'perfgate[gpu]' on a machine with an NVIDIA GPU",
        )
        return
    providers = [name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers()]
    yield Finding(
        subject="ONNX Runtime",
        state="ok",
        text=f"{onnxruntime.__version__}, providers {', '.join(providers)}",
    )


def _gpu() -> Iterator[Finding]:
    if importlib.util.find_spec("pynvml") is None:
        yield Finding(
            subject="GPU",
            state="note",
            text="not looked for: nvidia-ml-py is not installed",
            remedy="pip install nvidia-ml-py (it comes with 'perfgate[tensorrt]' and 'perfgate[gpu]')",
        )
        return
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        yield Finding(
            subject="GPU",
            state="note",
            text=f"no NVIDIA driver answers: {error}",
            remedy="on a GPU machine: install the driver; in a container: run it with --gpus all",
        )
        return
    try:
        driver = pynvml.nvmlSystemGetDriverVersion()
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
            free = f"{memory.free >> 20} of {memory.total >> 20} MiB free"
            name = pynvml.nvmlDeviceGetName(handle)
            yield Finding(subject=f"GPU {index}", state="ok", text=f"{name}, driver {driver}, {free}")
    except pynvml.NVMLError as error:
        yield Finding(
            subject="GPU",
            state="broken",
            text=f"the driver fails: {error}",
            remedy="see nvidia-smi and dmesg",
        )
    finally:
        pynvml.nvmlShutdown()


def _tensorrt() -> Iterator[Finding]:
    for module, name in (("tensorrt", "TensorRT"), ("pycuda", "PyCUDA")):
        try:
            found = importlib.import_module(module)
        except Exception as error:  # a half-installed TensorRT raises what it likes
            yield Finding(
                subject=name,
                state="note",
                text=f"not importable: {error}",
                remedy="run inside an nvcr.io/nvidia/tensorrt image, or pip install 'perfgate[tensorrt]'",
            )
            continue
        version = getattr(found, "__version__", None) or importlib.metadata.version(module)
        yield Finding(subject=name, state="ok", text=str(version))


def _store(settings: Settings) -> Iterator[Finding]:
    """Engines and models go into the store; nothing is made to find out whether they can."""
    folder = settings.path("store").resolve()
    there = _existing(folder)
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        yield Finding(subject="store", state="ok", text=str(folder))
    else:
        why = "cannot be written to" if there.is_dir() else "is not a folder"
        yield Finding(subject="store", state="broken", text=f"{there} {why}", remedy=STORE_FIX)


def _existing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    return next(path for path in (folder, *folder.parents) if os.access(path, os.F_OK))


def _disk(settings: Settings) -> Iterator[Finding]:
    folder = _existing(settings.path("store").resolve())
    free = shutil.disk_usage(folder).free
    enough = free >= _DISK_BYTES
    yield Finding(
        subject="disk",
        state="ok" if enough else "note",
        text=f"{free >> 30} GiB free at {folder}",
        remedy="" if enough else "engines and models need room: free some, or lower engine_cache_mib",
    )


def _locks() -> Iterator[Finding]:
    from perfgate.measure.lock import is_private_lock_dir, lock_dir

    try:
        folder = lock_dir()
    except PerfgateError as error:
        text = f"{error.where}: {error.what}"
        yield Finding(subject="lock", state="broken", text=text, remedy=error.fix or "")
        return
    advice = is_private_lock_dir()
    yield Finding(
        subject="lock",
        state="note" if advice else "ok",
        text="private to this container" if advice else f"one benchmark a device, by {folder}",
        remedy=advice or "",
    )


def _baselines(settings: Settings) -> Iterator[Finding]:
    root = settings.path("baselines")
    stored = sorted(str(path.parent.relative_to(root)) for path in root.glob("*/*/*.json"))
    if stored:
        yield Finding(subject="baselines", state="ok", text=f"stored for {', '.join(dict.fromkeys(stored))}")
    else:
        yield Finding(
            subject="baselines",
            state="note",
            text=f"none in {root}: every case will be NEW",
            remedy='perfgate run, then perfgate promote perfgate-out/results.json --reason "first baseline"',
        )
