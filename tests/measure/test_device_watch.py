"""What a watch adds to a launch on a GPU, against the stand-in for NVML."""

from __future__ import annotations

from fake_nvml import PROCESSES, FakeNvml, fake_device

from perfgate.gate.statistics.noise import Spread
from perfgate.gate.verdict.metrics import judge_metrics
from perfgate.measure.device_watch import BlindWatch, GpuWatch
from perfgate.records import Launch, columns

HOST = 3 << 30
SPREAD = Spread(launch_cv=0.007, launch_dof=10, run_cv=0.02)
LAUNCH = Launch(samples_ns=(1000,) * 5, wall_ns=5000, load_ns=1, first_inference_ns=1, peak_memory_bytes=HOST)


def watched(nvml: FakeNvml, grow_bytes: int) -> Launch:
    watch = GpuWatch(fake_device(nvml))

    def take() -> None:
        nvml.used_bytes += grow_bytes

    watch.around(take)
    return watch.complete(LAUNCH)


def why(launch: Launch) -> str | None:
    assert launch.telemetry is not None
    return launch.telemetry.unavailable.get("peak_memory_bytes")


def test_the_memory_of_a_launch_on_a_gpu_is_what_the_device_grew_by() -> None:
    found = watched(FakeNvml(), 1 << 30)
    assert (found.peak_memory_bytes, why(found)) == (1 << 30, None)


def test_the_hosts_memory_is_never_the_devices() -> None:
    unread = FakeNvml()
    unread.errors["nvmlDeviceGetMemoryInfo"] = 3
    found = {
        "not supported by this device": watched(unread, 1 << 30),
        "no growth was seen": watched(FakeNvml(), 0),
        "no binding": BlindWatch("no binding").complete(LAUNCH),
    }
    assert {reason: (0, reason) for reason in found} == {
        reason: (one.peak_memory_bytes, why(one)) for reason, one in found.items()
    }


def test_memory_that_was_not_read_before_the_launch_has_no_growth() -> None:
    nvml = FakeNvml()
    nvml.errors["nvmlDeviceGetMemoryInfo"] = 15
    watch = GpuWatch(fake_device(nvml))
    nvml.errors.clear()
    watch.around(lambda: None)
    found = watch.complete(LAUNCH)
    assert found.peak_memory_bytes == 0
    assert "NVML error 15" in str(why(found))


def test_memory_that_is_not_known_is_not_judged() -> None:
    known, unknown = watched(FakeNvml(), 1 << 30), BlindWatch("no binding").complete(LAUNCH)
    for base, head in ((known, unknown), (unknown, known), (unknown, unknown)):
        judged = judge_metrics(columns([base] * 5), columns([head] * 5), SPREAD, fresh=False)
        assert "peak_memory_bytes" not in {one.metric for one in judged}
    judged = judge_metrics(columns([known] * 5), columns([known] * 5), SPREAD, fresh=False)
    assert "peak_memory_bytes" in {one.metric for one in judged}


def test_a_driver_without_the_list_of_processes_does_not_end_the_launch() -> None:
    nvml = FakeNvml()
    nvml.too_new = set(PROCESSES)
    found = watched(nvml, 1 << 30)
    assert found.telemetry is not None
    assert found.telemetry.unavailable == {"foreign_pids": "not known to this driver"}
