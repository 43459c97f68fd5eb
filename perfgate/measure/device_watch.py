"""Watching the device around the timed loop of a launch, to know when its time is not the model's own."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from perfgate.engine.gpu import Device, open_gpu
from perfgate.errors import InfrastructureError
from perfgate.measure.nvml import presence
from perfgate.measure.telemetry import TelemetrySampler, invalid_reason
from perfgate.records import Launch, Protocol, Telemetry

T = TypeVar("T")
_MEMORY = "peak_memory_bytes"


class CpuWatch:
    """Other processes on our processors: a launch that shared them measured the neighbours too."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._foreign: float | None = None

    def around(self, take: Callable[[], T]) -> T:
        before = _cpu_seconds()
        result = take()
        after = _cpu_seconds()
        if before is not None and after is not None:
            busy, own, total = (end - start for start, end in zip(before, after, strict=True))
            self._foreign = min(1.0, max(0.0, busy - own) / total) if total > 0 else None
        return result

    def complete(self, launch: Launch) -> Launch:
        if self._foreign is None:
            return launch
        share = round(self._foreign, 3)
        over = f"other processes used {share:.0%} of the processors (limit {self._limit:.0%})"
        return msgspec.structs.replace(
            launch,
            telemetry=Telemetry(foreign_cpu=share),
            invalid=over if self._foreign > self._limit else "",
        )


class GpuWatch:
    """Made before the process's own CUDA context, so that it sees who was there first."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._before = presence(device)
        self._telemetry = Telemetry()

    def around(self, take: Callable[[], T]) -> T:
        """Run the timed loop with the sampler's thread beside it."""
        with TelemetrySampler(self._device, self._before) as sampler:
            result = take()
        self._telemetry = sampler.stop()
        return result

    def complete(self, launch: Launch) -> Launch:
        """The launch with what was seen: telemetry, the growth of device memory (bytes; 0 where it is not
        known), and why it is invalid."""
        telemetry, before = self._telemetry, self._before
        unread = before.unavailable.get("used_bytes", "")
        grown = 0 if unread else max(0, telemetry.peak_used_bytes - before.used_bytes)
        if not grown:
            missing = telemetry.unavailable
            why = unread or missing.get("used_bytes") or missing.get("telemetry") or "no growth was seen"
            telemetry = msgspec.structs.replace(telemetry, unavailable={**missing, _MEMORY: why})
        return msgspec.structs.replace(
            launch,
            telemetry=telemetry,
            invalid=invalid_reason(telemetry) or "",
            peak_memory_bytes=grown,
        )


class BlindWatch:
    """A GPU that NVML cannot open is measured all the same, and the launch says so. Its memory is not known:
    the process's own is the host's."""

    def __init__(self, reason: str) -> None:
        self._telemetry = Telemetry(unavailable={"telemetry": reason, _MEMORY: reason})

    def around(self, take: Callable[[], T]) -> T:
        return take()

    def complete(self, launch: Launch) -> Launch:
        return msgspec.structs.replace(launch, telemetry=self._telemetry, peak_memory_bytes=0)


@contextlib.contextmanager
def watching(kind: str, device: str, protocol: Protocol) -> Iterator[CpuWatch | GpuWatch | BlindWatch]:
    """The watch for a `cpu` or `gpu` backend on a device setting. Raises `UsageError` as `open_gpu` does."""
    if kind == "cpu":
        yield CpuWatch(protocol.foreign_cpu_limit)
        return
    with contextlib.ExitStack() as stack:
        try:
            opened = stack.enter_context(open_gpu(device))
        except InfrastructureError as error:
            yield BlindWatch(error.what)
            return
        yield GpuWatch(opened)


def _cpu_seconds() -> tuple[float, float, float] | None:
    """Busy time of our processors (time stolen by a hypervisor counts), our own part of it, and all time;
    in seconds since boot. None where /proc/stat does not tell."""
    tick = os.sysconf("SC_CLK_TCK")
    mine = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    busy = total = 0
    try:
        lines = Path("/proc/stat").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        name, *fields = line.split()
        if name in mine:
            numbers = [int(field) for field in fields[:8]]
            busy += sum(numbers) - numbers[3] - numbers[4]  # all but idle and waiting for a disk
            total += sum(numbers)
    own = os.times()
    return busy / tick, own.user + own.system, total / tick
