"""The TensorRT Python module as found: which one, which version, what it can do, and what it says.

One code path serves TensorRT 8.5 to 11 and TensorRT for RTX. What differs is asked of the module itself
(`Api.member`), and versions are compared as tuples, never as text.
"""

from __future__ import annotations

import collections
import importlib
import re
import sys
import time
from typing import Any

from perfgate.engine.interface import PROGRESS_PREFIX
from perfgate.errors import CaseError, InfrastructureError

MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
_KEPT_MESSAGES = 200
_WARNING = 2
_PROGRESS_EVERY_S = 2.0
# TensorRT keeps a pointer to the first logger it meets for the life of the process: one is made, and kept.
_LOGGERS: dict[str, Any] = {}


def version_tuple(text: str) -> tuple[int, ...]:
    """`8.5.3.1` as (8, 5, 3, 1); stops at the first part that is not a number."""
    found = re.match(r"\d+(\.\d+)*", text)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


class Api:
    """A TensorRT Python module (`trt`) and what may be asked of it."""

    def __init__(self, trt: Any, *, rtx: bool = False) -> None:
        self.trt = trt
        self.rtx = rtx
        self.version = version_tuple(str(trt.__version__))

    def __str__(self) -> str:
        return f"TensorRT{' for RTX' if self.rtx else ''} {self.trt.__version__}"

    @property
    def always_strong(self) -> bool:
        """Whether weak typing is gone: since TensorRT 11, and in TensorRT for RTX from its first version."""
        return self.rtx or self.version >= (11,)

    def member(self, enum: str, name: str) -> Any | None:
        """`trt.ENUM.NAME`, or None where this version has no such name."""
        return getattr(getattr(self.trt, enum, None), name, None)

    def need(self, enum: str, name: str, asked: str) -> Any:
        """`trt.ENUM.NAME`; raises `CaseError` that names what asked for it and this version."""
        found = self.member(enum, name)
        if found is None:
            raise self.lacks(asked, f"it has no {enum}.{name}")
        return found

    def lacks(self, asked: str, why: str) -> CaseError:
        """The error for a request that this version cannot meet; a request is never skipped."""
        return CaseError(
            f"{asked} cannot be met by {self}: {why}",
            fix="take it out of the model's TOML, or run in an image with another TensorRT",
        )


def load_api(backend: str) -> Api:
    """Import the module of a backend. Raises `InfrastructureError` when it is not usable here."""
    module = MODULES[backend]
    try:
        return Api(importlib.import_module(module), rtx=backend == "tensorrt-rtx")
    except Exception as error:  # a missing shared library is an OSError, a broken wheel anything
        raise InfrastructureError(
            f"the Python module {module} cannot be imported: {error}",
            fix="run inside the TensorRT image, or pip install 'perfgate[tensorrt]'",
        ) from error


def logger_of(api: Api) -> Any:
    """The process's one TensorRT logger. It keeps the last messages and prints nothing."""
    name = str(api.trt.__name__)
    if name not in _LOGGERS:
        _LOGGERS[name] = _make_logger(api.trt)
    return _LOGGERS[name]


def messages_of(logger: Any, *, warnings: bool = False) -> str:
    """What TensorRT said since `logger.forget()`: its errors, or its warnings as well."""
    wanted = _WARNING if warnings else _WARNING - 1
    return "\n".join(text for severity, text in logger.kept if severity <= wanted)


def first_error(logger: Any) -> str:
    """TensorRT's first error since `logger.forget()`, else its first warning."""
    lines = messages_of(logger).splitlines() or messages_of(logger, warnings=True).splitlines()
    return lines[0][:1000] if lines else "TensorRT gave no reason"


def _make_logger(trt: Any) -> Any:
    class Kept(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.kept: collections.deque[tuple[int, str]] = collections.deque(maxlen=_KEPT_MESSAGES)

        def log(self, severity: Any, msg: str) -> None:
            if int(severity) <= _WARNING:
                self.kept.append((int(severity), str(msg)))

        def forget(self) -> None:
            self.kept.clear()

    return Kept()


def load_plugins(api: Api, plugins: tuple[str, ...], logger: Any) -> None:
    """Register TensorRT's own plugins and the given shared libraries. Raises `CaseError`."""
    api.trt.init_libnvinfer_plugins(logger, "")
    registry = api.trt.get_plugin_registry()
    for path in plugins:
        try:
            if hasattr(registry, "load_library"):
                loaded = registry.load_library(path) is not None
            else:
                import ctypes

                loaded = bool(ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL))
        except OSError as error:
            raise CaseError(f"plugin library {path} cannot be loaded: {error}") from error
        if not loaded:
            raise CaseError(f"plugin library {path} was refused by {api}", stderr_tail=messages_of(logger))


def make_progress(api: Api) -> Any | None:
    """A monitor that prints `perfgate-progress` lines to stderr, or None before TensorRT 9."""
    if not hasattr(api.trt, "IProgressMonitor"):
        return None

    class Progress(api.trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            api.trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}
            self._said_s = time.monotonic()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._steps[phase_name] = num_steps

        def step_complete(self, phase_name: str, step: int) -> bool:
            # Thousands of steps in a large network, and an error needs room in the end of stderr.
            if time.monotonic() - self._said_s > _PROGRESS_EVERY_S:
                self._said_s = time.monotonic()
                say(f"{phase_name}: step {step + 1} of {self._steps.get(phase_name, 0)}")
            return True  # False would cancel the build

        def phase_finish(self, phase_name: str) -> None:
            self._steps.pop(phase_name, None)

    return Progress()


def say(text: str) -> None:
    """One line of a build's progress on stderr."""
    print(f"{PROGRESS_PREFIX}{text}", file=sys.stderr, flush=True)
