"""What a device did during a launch, watched from a thread outside the timed path."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections import deque
from collections.abc import Collection, Iterator, Set as AbstractSet
from typing import Any

from perfgate.engine.gpu import Device, Reader
from perfgate.measure.nvml import (
    CLOCK_MEMORY,
    CLOCK_SM,
    Presence,
    foreign,
    own_pids,
    presence,
    temperature_calls,
    unexplained_bytes,
)
from perfgate.records import Telemetry

_POLICIES = {"power": 0, "thermal": 1}
_ECC_TYPES = {"corrected": 0, "uncorrected": 1}
_ECC_SINCE_BOOT = 0
_SLOWDOWNS = {
    0x2: "applications_clocks",
    0x4: "sw_power_cap",
    0x8: "hw_slowdown",
    0x10: "sync_boost",
    0x20: "sw_thermal",
    0x40: "hw_thermal",
    0x80: "hw_power_brake",
    0x100: "display_clocks",
    0x200: "board_limit",
    0x400: "reliability",
}
_INVALIDATING = {"hw_slowdown", "hw_thermal", "hw_power_brake", "sw_thermal", "thermal_violation"}
_MAX_COUNT = 1 << 62
_MAX_TICKS = 20_000
_TICKS_PER_LOOK = 10
_JOIN_S = 5.0


def invalid_reason(telemetry: Telemetry) -> str | None:
    """Why a launch says nothing of the commit, or None. A software power cap is a note only: a head that
    draws more power and so clocks lower is slower."""
    reasons = []
    slowdowns = sorted(_INVALIDATING & set(telemetry.slowdowns))
    if slowdowns:
        reasons.append(f"the device was slowed down ({', '.join(slowdowns)})")
    if telemetry.foreign_pids:
        reasons.append(f"another process used the device (pid {', '.join(map(str, telemetry.foreign_pids))})")
    if telemetry.unexplained_bytes and not telemetry.foreign_pids:
        reasons.append(
            f"{telemetry.unexplained_bytes >> 20} MiB of device memory were in use before the launch"
        )
    return "; ".join(reasons) or None


class TelemetrySampler:
    """Watches a device from a thread of its own, from `start` to `stop`; neither ever raises.

    Start it before the samples and stop it after them: only the polling falls between. `before` and
    `own` are as for `foreign`.
    """

    def __init__(
        self,
        device: Device,
        before: Presence,
        own: AbstractSet[int] | None = None,
        *,
        interval_s: float = 0.04,
    ) -> None:
        self._peak_used_bytes = 0
        self._device = device
        self._before = before
        self._own = own_pids() if own is None else own
        self._interval_s = interval_s
        self._reader = Reader(device.nvml)
        self._reader.unavailable.update(before.unavailable)
        self._polls: dict[str, list[tuple[Any, ...]]] = {
            "sm_clock_mhz": [("nvmlDeviceGetClockInfo", device.gpu, CLOCK_SM)],
            "memory_clock_mhz": [("nvmlDeviceGetClockInfo", device.gpu, CLOCK_MEMORY)],
            "power_mw": [("nvmlDeviceGetPowerUsage", device.gpu)],
            "temperature_c": temperature_calls(device),
        }
        self._series: dict[str, deque[int]] = {name: deque(maxlen=_MAX_TICKS) for name in self._polls}
        self._reasons = 0
        self._foreign: set[int] = set()
        self._counters: dict[str, int] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="perfgate-telemetry", daemon=True)
        self._telemetry: Telemetry | None = None

    def __enter__(self) -> TelemetrySampler:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        with self._forgiven():
            self._counters = self._read_counters()
            self._thread.start()

    def stop(self) -> Telemetry:
        """Join the thread and sum up. A second call returns the same record."""
        if self._telemetry is None:
            self._stopping.set()
            if self._thread.ident is not None:
                self._thread.join(_JOIN_S)
            if self._thread.is_alive():
                # A driver that hangs must not hang the run, and its thread may still write.
                self._telemetry = Telemetry(
                    unavailable={"telemetry": f"NVML did not answer for {_JOIN_S:.0f} s"}
                )
            else:
                self._telemetry = self._sum_up()
        return self._telemetry

    @contextlib.contextmanager
    def _forgiven(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            # Whatever telemetry trips over, the launch that it watches is not to blame.
            self._reader.unavailable["telemetry"] = f"{type(error).__name__}: {error}"[:1000]

    def _sum_up(self) -> Telemetry:
        slowdowns = [name for bit, name in _SLOWDOWNS.items() if self._reasons & bit]
        energy_mj = ecc_errors = None
        violations_ns: dict[str, int] = {}
        with self._forgiven():
            # Counters first, so that they span little more than the samples.
            last = self._read_counters(only=self._counters)
            self._look_around()
            # A counter that ran backwards was reset, and says nothing.
            deltas = {n: v - self._counters[n] for n, v in last.items() if v >= self._counters[n]}
            energy_mj = deltas.get("energy_mj")
            violations_ns = {n: deltas[f"{n}_violation"] for n in _POLICIES if f"{n}_violation" in deltas}
            slowdowns += [f"{name}_violation" for name, time_ns in violations_ns.items() if time_ns]
            errors = [deltas[f"ecc_{name}"] for name in _ECC_TYPES if f"ecc_{name}" in deltas]
            ecc_errors = sum(errors) if errors else None
        return Telemetry(
            energy_mj=energy_mj,
            violations_ns=violations_ns,
            ecc_errors=ecc_errors,
            peak_used_bytes=self._peak_used_bytes,
            unexplained_bytes=unexplained_bytes(self._before, self._own),
            slowdowns=tuple(sorted(slowdowns)),
            foreign_pids=tuple(sorted(self._foreign)),
            unavailable=dict(self._reader.unavailable),
            sm_clock_mhz=tuple(self._series["sm_clock_mhz"]),
            memory_clock_mhz=tuple(self._series["memory_clock_mhz"]),
            power_mw=tuple(self._series["power_mw"]),
            temperature_c=tuple(self._series["temperature_c"]),
        )

    def _read_counters(self, only: Collection[str] | None = None) -> dict[str, int]:
        gpu = self._device.gpu
        calls: dict[str, tuple[Any, ...]] = {"energy_mj": ("nvmlDeviceGetTotalEnergyConsumption", gpu)}
        for name, policy in _POLICIES.items():
            calls[f"{name}_violation"] = ("nvmlDeviceGetViolationStatus", gpu, policy)
        for name, kind in _ECC_TYPES.items():
            calls[f"ecc_{name}"] = ("nvmlDeviceGetTotalEccErrors", gpu, kind, _ECC_SINCE_BOOT)
        answers = {n: self._reader.read(n, call) for n, call in calls.items() if only is None or n in only}
        return {n: int(getattr(a, "violationTime", a)) for n, a in answers.items() if a is not None}

    def _poll(self) -> None:
        with self._forgiven():
            for tick in itertools.count():
                self._tick()
                if tick % _TICKS_PER_LOOK == 0:
                    self._look_around()
                if self._stopping.wait(self._interval_s):
                    return

    def _tick(self) -> None:
        for name, calls in self._polls.items():
            value = self._reader.read(name, *calls)
            if value is None:
                continue
            if 0 <= int(value) < _MAX_COUNT:
                self._series[name].append(int(value))
            else:
                # All bits set is how NVML says it in a number.
                self._reader.unavailable[name] = "said to be not available"
        gpu = self._device.gpu
        reasons = self._reader.read(
            "slowdowns",
            ("nvmlDeviceGetCurrentClocksEventReasons", gpu),
            ("nvmlDeviceGetCurrentClocksThrottleReasons", gpu),
        )
        self._reasons |= int(reasons or 0)

    def _look_around(self) -> None:
        during = presence(self._device)
        self._foreign |= set(foreign(self._before, during, self._own))
        self._peak_used_bytes = max(self._peak_used_bytes, during.used_bytes)
        self._reader.unavailable.update(during.unavailable)
