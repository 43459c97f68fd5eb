"""Backends by name. Importing this imports no GPU library."""

from __future__ import annotations

from collections.abc import Callable

from perfgate.engine.interface import Backend
from perfgate.errors import UsageError


def _onnxruntime(device: str) -> Backend:
    from perfgate.engine.onnxruntime.backend import OnnxRuntimeBackend

    return OnnxRuntimeBackend(device)


def _tensorrt(device: str) -> Backend:
    from perfgate.engine.tensorrt.backend import TensorRTBackend

    return TensorRTBackend(device)


def _tensorrt_rtx(device: str) -> Backend:
    from perfgate.engine.tensorrt.backend import TensorRTBackend

    return TensorRTBackend(device, name="tensorrt-rtx")


def _torch(device: str) -> Backend:
    from perfgate.engine.torch.backend import TorchBackend

    return TorchBackend(device)


def _torch_compile(device: str) -> Backend:
    from perfgate.engine.torch.backend import TorchBackend

    return TorchBackend(device, name="torch-compile")


# `auto` takes the first that can run here; what comes after ONNX Runtime is for whoever asks by name.
_BACKENDS: dict[str, Callable[[str], Backend]] = {
    "tensorrt": _tensorrt,
    "onnxruntime": _onnxruntime,
    "tensorrt-rtx": _tensorrt_rtx,
    "torch": _torch,
    "torch-compile": _torch_compile,
}
_AUTO = ("tensorrt", "onnxruntime")
NAMES = ("auto", *_BACKENDS)


def get_backend(name: str, device: str = "auto") -> Backend:
    """The backend called `name`. `auto` is the first of the list that this machine can run.

    `device` is `auto`, `cpu`, or a GPU's index or UUID. Raises `UsageError` for an unknown name.
    """
    if name != "auto":
        try:
            return _BACKENDS[name](device)
        except KeyError:
            raise UsageError(
                f"no such backend: {name!r}", where="--backend", fix=f"one of: {', '.join(NAMES)}"
            ) from None
    candidates = [_BACKENDS[candidate](device) for candidate in _AUTO]
    return next((backend for backend in candidates if not backend.unavailable()), candidates[-1])
