"""Filling inputs: the same `InputData`, tensor and seed give the same array, bit for bit."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perfgate.errors import SpecError
from perfgate.records import InputData, Tensor

if TYPE_CHECKING:
    import numpy as np

FILE_LIMIT_BYTES = 1 << 30


def input_digest(folder: Path, data: InputData) -> InputData:
    """The same data with the digest of its file, so that a changed file changes the case."""
    import msgspec

    if data.generate != "file":
        return data
    path = folder / data.file
    if path.stat().st_size > FILE_LIMIT_BYTES:
        raise SpecError(
            f"is larger than {FILE_LIMIT_BYTES >> 20} MiB", where=path, fix="measure a smaller input"
        )
    return msgspec.structs.replace(data, file_digest=hashlib.sha256(path.read_bytes()).hexdigest())


def make_array(tensor: Tensor, data: InputData, folder: Path) -> np.ndarray[Any, Any]:
    """An array of the tensor's shape and type. Raises `SpecError` where a file does not fit."""
    import numpy as np

    dtype = np.dtype({"double": "float64", "float": "float32"}.get(tensor.dtype, tensor.dtype))
    # Two inputs of one seed must not be equal; Python's own hash differs from process to process.
    number = int.from_bytes(hashlib.sha256(tensor.name.encode()).digest()[:4], "big")
    random = np.random.default_rng([data.seed, number])
    shape = tensor.shape
    if data.generate == "file":
        return _load(tensor, folder / data.file, dtype)
    if data.generate == "constant":
        return np.full(shape, data.value, dtype)
    if data.generate == "integers":
        return random.integers(int(data.low), int(data.high), shape).astype(dtype)
    if data.generate == "uniform":
        return random.uniform(data.low, data.high, shape).astype(dtype)
    return (random.standard_normal(shape) * data.std + data.mean).astype(dtype)


def _load(tensor: Tensor, path: Path, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    import numpy as np

    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise SpecError(f"is not a .npy file: {error}", where=path, fix="save it with numpy.save") from error
    if not isinstance(array, np.ndarray):
        raise SpecError("is an archive, not a .npy file", where=path, fix="save it with numpy.save")
    if array.shape != tensor.shape or array.dtype != dtype:
        raise SpecError(
            f"holds {array.dtype}{list(array.shape)}, "
            f"input {tensor.name!r} takes {dtype}{list(tensor.shape)}",
            where=path,
            fix=f"save an array of the measured shape as {dtype}",
        )
    return np.ascontiguousarray(array)
