"""One GPU is named, locked, watched and measured, whatever names it."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from fake_nvml import FakeNvml, gpu

from perfgate.engine import get_backend, gpu as gpu_module
from perfgate.engine.gpu import choose, device_name, device_uuid, open_gpu, visible_count
from perfgate.engine.tensorrt import backend as trt_module
from perfgate.errors import UsageError
from perfgate.measure.device_watch import GpuWatch, watching
from perfgate.measure.environment import fingerprint
from perfgate.records import Protocol

VISIBLE, ORDER = "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"
ALIKE = [gpu("GPU-a1"), gpu("GPU-b1", instances=(None, "MIG-b1-0", "MIG-b1-1")), gpu("GPU-c1")]
UNLIKE = [gpu("GPU-t4", "Tesla T4"), gpu("GPU-h200")]
INSTANCE = "NVIDIA H200 MIG 1g.18gb"


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A process in which nothing was chosen yet."""
    monkeypatch.setattr(gpu_module, "_chosen", "")
    for name in (VISIBLE, ORDER):
        monkeypatch.setenv(name, "")  # so that what `choose` sets is undone
        monkeypatch.delenv(name)
    return monkeypatch


@pytest.mark.parametrize(
    ("setting", "visible", "name", "lock", "pinned"),
    [
        ("auto", None, "NVIDIA H200", "GPU-a1", "GPU-a1"),
        ("2", None, "NVIDIA H200", "GPU-c1", "GPU-c1"),
        ("1", "2,0", "NVIDIA H200", "GPU-a1", "GPU-a1"),
        ("auto", "GPU-c", "NVIDIA H200", "GPU-c1", "GPU-c1"),
        ("GPU-c", None, "NVIDIA H200", "GPU-c1", "GPU-c1"),
        ("1", None, INSTANCE, "GPU-b1", "MIG-b1-0"),
        ("auto", "1", INSTANCE, "GPU-b1", "MIG-b1-0"),
        ("auto", "MIG-b1-0", INSTANCE, "GPU-b1", "MIG-b1-0"),
        ("auto", "MIG-b1-1", INSTANCE, "GPU-b1", "MIG-b1-1"),
    ],
)
def test_name_lock_and_cuda_are_of_one_gpu_before_and_after_it_is_chosen(
    fresh: pytest.MonkeyPatch, setting: str, visible: str | None, name: str, lock: str, pinned: str
) -> None:
    fresh.setitem(sys.modules, "pynvml", FakeNvml(ALIKE))
    if visible is not None:
        fresh.setenv(VISIBLE, visible)
    for _ in range(2):
        assert (device_name(setting), device_uuid(setting)) == (name, lock)
        with open_gpu(setting) as opened:
            assert opened.uuid == pinned
        choose(setting)
        assert (os.environ[VISIBLE], os.environ[ORDER]) == (pinned, "PCI_BUS_ID")


def test_a_gpu_that_cuda_may_not_mean_ends_the_run(fresh: pytest.MonkeyPatch) -> None:
    fresh.setitem(sys.modules, "pynvml", FakeNvml(UNLIKE))
    fresh.setattr("onnxruntime.get_available_providers", lambda: ["CUDAExecutionProvider"])
    backend = get_backend("onnxruntime")
    asked: list[Any] = [
        lambda: device_name(),
        lambda: device_uuid(),
        lambda: choose("auto"),
        lambda: backend.kind,
        lambda: watching("gpu", "auto", Protocol()).__enter__(),
        lambda: fingerprint(named("gpu"), "auto"),
    ]
    for question in asked:
        with pytest.raises(UsageError, match="unlike GPUs"):
            question()
    assert VISIBLE not in os.environ


def test_backend_auto_does_not_turn_from_a_gpu_that_cuda_may_not_mean(fresh: pytest.MonkeyPatch) -> None:
    fresh.setitem(sys.modules, "pynvml", FakeNvml(UNLIKE))
    fresh.setattr("importlib.util.find_spec", lambda name: SimpleNamespace())
    fresh.setattr(trt_module, "load_api", lambda name: None)
    with pytest.raises(UsageError, match="unlike GPUs"):
        get_backend("auto")


def test_an_index_on_unlike_gpus_counts_as_nvidia_smi_does(fresh: pytest.MonkeyPatch) -> None:
    fresh.setitem(sys.modules, "pynvml", FakeNvml(UNLIKE))
    assert (device_name("0"), device_uuid("0")) == ("Tesla T4", "GPU-t4")
    choose("1")
    assert os.environ[VISIBLE] == "GPU-h200"
    with watching("gpu", "1", Protocol()) as watch:
        assert isinstance(watch, GpuWatch)


def test_what_follows_an_invalid_entry_is_not_counted(fresh: pytest.MonkeyPatch) -> None:
    fresh.setitem(sys.modules, "pynvml", FakeNvml(ALIKE))
    assert visible_count() == 3
    fresh.setenv(VISIBLE, "2,0,-1,1")
    assert visible_count() == 2


@pytest.mark.parametrize(
    ("setting", "visible", "asked", "pinned"),
    [("auto", None, "0", None), ("auto", "2,0", "2", "2,0"), ("1", "2,0", "0", "0"), ("1", None, "1", "1")],
)
def test_without_nvml_cuda_counts_as_nvidia_smi(
    fresh: pytest.MonkeyPatch, setting: str, visible: str | None, asked: str, pinned: str | None
) -> None:
    said: list[str] = []

    def smi(argv: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        said.append(argv[-1])
        return subprocess.CompletedProcess(argv, 0, stdout="GPU-x\n")

    fresh.setitem(sys.modules, "pynvml", None)
    fresh.setattr("subprocess.run", smi)
    if visible is not None:
        fresh.setenv(VISIBLE, visible)
    assert device_uuid(setting) == "GPU-x"
    choose(setting)
    assert (os.environ.get(VISIBLE), os.environ[ORDER]) == (pinned, "PCI_BUS_ID")
    assert device_uuid(setting) == "GPU-x"
    assert said == [f"--id={asked}"] * 2


def named(kind: str) -> Any:
    """A backend that says no more than its name."""
    return SimpleNamespace(name="net", kind=kind, versions=lambda: {"net": "1"}, device=lambda: "NVIDIA H200")
