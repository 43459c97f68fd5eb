"""Backends by name. Importing this imports no GPU library."""

from __future__ import annotations

from perfgate.engine.interface import Backend
from perfgate.errors import UsageError

# `auto` takes the first of these that can run here; the others are for whoever asks by name.
_AUTO = ("tensorrt", "onnxruntime")
NAMES = ("auto", *_AUTO, "tensorrt-rtx", "torch", "torch-compile")


def get_backend(name: str, device: str = "auto") -> Backend:
    """The backend called `name`. `auto` is the first of the list that this machine can run.

    `device` is `auto`, `cpu`, or a GPU's index or UUID. Raises `UsageError` for an unknown name.
    """
    if name not in NAMES:
        raise UsageError(f"no such backend: {name!r}", where="--backend", fix=f"one of: {', '.join(NAMES)}")
    if name != "auto":
        return _make(name, device)
    candidates = [_make(candidate, device) for candidate in _AUTO]
    return next((backend for backend in candidates if not backend.unavailable()), candidates[-1])


def _make(name: str, device: str) -> Backend:
    if name in ("tensorrt", "tensorrt-rtx"):
        from perfgate.engine.tensorrt.backend import TensorRTBackend

        return TensorRTBackend(device, name=name)
    if name in ("torch", "torch-compile"):
        from perfgate.engine.torch.backend import TorchBackend

        return TorchBackend(device, name=name)
    from perfgate.engine.onnxruntime.backend import OnnxRuntimeBackend

    return OnnxRuntimeBackend(device)
