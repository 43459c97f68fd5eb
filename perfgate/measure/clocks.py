"""Locking the GPU's clocks, on request only: perfgate measures the clocks that it finds.

A lock outlives the process that made it, so it is undone on every way out that Python can see:
return, exception, SIGTERM, SIGHUP, interpreter exit. After SIGKILL, `nvidia-smi -rgc` undoes it.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from perfgate.engine.gpu import Device, open_gpu
from perfgate.errors import InfrastructureError, UsageError

_NO_PERMISSION = 4
_SUPPORTED = "choose from nvidia-smi -q -d SUPPORTED_CLOCKS"
_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
_log = logging.getLogger(__name__)


@contextlib.contextmanager
def clocks_of(kind: str, device: str, mhz: int | None) -> Iterator[None]:
    """Hold the clock of the GPU that the setting `device` chose; None touches nothing.

    Raises `UsageError` on a CPU, whose clocks are not ours to lock, and as `locked_clocks` does.
    """
    if mhz is None:
        yield
        return
    if kind == "cpu":
        raise UsageError("a CPU's clocks cannot be locked", where="--lock-clocks", fix="leave it out")
    with open_gpu(device) as opened, locked_clocks(opened, mhz):
        yield


@contextlib.contextmanager
def locked_clocks(device: Device, mhz: int | None) -> Iterator[None]:
    """Hold the GPU's clock at `mhz`; None touches nothing.

    Undoing takes away every lock on the GPU's clock, also one that was there before: NVML cannot read it.
    Raises `UsageError` when the clock cannot be locked, `InfrastructureError` when it cannot be undone.
    """
    if mhz is None:
        yield
        return
    if mhz <= 0:
        raise UsageError(f"a clock of {mhz} MHz cannot be locked", fix=_SUPPORTED)
    undo = _Undo(device)
    atexit.register(undo.at_exit)
    try:
        with _signals_as_exceptions():
            try:
                # From here on: a signal may come between NVML's call and the next line.
                undo.owed = True
                _lock(device, mhz, undo)
                yield
            except BaseException:
                undo.quietly()
                raise
            undo()
    finally:
        if not undo.owed:
            atexit.unregister(undo.at_exit)


def _lock(device: Device, mhz: int, undo: _Undo) -> None:
    try:
        device.nvml.nvmlDeviceSetGpuLockedClocks(device.gpu, mhz, mhz)
    except device.nvml.NVMLError as error:
        undo.owed = False
        denied = getattr(error, "value", None) == _NO_PERMISSION
        remedy = "run as root (in a container with --cap-add SYS_ADMIN)" if denied else _SUPPORTED
        raise UsageError(
            f"the GPU's clock cannot be locked at {mhz} MHz: {error}",
            fix=f"{remedy}, or leave the clocks unlocked",
        ) from error


class _Undo:
    """Resets the clocks, once, and only in the process that locked them."""

    def __init__(self, device: Device) -> None:
        self.owed = False
        self._device = device
        self._pid = os.getpid()

    def __call__(self) -> None:
        if not self.owed or os.getpid() != self._pid:
            return
        nvml = self._device.nvml
        try:
            # By its UUID and initialised anew: at interpreter exit the device may have been closed.
            nvml.nvmlInit()
            try:
                nvml.nvmlDeviceResetGpuLockedClocks(nvml.nvmlDeviceGetHandleByUUID(self._device.gpu_uuid))
            finally:
                nvml.nvmlShutdown()
        except nvml.NVMLError as error:
            raise InfrastructureError(
                f"the clocks of {self._device.gpu_uuid} are still locked: {error}",
                fix="nvidia-smi -rgc, as root",
            ) from error
        self.owed = False

    def quietly(self) -> None:
        # What ended the measurement is what the user must see; that the lock stays is told beside it.
        try:
            self()
        except InfrastructureError as error:
            _log.error("%s", error)

    at_exit = quietly


@contextlib.contextmanager
def _signals_as_exceptions() -> Iterator[None]:
    """SIGTERM and SIGHUP, where nobody handles them, leave through `finally` instead of at once."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    changed = [number for number in _SIGNALS if signal.getsignal(number) is signal.SIG_DFL]
    try:
        for number in changed:
            signal.signal(number, leave)
        yield
    finally:
        for number in changed:
            signal.signal(number, signal.SIG_DFL)
