"""What NVML says of a device: who it is, what it did during a launch, and who else was on it.

Every reading survives a machine that does not offer it: it is absent, and `unavailable` says why.
`pynvml` is imported when a device is opened; a test passes an object of its own in its place.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from perfgate.errors import InfrastructureError, UsageError
from perfgate.records import Count, Facts, Record

IDLE_LIMIT_BYTES = 512 << 20
"""Memory in use before our launch above this is somebody's. A driver alone holds less, a CUDA context
with a model more."""

CLOCK_SM, CLOCK_MEMORY = 1, 2
_TEMPERATURE_GPU = 0
_MEMORY_V2 = 0x02000028
# What "this machine does not offer it" looks like; a GPU that was lost, or a time-out, is something else.
_ABSENT = {
    3: "not supported by this device",
    4: "needs more permissions",
    6: "not found",
    13: "not known to this driver",
    25: "not in a version known to this driver",
    26: "no longer supported by this driver",
}
# CUDA cores an SM. NVML counts cores only; a capability that is not here has no SM count.
_CORES_PER_SM = dict.fromkeys(["7.0", "7.2", "7.5", "8.0"], 64) | dict.fromkeys(
    ["8.6", "8.7", "8.9", "9.0", "10.0", "10.1", "10.3", "11.0", "12.0", "12.1"], 128
)


@dataclass(frozen=True)
class Device:
    """An open device. `handle` is what CUDA runs on, a GPU or a MIG instance; `gpu` is the physical GPU,
    which owns clocks, power and temperature. `gpu_uuid` names the lock: instances share a GPU's power."""

    nvml: Any
    handle: Any
    gpu: Any
    uuid: str
    gpu_uuid: str


