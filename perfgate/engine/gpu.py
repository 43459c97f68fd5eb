"""The GPU of a device setting: by NVML, without a CUDA context; by `nvidia-smi` where NVML is not there."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from perfgate.errors import InfrastructureError, UsageError

ANY = ("auto", "gpu")
"""The device settings that leave the GPU to CUDA: its device 0."""

# What "this machine does not offer it" looks like; a GPU that was lost, or a time-out, is something else.
_ABSENT = {
    3: "not supported by this device",
    4: "needs more permissions",
    6: "not found",
    13: "not known to this driver",
    25: "not in a version known to this driver",
    26: "no longer supported by this driver",
}


@dataclass(frozen=True)
class Device:
    """An open device. `handle` is what CUDA runs on, a GPU or a MIG instance; `gpu` is the physical GPU,
    which owns clocks, power and temperature. `gpu_uuid` names the lock: instances share a GPU's power."""

    nvml: Any
    handle: Any
    gpu: Any
    uuid: str
    gpu_uuid: str


class Reader:
    """Makes NVML calls. What cannot be read is None and has its reason in `unavailable`.

    `strict` raises `InfrastructureError` for a failure that is not "this machine does not offer it".
    """

    def __init__(self, nvml: Any, *, strict: bool = False) -> None:
        self.unavailable: dict[str, str] = {}
        self._nvml = nvml
        # nvidia-ml-py raises it, as no NVMLError, for a call that is newer than the driver.
        self._mismatch: Any = getattr(nvml, "NVMLLibraryMismatchError", ())
        self._strict = strict
        self._given_up: set[tuple[str, int]] = set()

    def read(self, field: str, *calls: tuple[Any, ...]) -> Any | None:
        """The answer of the first call `(name, *arguments)` that has one."""
        for choice, (name, *arguments) in enumerate(calls):
            # A machine does not learn to answer while it is watched: a call is refused once.
            if (field, choice) in self._given_up:
                continue
            call = getattr(self._nvml, name, None)
            try:
                if call is None:
                    reason = "not known to the installed nvidia-ml-py"
                else:
                    answer = call(*arguments)
                    self.unavailable.pop(field, None)
                    return answer
            except self._mismatch:
                reason = _ABSENT[13]
            except self._nvml.NVMLError as error:
                code = getattr(error, "value", None)
                if code not in _ABSENT:
                    self._failed(field, name, error)
                    continue
                reason = _ABSENT[code]
            self._given_up.add((field, choice))
            self.unavailable[field] = reason
        return None

    def _failed(self, field: str, name: str, error: Exception) -> None:
        if self._strict:
            raise InfrastructureError(f"NVML could not read {field}: {error}") from error
        self.unavailable[field] = f"{name}: {error}"


@contextlib.contextmanager
def open_device(
    setting: str = "auto", *, nvml: Any = None, env: Mapping[str, str] = os.environ
) -> Iterator[Device]:
    """The device of a setting: `auto`, an index behind `CUDA_VISIBLE_DEVICES`, or a (short) UUID.

    Without that variable an index counts by bus, as `nvidia-smi` does. Raises `InfrastructureError` where
    there is no driver or no such device, and `UsageError` where CUDA might take another GPU.
    """
    if nvml is None:
        nvml = _import_pynvml()
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        raise InfrastructureError(
            f"NVML cannot be used: {error}",
            fix="install the NVIDIA driver, or start the container with --gpus all; `nvidia-smi` must work",
        ) from error
    try:
        try:
            device = _find(nvml, setting, env)
        except nvml.NVMLError as error:
            raise InfrastructureError(f"NVML cannot open device {setting}: {error}") from error
        yield device
    finally:
        with contextlib.suppress(nvml.NVMLError):
            nvml.nvmlShutdown()


def _import_pynvml() -> Any:
    try:
        import pynvml
    except ImportError as error:
        raise InfrastructureError(
            "the Python package nvidia-ml-py is not installed", fix="pip install nvidia-ml-py"
        ) from error
    return pynvml


