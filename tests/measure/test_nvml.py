"""NVML, against a stand-in."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from fake_nvml import DEADLINE_S, PROCESSES, FakeNvml, fake_device, gpu
from hypothesis import given, strategies as st

from perfgate.engine import gpu as devices_module
from perfgate.engine.gpu import open_device, visible_entry
from perfgate.errors import InfrastructureError, UsageError
from perfgate.measure import nvml as nvml_module, telemetry as telemetry_module
from perfgate.measure.nvml import (
    IDLE_LIMIT_BYTES,
    Presence,
    describe,
    foreign,
    own_pids,
    presence,
    unexplained_bytes,
)
from perfgate.measure.telemetry import TelemetrySampler, invalid_reason
from perfgate.records import Telemetry

NOT_SUPPORTED, NO_PERMISSION, FUNCTION_NOT_FOUND, GPU_IS_LOST = 3, 4, 13, 15
MODULES = (devices_module, nvml_module, telemetry_module)
ABSENT = [NOT_SUPPORTED, NO_PERMISSION, FUNCTION_NOT_FOUND]


# --- which device -------------------------------------------------------------------------------------


FLEET = [gpu("GPU-a1"), gpu("GPU-b1", instances=(None, "MIG-b1-0", "MIG-b1-1")), gpu("GPU-c1")]


@pytest.mark.parametrize(
    ("setting", "visible", "uuid", "gpu_uuid"),
    [
        ("auto", None, "GPU-a1", "GPU-a1"),
        ("2", None, "GPU-c1", "GPU-c1"),
        ("auto", "2,0", "GPU-c1", "GPU-c1"),
        ("gpu", "2,0", "GPU-c1", "GPU-c1"),
        ("1", " 2 , 0 ", "GPU-a1", "GPU-a1"),
        ("auto", "GPU-c1", "GPU-c1", "GPU-c1"),
        ("auto", "GPU-c", "GPU-c1", "GPU-c1"),
        ("GPU-c", None, "GPU-c1", "GPU-c1"),
        ("auto", "MIG-b1-1", "MIG-b1-1", "GPU-b1"),
        ("MIG-b1-1", None, "MIG-b1-1", "GPU-b1"),
        ("GPU-c1", "0", "GPU-c1", "GPU-c1"),
        ("1", None, "MIG-b1-0", "GPU-b1"),
        ("auto", "1", "MIG-b1-0", "GPU-b1"),
    ],
)
def test_a_setting_finds_its_device(setting: str, visible: str | None, uuid: str, gpu_uuid: str) -> None:
    nvml = FakeNvml(FLEET)
    env = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    with open_device(setting, nvml=nvml, env=env) as device:
        assert (device.uuid, device.gpu_uuid) == (uuid, gpu_uuid)
        assert nvml.calls["nvmlShutdown"] == 0
    assert nvml.calls["nvmlInit"] == nvml.calls["nvmlShutdown"] == 1


@pytest.mark.parametrize(
    ("setting", "visible"),
    [
        ("3", None),
        ("-1", None),
        ("1", "0"),
        ("auto", ""),
        ("auto", "-1,0"),
        ("auto", "NoDevFiles"),
        ("auto", "7"),
        ("auto", "GPU-"),
        ("auto", "GPU-x"),
    ],
)
def test_a_device_that_is_not_there_is_the_machines_fault(setting: str, visible: str | None) -> None:
    nvml = FakeNvml(FLEET)
    env = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    with pytest.raises(InfrastructureError), open_device(setting, nvml=nvml, env=env):
        pytest.fail("a device was found")
    assert nvml.calls["nvmlShutdown"] == 1


def test_mig_mode_without_an_instance_is_refused() -> None:
    nvml = FakeNvml([gpu("GPU-a1", instances=(None, None))])
    with pytest.raises(InfrastructureError, match="no instance"), open_device(nvml=nvml, env={}):
        pytest.fail("a device was found")


def test_unlike_gpus_need_an_order_that_both_sides_know() -> None:
    nvml = FakeNvml([gpu("GPU-a1", "Quadro P400"), gpu("GPU-b1")])
    for setting, env in (("auto", {}), ("1", {"CUDA_VISIBLE_DEVICES": "1,0"})):
        with pytest.raises(UsageError, match="CUDA numbers"), open_device(setting, nvml=nvml, env=env):
            pytest.fail("a device was guessed")
    known: list[tuple[str, dict[str, str], str]] = [
        ("auto", {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, "GPU-a1"),
        ("auto", {"CUDA_VISIBLE_DEVICES": "GPU-b1"}, "GPU-b1"),
        ("1", {}, "GPU-b1"),  # as nvidia-smi counts, and `choose` pins it
    ]
    for setting, env, uuid in known:
        with open_device(setting, nvml=nvml, env=env) as device:
            assert device.uuid == uuid


def test_no_driver_is_the_machines_fault_and_says_what_to_do() -> None:
    nvml = FakeNvml()
    nvml.errors["nvmlInit"] = 12
    with pytest.raises(InfrastructureError, match="--gpus all"), open_device(nvml=nvml, env={}):
        pytest.fail("a device was found")
    assert nvml.calls["nvmlShutdown"] == 0


def test_no_package_is_said_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(InfrastructureError, match="nvidia-ml-py"), open_device():
        pytest.fail("a device was found")


@pytest.mark.parametrize("name", ["nvmlDeviceIsMigDeviceHandle", "nvmlDeviceGetMigMode"])
@pytest.mark.parametrize("code", ABSENT)
def test_a_gpu_from_before_mig_opens(name: str, code: int) -> None:
    nvml = FakeNvml()
    nvml.errors[name] = code
    with open_device(nvml=nvml, env={}) as device:
        assert device.handle is device.gpu


@given(visible=st.lists(st.sampled_from(["0", "1", "12", "GPU-x", "MIG-y"]), min_size=1), tail=st.data())
def test_what_follows_an_invalid_entry_is_hidden(visible: list[str], tail: st.DataObject) -> None:
    text = ",".join([*visible, "-1", *tail.draw(st.lists(st.sampled_from(["0", "GPU-x"])))])
    shown = [visible_entry(ordinal, text) for ordinal in range(len(visible))]
    assert [str(entry) for entry in shown] == visible
    with pytest.raises(InfrastructureError):
        visible_entry(len(visible), text)


# --- who it is ----------------------------------------------------------------------------------------


def test_a_gpu_is_described() -> None:
    key, noted, unavailable = describe(fake_device(FakeNvml()), locked_mhz=1200)
    assert key == {
        "gpu": "NVIDIA H200",
        "compute_capability": "9.0",
        "sm_count": "132",
        "mig": "off",
        "ecc": "on",
        "power_limit_w": "700",
        "applications_sm_clock_mhz": "1980",
        "applications_memory_clock_mhz": "3201",
        "locked_clocks_mhz": "1200",
        "driver": "570.124.06",
        "cuda_driver": "12.8",
    }
    assert noted == {
        "uuid": "GPU-a1",
        "vbios": "96.00.A5.00.01",
        "persistence_mode": "on",
        "pcie_generation": "5",
        "pcie_width": "16",
        "p_state": "P0",
        "temperature_c": "41",
    }
    assert unavailable == {}


def test_a_mig_instance_is_described_by_its_profile() -> None:
    nvml = FakeNvml(FLEET)
    with open_device("1", nvml=nvml, env={}) as device:
        key, noted, _ = describe(device)
    assert (key["gpu"], key["mig"], key["sm_count"]) == ("NVIDIA H200", "1g.18gb", "16")
    assert noted["uuid"] == "MIG-b1-0"
    assert "locked_clocks_mhz" not in key


def test_an_unknown_architecture_has_no_sm_count() -> None:
    nvml = FakeNvml()
    nvml.answers["nvmlDeviceGetCudaComputeCapability"] = lambda handle: (13, 7)
    key, _, unavailable = describe(fake_device(nvml))
    assert "sm_count" not in key
    assert "sm_count" in unavailable


DESCRIBED = {
    "nvmlDeviceGetName": {"gpu"},
    "nvmlDeviceGetCudaComputeCapability": {"compute_capability", "sm_count"},
    "nvmlDeviceGetNumGpuCores": {"sm_count"},
    "nvmlDeviceGetMigMode": {"mig"},
    "nvmlDeviceGetEccMode": {"ecc"},
    "nvmlDeviceGetEnforcedPowerLimit": {"power_limit_w"},
    "nvmlDeviceGetApplicationsClock": {"applications_sm_clock_mhz", "applications_memory_clock_mhz"},
    "nvmlSystemGetDriverVersion": {"driver"},
    "nvmlDeviceGetVbiosVersion": {"vbios"},
    "nvmlDeviceGetPersistenceMode": {"persistence_mode"},
    "nvmlDeviceGetCurrPcieLinkGeneration": {"pcie_generation"},
    "nvmlDeviceGetCurrPcieLinkWidth": {"pcie_width"},
    "nvmlDeviceGetPerformanceState": {"p_state"},
    "nvmlSystemGetCudaDriverVersion_v2": set[str](),
    "nvmlDeviceGetTemperature": set[str](),
}


@pytest.mark.parametrize("name", DESCRIBED)
@pytest.mark.parametrize("code", [*ABSENT, None])
def test_what_a_machine_does_not_offer_is_absent_with_its_reason(name: str, code: int | None) -> None:
    nvml = FakeNvml()
    whole = set().union(*describe(fake_device(nvml))[:2])
    if code is None:
        nvml.missing.add(name)  # an older nvidia-ml-py
    else:
        nvml.errors[name] = code
    key, noted, unavailable = describe(fake_device(nvml))
    assert set(unavailable) == DESCRIBED[name]
    assert set(key) | set(noted) == whole - DESCRIBED[name]
    assert all(unavailable.values())


@pytest.mark.parametrize("name", DESCRIBED)
def test_a_device_that_fails_is_not_described_as_another_one(name: str) -> None:
    nvml = FakeNvml()
    nvml.errors[name] = GPU_IS_LOST
    with pytest.raises(InfrastructureError):
        describe(fake_device(nvml))


# --- who else is there --------------------------------------------------------------------------------


def test_presence_leaves_the_drivers_reserve_out_where_it_can() -> None:
    nvml = FakeNvml()
    nvml.pids = [9, 7, 9]
    assert presence(fake_device(nvml)) == Presence(pids=(7, 9), used_bytes=4 << 20)
    nvml.answers["nvmlDeviceGetMemoryInfo"] = lambda handle, version=0: (
        nvml.by_uuid("never") if version else SimpleNamespace(used=77)
    )
    assert presence(fake_device(nvml)).used_bytes == 77


@pytest.mark.parametrize("code", [*ABSENT, GPU_IS_LOST])
def test_presence_never_raises(code: int) -> None:
    nvml = FakeNvml()
    nvml.errors = dict.fromkeys([*PROCESSES, "nvmlDeviceGetMemoryInfo"], code)
    assert set(presence(fake_device(nvml)).unavailable) == {"foreign_pids", "used_bytes"}


def test_a_driver_without_version_3_is_asked_for_version_2() -> None:
    nvml = FakeNvml()
    nvml.pids, nvml.too_new = [7], set(PROCESSES[:1])
    assert presence(fake_device(nvml)) == Presence(pids=(7,), used_bytes=4 << 20)


def test_a_driver_with_neither_version_still_measures() -> None:
    nvml = FakeNvml()
    nvml.too_new = set(PROCESSES)
    found = presence(fake_device(nvml))
    assert (found.pids, found.unavailable) == ((), {"foreign_pids": "not known to this driver"})
    assert "telemetry" not in sample(nvml).stop().unavailable


def on(*pids: int) -> Presence:
    return Presence(pids=pids)


@pytest.mark.parametrize(
    ("before", "during", "own", "expected"),
    [
        ((), (), {10}, ()),
        ((), (10,), {10}, ()),
        ((5,), (5, 10), {10}, (5,)),
        ((5,), (10,), {10}, ()),  # gone before we measured
        ((), (5, 10), {10}, (5,)),  # numbered as we do: a newcomer that is not us
        ((), (4711,), {10}, ()),  # numbered by the host: this is us
        ((5,), (5, 4711), {10}, (5,)),
        ((9,), (9, 10), {9, 10}, ()),  # our parent holds a context
        ((10,), (10, 4711), {10}, ()),  # a host's number that happens to be ours
    ],
)
def test_who_is_foreign(
    before: tuple[int, ...], during: tuple[int, ...], own: set[int], expected: tuple[int, ...]
) -> None:
    assert foreign(on(*before), on(*during), own) == expected


PIDS = st.sets(st.integers(1, 30), max_size=8)


@given(before=PIDS, during=PIDS, own=PIDS)
def test_foreign_is_never_ours_and_never_absent(before: set[int], during: set[int], own: set[int]) -> None:
    found = set(foreign(on(*before), on(*during), own))
    assert found <= during
    assert not found & own
    assert (before & during) - own <= found


@given(host_pid=st.integers(31, 4_000_000), neighbours=PIDS, own=PIDS)
def test_a_container_never_accuses_itself(host_pid: int, neighbours: set[int], own: set[int]) -> None:
    assert host_pid not in foreign(on(*neighbours), on(*neighbours, host_pid), own)


def test_memory_that_nobody_of_ours_explains() -> None:
    assert unexplained_bytes(Presence(used_bytes=IDLE_LIMIT_BYTES), {10}) == 0
    assert unexplained_bytes(Presence(used_bytes=IDLE_LIMIT_BYTES + 1), {10}) == IDLE_LIMIT_BYTES + 1
    assert unexplained_bytes(Presence(pids=(10,), used_bytes=8 << 30), {10}) == 0
    assert unexplained_bytes(Presence(used_bytes=2), {10}, limit_bytes=1) == 2


INSIDE = """
    import json, os, sys
    from perfgate.measure.nvml import Presence, foreign, own_pids
    print(os.getpid(), flush=True)
    before, during = (Presence(pids=tuple(pids)) for pids in json.loads(sys.stdin.readline()))
    print(json.dumps(foreign(before, during, own_pids())), flush=True)