class Presence(Record):
    """Who is on a device and how much of its memory is in use (bytes), at one moment."""

    pids: tuple[Count, ...] = ()
    used_bytes: Count = 0
    unavailable: Facts = {}


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
    index_or_uuid: int | str = 0, *, nvml: Any = None, env: Mapping[str, str] = os.environ
) -> Iterator[Device]:
    """The device that CUDA calls `index_or_uuid`: an ordinal behind `CUDA_VISIBLE_DEVICES`, or a UUID.

    Raises `InfrastructureError` where there is no driver or no such device, and `UsageError` where an
    ordinal could mean several GPUs.
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
            device = _find(nvml, index_or_uuid, env)
        except nvml.NVMLError as error:
            raise InfrastructureError(f"NVML cannot open device {index_or_uuid}: {error}") from error
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


def ordinal_or_uuid(device: str) -> int | str:
    """A device setting (`auto`, an index, a UUID) as `open_device` takes it."""
    if device == "auto":
        return 0
    return int(device) if device.isdigit() else device


def visible_entry(ordinal: int, visible: str | None) -> int | str:
    """What a CUDA ordinal stands for under `CUDA_VISIBLE_DEVICES`: an index, or a (short) UUID.

    As in CUDA, the first invalid entry hides itself and all that follow.
    """
    if visible is None:
        return ordinal
    entries: list[int | str] = []
    for entry in visible.split(","):
        text = entry.strip()
        if text.isascii() and text.isdigit():
            entries.append(int(text))
        elif text.startswith(("GPU-", "MIG-")):
            entries.append(text)
        else:
            break
    if not 0 <= ordinal < len(entries):
        raise InfrastructureError(
            f"CUDA_VISIBLE_DEVICES={visible!r} shows {len(entries)} devices: there is no device {ordinal}"
        )
    return entries[ordinal]


def _find(nvml: Any, which: int | str, env: Mapping[str, str]) -> Device:
    if isinstance(which, str) and which.isascii() and which.isdigit():
        which = int(which)
    entry = visible_entry(which, env.get("CUDA_VISIBLE_DEVICES")) if isinstance(which, int) else which
    handle = _by_uuid(nvml, entry) if isinstance(entry, str) else _by_index(nvml, entry, env)
    gpu = handle
    if _answer(nvml, "nvmlDeviceIsMigDeviceHandle", handle):
        gpu = nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle)
    elif (_answer(nvml, "nvmlDeviceGetMigMode", handle) or [0])[0]:
        # CUDA runs on no GPU that is in MIG mode, but on its first instance.
        handle = next(_instances(nvml, gpu), None)
        if handle is None:
            raise InfrastructureError("the GPU is in MIG mode and has no instance", fix="nvidia-smi mig -cgi")
    return Device(nvml, handle, gpu, nvml.nvmlDeviceGetUUID(handle), nvml.nvmlDeviceGetUUID(gpu))


def _by_index(nvml: Any, index: int, env: Mapping[str, str]) -> Any:
    gpus = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
    if not 0 <= index < len(gpus):
        raise InfrastructureError(f"there is no GPU {index}: NVML shows {len(gpus)}")
    if (
        env.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID"
        and len({nvml.nvmlDeviceGetName(gpu) for gpu in gpus}) > 1
    ):
        # CUDA counts the fastest GPU first, NVML counts by bus: telemetry of another GPU is worse than none.
        raise UsageError(
            "this machine has unlike GPUs, and CUDA numbers them otherwise than NVML",
            fix="export CUDA_DEVICE_ORDER=PCI_BUS_ID, or name the GPU by its UUID",
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


def describe(
    device: Device, *, locked_mhz: int | None = None
) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """The device's `key` (must match to compare), `noted` (shown when it differs), and why what is missing
    is `unavailable`.

    `locked_mhz` is the clock that this run locked: NVML cannot read a lock back. Raises
    `InfrastructureError` when the device fails, as opposed to not offering a reading.
    """
    reader = Reader(device.nvml, strict=True)

    def read(show: Callable[[Any], object], field: str, *calls: tuple[Any, ...]) -> None:
        answer = reader.read(field, *calls)
        if answer is not None:
            facts[field] = str(show(answer))

    facts = key = {} if locked_mhz is None else {"locked_clocks_mhz": str(locked_mhz)}
    gpu = device.gpu
    read(str, "gpu", ("nvmlDeviceGetName", gpu))
    read("{0[0]}.{0[1]}".format, "compute_capability", ("nvmlDeviceGetCudaComputeCapability", gpu))
    read(_on_off, "ecc", ("nvmlDeviceGetEccMode", gpu))
    read(lambda mw: f"{mw / 1000:g}", "power_limit_w", ("nvmlDeviceGetEnforcedPowerLimit", gpu))
    read(str, "applications_sm_clock_mhz", ("nvmlDeviceGetApplicationsClock", gpu, CLOCK_SM))
    read(str, "applications_memory_clock_mhz", ("nvmlDeviceGetApplicationsClock", gpu, CLOCK_MEMORY))
    read(str, "driver", ("nvmlSystemGetDriverVersion",))
    cuda = [("nvmlSystemGetCudaDriverVersion_v2",), ("nvmlSystemGetCudaDriverVersion",)]
    read(lambda n: f"{n // 1000}.{n % 1000 // 10}", "cuda_driver", *cuda)
    if device.handle is gpu:
        read(_on_off, "mig", ("nvmlDeviceGetMigMode", gpu))
        per_sm = _CORES_PER_SM.get(key.get("compute_capability", ""))
        if per_sm:
            read(lambda cores: cores // per_sm, "sm_count", ("nvmlDeviceGetNumGpuCores", gpu))
        else:
            reader.unavailable["sm_count"] = "the cores of an SM are not known for this compute capability"
    else:
        # "NVIDIA H200 MIG 1g.18gb": the profile is the end of the name.
        read(lambda name: name.rpartition("MIG ")[2], "mig", ("nvmlDeviceGetName", device.handle))
        read(lambda found: found.multiprocessorCount, "sm_count", ("nvmlDeviceGetAttributes", device.handle))

    facts = noted = {"uuid": device.uuid}
    read(str, "vbios", ("nvmlDeviceGetVbiosVersion", gpu))
    read(lambda mode: _on_off([mode]), "persistence_mode", ("nvmlDeviceGetPersistenceMode", gpu))
    read(str, "pcie_generation", ("nvmlDeviceGetCurrPcieLinkGeneration", gpu))
    read(str, "pcie_width", ("nvmlDeviceGetCurrPcieLinkWidth", gpu))
    read("P{}".format, "p_state", ("nvmlDeviceGetPerformanceState", gpu))
    read(str, "temperature_c", *temperature_calls(device))
    return key, noted, reader.unavailable


def _on_off(modes: Sequence[int]) -> str:
    # NVML answers [current, pending].
    return "on" if modes[0] else "off"


def temperature_calls(device: Device) -> list[tuple[Any, ...]]:
    # NVML deprecates the first one.
    names = ("nvmlDeviceGetTemperature", "nvmlDeviceGetTemperatureV")
    return [(name, device.gpu, _TEMPERATURE_GPU) for name in names]


def own_pids() -> frozenset[int]:
    """This process and its parent, in this process's own numbering; a container's host has another one."""
    return frozenset({os.getpid(), os.getppid()} - {0})


def presence(device: Device) -> Presence:
    """Who is on the device now. Take the first one before this launch makes a CUDA context."""
    reader = Reader(device.nvml)
    # The name without a version is version 3, which older drivers lack.
    processes = reader.read(
        "foreign_pids",
        ("nvmlDeviceGetComputeRunningProcesses", device.handle),
        ("nvmlDeviceGetComputeRunningProcesses_v2", device.handle),
    )
    # Version 2 leaves the driver's own reserve out of what is in use.
    memory = reader.read(
        "used_bytes",
        ("nvmlDeviceGetMemoryInfo", device.handle, _MEMORY_V2),
        ("nvmlDeviceGetMemoryInfo", device.handle),
    )
    return Presence(
        pids=tuple(sorted({int(process.pid) for process in processes or ()})),
        used_bytes=0 if memory is None else int(memory.used),
        unavailable=reader.unavailable,
    )


def foreign(before: Presence, during: Presence, own: AbstractSet[int]) -> tuple[int, ...]:
    """The processes that share the device with our launch, as NVML numbers them.

    Who was there before us is not us. A newcomer is foreign only where NVML numbers processes as we do,
    which shows in one of `own` among the newcomers: in a container our own process comes under a number
    that we do not know.
    """
    newcomers = set(during.pids) - set(before.pids)
    suspects = set(during.pids) if newcomers & own else set(during.pids) & set(before.pids)
    return tuple(sorted(suspects - own))


def unexplained_bytes(before: Presence, own: AbstractSet[int], *, limit_bytes: int = IDLE_LIMIT_BYTES) -> int:
    """Device memory in use before our launch that no process of ours explains; 0 up to the limit."""
    if before.used_bytes <= limit_bytes or set(before.pids) & own:
        return 0
    return before.used_bytes
