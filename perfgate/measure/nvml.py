"""What NVML says of a device: who it is, what it did during a launch, and who else was on it.

Every reading survives a machine that does not offer it: it is absent, and `unavailable` says why.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence, Set as AbstractSet
from typing import Any

from perfgate.engine.gpu import Device, Reader
from perfgate.records import Count, Facts, Record

IDLE_LIMIT_BYTES = 512 << 20
"""Memory in use before our launch above this is somebody's. A driver alone holds less, a CUDA context
with a model more."""

CLOCK_SM, CLOCK_MEMORY = 1, 2
_TEMPERATURE_GPU = 0
_MEMORY_V2 = 0x02000028
# CUDA cores an SM. NVML counts cores only; a capability that is not here has no SM count.
_CORES_PER_SM = dict.fromkeys(["7.0", "7.2", "7.5", "8.0"], 64) | dict.fromkeys(
    ["8.6", "8.7", "8.9", "9.0", "10.0", "10.1", "10.3", "11.0", "12.0", "12.1"], 128
)


class Presence(Record):
    """Who is on a device and how much of its memory is in use (bytes), at one moment."""

    pids: tuple[Count, ...] = ()
    used_bytes: Count = 0
    unavailable: Facts = {}


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