"""


def test_in_a_pid_namespace_the_hosts_numbers_accuse_others_only() -> None:
    """NVML in a container counts as the host does: a child cannot know its own number there."""
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("unshare is not installed")
    namespace = [unshare, "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode:
        pytest.skip("a pid namespace needs privileges that this user lacks")
    argv = [*namespace, sys.executable, "-c", textwrap.dedent(INSIDE)]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        inside = int(process.stdout.readline())
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        host_pid, neighbour = int(children[0]), 1_234_567
        assert host_pid != inside
        said, _ = process.communicate(json.dumps([[neighbour], [neighbour, host_pid]]), timeout=DEADLINE_S)
    finally:
        process.kill()
        process.wait()
    assert json.loads(said) == [neighbour]


def test_own_pids_are_this_process_and_its_parent() -> None:
    assert len(own_pids()) == 2
    assert 0 not in own_pids()


# --- what it did --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["hw_slowdown", "hw_thermal", "hw_power_brake", "sw_thermal", "thermal_violation"]
)
def test_a_slowdown_that_is_not_the_codes_makes_a_launch_invalid(name: str) -> None:
    assert name in (invalid_reason(Telemetry(slowdowns=("sw_power_cap", name))) or "")


@pytest.mark.parametrize("name", ["sw_power_cap", "power_violation", "applications_clocks", "sync_boost"])
def test_a_power_cap_is_a_note(name: str) -> None:
    assert invalid_reason(Telemetry(slowdowns=(name,))) is None


def test_company_makes_a_launch_invalid() -> None:
    assert "pid 5, 7" in (invalid_reason(Telemetry(foreign_pids=(5, 7))) or "")
    assert "1024 MiB" in (invalid_reason(Telemetry(unexplained_bytes=1 << 30)) or "")
    assert invalid_reason(Telemetry(unavailable={"foreign_pids": "needs more permissions"})) is None


def sample(
    nvml: FakeNvml, *, ticks: int = 3, before: Presence | None = None, own: set[int] | None = None
) -> Any:
    """A sampler that has polled at least `ticks` times and was stopped."""
    watch = TelemetrySampler(fake_device(nvml), before or Presence(), own or {10}, interval_s=0.001)
    watch.start()
    nvml.wait_for("nvmlDeviceGetClockInfo", 2 * ticks)
    return watch


def test_a_launch_is_watched() -> None:
    nvml = FakeNvml()
    watch = sample(nvml)
    nvml.reasons = 0x1 | 0x4
    nvml.wait_for("nvmlDeviceGetCurrentClocksEventReasons", 2)
    nvml.counters.update(energy=900, power=12, corrected=2)
    telemetry = watch.stop()
    assert set(telemetry.sm_clock_mhz) == {1755}
    assert set(telemetry.memory_clock_mhz) == {3201}
    assert set(telemetry.power_mw) == {312_000}
    assert set(telemetry.temperature_c) == {41}
    assert len(telemetry.sm_clock_mhz) >= 3
    assert telemetry.energy_mj == 900
    assert telemetry.slowdowns == ("power_violation", "sw_power_cap")
    assert (telemetry.violations_ns, telemetry.ecc_errors) == ({"power": 12, "thermal": 0}, 2)
    assert telemetry.unavailable == {}
    assert invalid_reason(telemetry) is None
    assert watch.stop() is telemetry
    assert msgspec.json.decode(msgspec.json.encode(telemetry), type=Telemetry) == telemetry


def test_throttling_that_polling_missed_shows_in_the_counter() -> None:
    nvml = FakeNvml()
    watch = sample(nvml)
    nvml.counters.update(thermal=1)
    assert watch.stop().slowdowns == ("thermal_violation",)


@given(bits=st.sets(st.sampled_from(range(11))))
def test_every_reason_has_its_name_and_idle_has_none(bits: set[int]) -> None:
    nvml = FakeNvml()
    nvml.reasons = sum(1 << bit for bit in bits)
    telemetry = sample(nvml, ticks=1).stop()
    assert len(telemetry.slowdowns) == len(bits - {0})
    assert (invalid_reason(telemetry) is not None) == bool(bits & {3, 5, 6, 7})


def test_an_older_driver_is_asked_by_the_older_name() -> None:
    nvml = FakeNvml()
    nvml.errors["nvmlDeviceGetCurrentClocksEventReasons"] = FUNCTION_NOT_FOUND
    nvml.reasons = 0x40
    telemetry = sample(nvml).stop()
    assert telemetry.slowdowns == ("hw_thermal",)
    assert telemetry.unavailable == {}
    assert nvml.calls["nvmlDeviceGetCurrentClocksEventReasons"] == 1


def test_company_is_seen_also_when_it_comes_and_goes() -> None:
    nvml = FakeNvml()
    nvml.pids = [10]
    watch = sample(nvml)
    nvml.pids, nvml.used_bytes = [10, 66], 9 << 30
    nvml.wait_for("nvmlDeviceGetComputeRunningProcesses", 2)
    nvml.pids, nvml.used_bytes = [10], 1 << 30
    telemetry = watch.stop()
    assert telemetry.foreign_pids == (66,)
    assert telemetry.peak_used_bytes == 9 << 30


WATCHED = {
    "nvmlDeviceGetClockInfo": {"sm_clock_mhz", "memory_clock_mhz"},
    "nvmlDeviceGetPowerUsage": {"power_mw"},
    "nvmlDeviceGetTemperature": set[str](),
    "nvmlDeviceGetTotalEnergyConsumption": {"energy_mj"},
    "nvmlDeviceGetViolationStatus": {"power_violation", "thermal_violation"},
    "nvmlDeviceGetTotalEccErrors": {"ecc_corrected", "ecc_uncorrected"},
    "nvmlDeviceGetCurrentClocksThrottleReasons": set[str](),
    "nvmlDeviceGetComputeRunningProcesses": set[str](),
    "nvmlDeviceGetMemoryInfo": {"used_bytes"},
}


@pytest.mark.parametrize("name", WATCHED)
@pytest.mark.parametrize("code", [*ABSENT, GPU_IS_LOST, None])
def test_each_reading_fails_alone(name: str, code: int | None) -> None:
    nvml = FakeNvml()
    if code is None:
        nvml.missing.add(name)
    else:
        nvml.errors[name] = code
    watch = TelemetrySampler(fake_device(nvml), Presence(), {10}, interval_s=0.001)
    with watch:
        nvml.wait_for("nvmlDeviceGetCurrentClocksEventReasons", 3)
    telemetry = watch.stop()
    assert set(telemetry.unavailable) == WATCHED[name]
    for field in ("sm_clock_mhz", "memory_clock_mhz", "power_mw", "temperature_c"):
        assert bool(getattr(telemetry, field)) == (field not in WATCHED[name])
    assert (telemetry.energy_mj is None) == ("energy_mj" in WATCHED[name])


def test_a_reading_that_is_refused_is_not_asked_for_again() -> None:
    nvml = FakeNvml()
    nvml.errors["nvmlDeviceGetPowerUsage"] = NOT_SUPPORTED
    sample(nvml, ticks=4).stop()
    assert nvml.calls["nvmlDeviceGetPowerUsage"] == 1


def test_a_counter_that_ran_backwards_says_nothing() -> None:
    nvml = FakeNvml()
    watch = sample(nvml)
    nvml.counters["energy"] = 5
    assert watch.stop().energy_mj is None


def test_values_that_mean_not_available_are_left_out() -> None:
    nvml = FakeNvml()
    nvml.answers["nvmlDeviceGetPowerUsage"] = lambda handle: (1 << 64) - 1
    telemetry = sample(nvml).stop()
    assert telemetry.power_mw == ()
    assert set(telemetry.unavailable) == {"power_mw"}


@pytest.mark.parametrize("name", ["nvmlDeviceGetClockInfo", "nvmlDeviceGetTotalEnergyConsumption"])
def test_no_fault_of_telemetry_reaches_the_launch(name: str) -> None:
    nvml = FakeNvml()

    def explode(*_: object) -> None:
        raise RuntimeError("ctypes has had enough")

    nvml.answers[name] = explode
    with TelemetrySampler(fake_device(nvml), Presence(), {10}) as watch:
        pass
    assert "ctypes has had enough" in watch.stop().unavailable["telemetry"]


def test_a_driver_that_hangs_does_not_hang_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry_module, "_JOIN_S", 0.05)
    nvml, answered = FakeNvml(), threading.Event()
    nvml.answers["nvmlDeviceGetPowerUsage"] = lambda handle: answered.wait(DEADLINE_S)
    watch = TelemetrySampler(fake_device(nvml), Presence(), {10})
    watch.start()
    nvml.wait_for("nvmlDeviceGetPowerUsage", 0 if nvml.calls["nvmlDeviceGetPowerUsage"] else 1)
    assert "did not answer" in watch.stop().unavailable["telemetry"]
    answered.set()


def test_a_sampler_that_never_started_still_sums_up() -> None:
    telemetry = TelemetrySampler(fake_device(FakeNvml()), Presence(), {10}).stop()
    assert telemetry.sm_clock_mhz == ()
    assert telemetry.energy_mj is None


def test_the_real_module_knows_every_call_that_is_made() -> None:
    pynvml = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    sources = (Path(str(module.__file__)).read_text() for module in MODULES)
    names = {name for source in sources for name in re.findall(r'"(nvml[A-Z]\w+)"', source)}
    assert len(names) > 20
    assert {name for name in names if not hasattr(pynvml, name)} == set()
