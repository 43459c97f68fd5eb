"""A stand-in for `pynvml` whose every call can be made to fail."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from perfgate.engine.gpu import Device

DEADLINE_S = 60
PROCESSES = ("nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetComputeRunningProcesses_v2")


class FakeNvml:
    """Answers calls from a table; `errors` maps a call to an NVML code, `missing` calls are not in the
    module, and the driver knows no call that is `too_new`."""

    class NVMLError(Exception):
        def __init__(self, value: int) -> None:
            super().__init__(f"NVML error {value}")
            self.value = value

    class NVMLLibraryMismatchError(Exception):
        """No NVMLError, as in nvidia-ml-py."""

    def __init__(self, gpus: list[SimpleNamespace] | None = None) -> None:
        self.gpus = [gpu("GPU-a1")] if gpus is None else gpus
        self.errors: dict[str, int] = {}
        self.missing: set[str] = set()
        self.too_new: set[str] = set()
        self.calls: Counter[str] = Counter()
        self.called = threading.Condition()
        self.pids: list[int] = []
        self.used_bytes = 4 << 20
        self.reasons = 0x1
        self.counters = Counter(
            {"energy": 1_000_000, "power": 50, "thermal": 70, "corrected": 3, "uncorrected": 0}
        )
        self.answers: dict[str, Callable[..., Any]] = {
            "nvmlInit": lambda: None,
            "nvmlShutdown": lambda: None,
            "nvmlDeviceGetCount": lambda: len(self.gpus),
            "nvmlDeviceGetHandleByIndex": lambda index: self.gpus[index],
            "nvmlDeviceGetHandleByUUID": self.by_uuid,
            "nvmlDeviceIsMigDeviceHandle": lambda handle: int(handle.parent is not None),
            "nvmlDeviceGetDeviceHandleFromMigDeviceHandle": lambda handle: handle.parent,
            "nvmlDeviceGetMigMode": lambda handle: [int(bool(handle.slots)), 0],
            "nvmlDeviceGetMaxMigDeviceCount": lambda handle: len(handle.slots),
            "nvmlDeviceGetMigDeviceHandleByIndex": self.instance,
            "nvmlDeviceGetUUID": lambda handle: handle.uuid,
            "nvmlDeviceGetName": lambda handle: handle.name,
            "nvmlDeviceGetCudaComputeCapability": lambda handle: (9, 0),
            "nvmlDeviceGetNumGpuCores": lambda handle: 16896,
            "nvmlDeviceGetAttributes": lambda handle: SimpleNamespace(multiprocessorCount=16),
            "nvmlDeviceGetEccMode": lambda handle: [1, 1],
            "nvmlDeviceGetEnforcedPowerLimit": lambda handle: 700_000,
            "nvmlDeviceGetApplicationsClock": lambda handle, kind: {1: 1980, 2: 3201}[kind],
            "nvmlSystemGetDriverVersion": lambda: "570.124.06",
            "nvmlSystemGetCudaDriverVersion_v2": lambda: 12080,
            "nvmlSystemGetCudaDriverVersion": lambda: 12080,
            "nvmlDeviceGetVbiosVersion": lambda handle: "96.00.A5.00.01",
            "nvmlDeviceGetPersistenceMode": lambda handle: 1,
            "nvmlDeviceGetCurrPcieLinkGeneration": lambda handle: 5,
            "nvmlDeviceGetCurrPcieLinkWidth": lambda handle: 16,
            "nvmlDeviceGetPerformanceState": lambda handle: 0,
            "nvmlDeviceGetTemperature": lambda handle, sensor: 41,
            "nvmlDeviceGetTemperatureV": lambda handle, sensor: 42,
            "nvmlDeviceGetClockInfo": lambda handle, kind: {1: 1755, 2: 3201}[kind],
            "nvmlDeviceGetPowerUsage": lambda handle: 312_000,
            "nvmlDeviceGetCurrentClocksEventReasons": lambda handle: self.reasons,
            "nvmlDeviceGetCurrentClocksThrottleReasons": lambda handle: self.reasons,
            "nvmlDeviceGetTotalEnergyConsumption": lambda handle: self.counters["energy"],
            "nvmlDeviceGetViolationStatus": lambda handle, policy: SimpleNamespace(
                violationTime=self.counters[["power", "thermal"][policy]]
            ),
            "nvmlDeviceGetTotalEccErrors": lambda handle, kind, since: self.counters[
                ["corrected", "uncorrected"][kind]
            ],
            "nvmlDeviceGetComputeRunningProcesses": self.processes,
            "nvmlDeviceGetComputeRunningProcesses_v2": self.processes,
            "nvmlDeviceGetMemoryInfo": lambda handle, version=0: SimpleNamespace(
                used=self.used_bytes + (0 if version else 600 << 20)
            ),
        }

    def __getattr__(self, name: str) -> Any:
        if name not in self.answers or name in self.missing:
            raise AttributeError(name)

        def call(*arguments: Any) -> Any:
            with self.called:
                self.calls[name] += 1
                self.called.notify_all()
            if name in self.errors:
                raise self.NVMLError(self.errors[name])
            if name in self.too_new:
                raise self.NVMLLibraryMismatchError(name)
            return self.answers[name](*arguments)

        return call

    def processes(self, handle: SimpleNamespace) -> list[SimpleNamespace]:
        return [SimpleNamespace(pid=pid) for pid in self.pids]

    def by_uuid(self, uuid: str) -> SimpleNamespace:
        handles: list[SimpleNamespace | None] = [h for g in self.gpus for h in [g, *g.slots]]
        for handle in handles:
            if handle is not None and handle.uuid == uuid:
                return handle
        raise self.NVMLError(6)

    def instance(self, handle: SimpleNamespace, index: int) -> SimpleNamespace:
        if handle.slots[index] is None:
            raise self.NVMLError(6)
        found: SimpleNamespace = handle.slots[index]
        return found

    def wait_for(self, name: str, more: int) -> None:
        """Until the call was made `more` times from now on."""
        with self.called:
            goal = self.calls[name] + more
            assert self.called.wait_for(lambda: self.calls[name] >= goal, DEADLINE_S)


def gpu(uuid: str, name: str = "NVIDIA H200", instances: tuple[str | None, ...] = ()) -> SimpleNamespace:
    """A GPU; `instances` are its MIG slots by UUID, None for one that is empty."""
    parent = SimpleNamespace(uuid=uuid, name=name, parent=None, slots=[])
    for instance in instances:
        child = SimpleNamespace(uuid=instance, name=f"{name} MIG 1g.18gb", parent=parent, slots=[])
        parent.slots.append(child if instance else None)
    return parent


def fake_device(nvml: FakeNvml) -> Device:
    return Device(nvml, nvml.gpus[0], nvml.gpus[0], nvml.gpus[0].uuid, nvml.gpus[0].uuid)
