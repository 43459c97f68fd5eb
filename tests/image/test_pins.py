"""What the project pins is held against what runs, before anything is built."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from perfgate.errors import DataError
from perfgate.image.lock import LOCK, ImageLock, pin_faults, write_lock

HERE = {"tensorrt": "8.5.3.1"}


def pinned(root: Path, **versions: str) -> Path:
    (root / LOCK).parent.mkdir(exist_ok=True)
    lock = ImageLock(
        schema="perfgate-trt/image/v1",
        registry="nvcr.io",
        repository="nvidia/tensorrt",
        tag="26.05-py3",
        versions=versions,
    )
    write_lock(root / LOCK, lock)
    return root


def test_another_version_than_the_pinned_one_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VERSION", "13.0")
    python = platform.python_version()
    pinned(tmp_path, tensorrt="10.16.0", cuda="13.0", python=python)
    (fault,) = pin_faults(tmp_path, HERE)
    assert (fault.field, fault.base, fault.head) == ("tensorrt", "10.16.0", "8.5.3.1")
    pinned(tmp_path, tensorrt="8.5.3.1", cuda="13.0", python=python)
    assert pin_faults(tmp_path, HERE) == []


def test_where_nothing_is_pinned_or_tensorrt_does_not_run_nothing_is_told(tmp_path: Path) -> None:
    assert pin_faults(tmp_path, HERE) == []
    assert pin_faults(pinned(tmp_path), HERE) == []
    assert pin_faults(pinned(tmp_path, tensorrt="10.16.0"), {"onnxruntime": "1.32.0"}) == []


def test_a_damaged_lock_is_the_projects_mistake(tmp_path: Path) -> None:
    (pinned(tmp_path) / LOCK).write_text("{")
    with pytest.raises(DataError):
        pin_faults(tmp_path, HERE)
