"""One benchmark, or one build on a GPU, at a time."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import pytest

from perfgate.errors import InfrastructureError
from perfgate.measure.lock import LOCK_DIR_VARIABLE, DeviceLock, device_lock, lock_name
from perfgate.settings import Settings


@pytest.fixture(autouse=True)
def _locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LOCK_DIR_VARIABLE, str(tmp_path))


def turn(kind: str) -> DeviceLock:
    backend: Any = types.SimpleNamespace(kind=kind)
    return DeviceLock(backend, Settings(lock_timeout_s=0), lambda _: None)


def is_free(kind: str) -> bool:
    try:
        with device_lock(lock_name(kind, "auto"), timeout_s=0, say=lambda _: None):
            return True
    except InfrastructureError:
        return False


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_whoever_has_the_turn_may_take_it_again_and_gives_it_back_once(kind: str) -> None:
    mine = turn(kind)
    with mine():
        with mine(), mine.to_build():
            assert not is_free(kind)
        assert not is_free(kind)
    assert is_free(kind)


def test_a_build_on_a_gpu_waits_for_who_measures_and_one_on_a_cpu_does_not() -> None:
    with (
        device_lock(lock_name("gpu", "auto"), timeout_s=0, say=lambda _: None),
        pytest.raises(InfrastructureError, match="did not become free"),
        turn("gpu").to_build(),
    ):
        pytest.fail("it was built beside a benchmark")
    with device_lock("cpu", timeout_s=0, say=lambda _: None), turn("cpu").to_build():
        pass