def visible_entries(visible: str) -> list[int | str]:
    """The entries of `CUDA_VISIBLE_DEVICES`. As in CUDA, the first invalid one hides itself and all that
    follow."""
    entries: list[int | str] = []
    for entry in visible.split(","):
        text = entry.strip()
        if is_index(text):
            entries.append(int(text))
        elif text.startswith(("GPU-", "MIG-")):
            entries.append(text)
        else:
            break
    return entries


def visible_entry(ordinal: int, visible: str | None) -> int | str:
    """What a CUDA ordinal stands for under `CUDA_VISIBLE_DEVICES`: an index, or a (short) UUID.

    Raises `InfrastructureError` where nothing is visible under it.
    """
    if visible is None:
        return ordinal
    entries = visible_entries(visible)
    if not 0 <= ordinal < len(entries):
        raise InfrastructureError(
            f"CUDA_VISIBLE_DEVICES={visible!r} shows {len(entries)} devices: there is no device {ordinal}"
        )
    return entries[ordinal]


def is_index(setting: str) -> bool:
    return setting.isascii() and setting.isdigit()


def _find(nvml: Any, setting: str, env: Mapping[str, str]) -> Device:
    handle = gpu = _handle(nvml, setting, env)
    if _answer(nvml, "nvmlDeviceIsMigDeviceHandle", handle):
        gpu = nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle)
    elif (_answer(nvml, "nvmlDeviceGetMigMode", handle) or [0])[0]:
        # CUDA runs on no GPU that is in MIG mode, but on its first instance.
        handle = next(_instances(nvml, gpu), None)
        if handle is None:
            raise InfrastructureError("the GPU is in MIG mode and has no instance", fix="nvidia-smi mig -cgi")
    return Device(nvml, handle, gpu, nvml.nvmlDeviceGetUUID(handle), nvml.nvmlDeviceGetUUID(gpu))


def _handle(nvml: Any, setting: str, env: Mapping[str, str]) -> Any:
    visible = env.get("CUDA_VISIBLE_DEVICES")
    by_bus = env.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID" or (visible is None and is_index(setting))
    entry: int | str = setting
    if setting in ANY or is_index(setting):
        entry = visible_entry(0 if setting in ANY else int(setting), visible)
    return _by_uuid(nvml, entry) if isinstance(entry, str) else _by_index(nvml, entry, by_bus=by_bus)


def _by_index(nvml: Any, index: int, *, by_bus: bool) -> Any:
    gpus = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
    if not 0 <= index < len(gpus):
        raise InfrastructureError(f"there is no GPU {index}: NVML shows {len(gpus)}")
    if not by_bus and len({nvml.nvmlDeviceGetName(gpu) for gpu in gpus}) > 1:
        # CUDA counts the fastest GPU first, NVML by bus: name, lock and telemetry would be another GPU's.
        raise UsageError(
            "this machine has unlike GPUs, and CUDA numbers them otherwise than NVML",
            fix="name the GPU by its UUID (--device), or export CUDA_DEVICE_ORDER=PCI_BUS_ID",
        )
    return gpus[index]


def _by_uuid(nvml: Any, uuid: str) -> Any:
    try:
        return nvml.nvmlDeviceGetHandleByUUID(uuid)
    except nvml.NVMLError:
        pass  # CUDA also takes the beginning of a UUID
    gpus = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
    instances = [instance for gpu in gpus for instance in _instances(nvml, gpu)]
    found = [h for h in [*gpus, *instances] if nvml.nvmlDeviceGetUUID(h).startswith(uuid)]
    if len(found) != 1:
        raise InfrastructureError(
            f"{len(found)} devices have a UUID that begins with {uuid}", fix="see nvidia-smi -L"
        )
    return found[0]


def _instances(nvml: Any, gpu: Any) -> Iterator[Any]:
    # Numbers have gaps, where an instance was destroyed.
    for index in range(_answer(nvml, "nvmlDeviceGetMaxMigDeviceCount", gpu) or 0):
        instance = _answer(nvml, "nvmlDeviceGetMigDeviceHandleByIndex", gpu, index)
        if instance is not None:
            yield instance


def _answer(nvml: Any, name: str, *arguments: Any) -> Any | None:
    return Reader(nvml, strict=True).read(name, (name, *arguments))


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
