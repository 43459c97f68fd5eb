"""Whose turn it is on a device: one benchmark, or one build that times tactics, at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from perfgate.engine.gpu import device_uuid
from perfgate.engine.interface import Backend
from perfgate.measure.clocks import clocks_of
from perfgate.measure.lock import device_lock
from perfgate.settings import Settings


def lock_name(kind: str, device: str) -> str:
    """What a device's lock is called: `cpu`, or the GPU's UUID."""
    return "cpu" if kind == "cpu" else device_uuid(device)


class DeviceLock:
    """Called, it waits for the device and holds it, over all processes of this machine, its clocks locked
    where that is asked. Whoever has the turn may take it again. Raises `InfrastructureError` where it does
    not come within the settings' time."""

    def __init__(self, backend: Backend, settings: Settings, say: Callable[[str], None]) -> None:
        self._kind, self._settings, self._say = backend.kind, settings, say
        self._held = False

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        if self._held:
            yield
            return
        settings = self._settings
        name = lock_name(self._kind, settings.device)
        with (
            device_lock(name, timeout_s=settings.lock_timeout_s, say=self._say),
            clocks_of(self._kind, settings.device, settings.lock_clocks_mhz),
        ):
            self._held = True
            try:
                yield
            finally:
                self._held = False

    @contextlib.contextmanager
    def to_build(self) -> Iterator[None]:
        """The turn for a build. On a GPU a builder times tactics: beside a benchmark it would spoil both. On
        a CPU nothing is timed."""
        with contextlib.nullcontext() if self._kind == "cpu" else self():
            yield
