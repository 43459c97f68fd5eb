"""Calibration and evaluation data: batches of named arrays, drawn or read, one at a time.

A data set is a `.npz` or a folder of `.npy` files (one array an input, the leading axis counts samples), or
nothing: then inputs are drawn as the spec's `[inputs]` says. Arrays that no input takes are extras for the
metric. What a script yields was written to such a folder before: see `samples`.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from perfgate.errors import CaseError
from perfgate.model.inputs import make_array
from perfgate.records import InputData, Name, Record, Tensor, Text

if TYPE_CHECKING:
    import numpy as np

# NumPy arrays by the name of their tensor.
Arrays: TypeAlias = "dict[str, np.ndarray[Any, Any]]"

LIMIT_BYTES = 4 << 30
# Seeds of the two purposes lie far apart, so that no sample is both calibrated on and judged on.
CALIBRATION_SEED, EVALUATION_SEED = 1_000_003, 2_000_003


class DataRequest(Record, kw_only=True):
    """Where batches come from: `path` (absolute; empty: drawn), the inputs at the wanted shape, how many
    samples at most, and how far the seeds are moved. `first_as_is` keeps the spec's own seeds for the first
    batch, so that what is timed is judged as well."""

    tensors: tuple[Tensor, ...]
    inputs: dict[Name, InputData] = {}
    folder: Text
    path: Text = ""
    samples: int
    seed: int
    first_as_is: bool = False


class DataSet:
    """Batches by number; `extras(number)` are the arrays beside the inputs."""

    def __init__(self, request: DataRequest) -> None:
        self._request = request
        self._stored = _open(request) if request.path else {}
        self._names = {tensor.name for tensor in request.tensors}
        first = request.tensors[0].shape if request.tensors else ()
        self.batch_size = first[0] if first else 1
        self._count = self._counted()

    def __len__(self) -> int:
        return self._count

    def batch(self, number: int) -> Arrays:
        """The inputs of one batch, C-contiguous and of exactly the tensors' shapes and types."""
        import numpy as np

        if not self._request.path:
            return self._drawn(number)
        found = {}
        for tensor in self._request.tensors:
            rows = self._rows(tensor.name, number)
            found[tensor.name] = np.ascontiguousarray(rows.astype(rows.dtype, copy=False))
        return found

    def extras(self, number: int) -> Arrays:
        import numpy as np

        return {
            name: np.ascontiguousarray(self._rows(name, number)) for name in self._stored.keys() - self._names
        }

    def __iter__(self) -> Iterator[Arrays]:
        return (self.batch(number) for number in range(len(self)))

    def _rows(self, name: str, number: int) -> np.ndarray[Any, Any]:
        start = number * self.batch_size
        return self._stored[name][start : start + self.batch_size]

    def _drawn(self, number: int) -> Arrays:
        request = self._request
        moved = 0 if request.first_as_is and number == 0 else request.seed + number
        arrays = {}
        for tensor in request.tensors:
            data = request.inputs.get(tensor.name, InputData())
            seeded = msgspec.structs.replace(data, seed=data.seed + moved)
            arrays[tensor.name] = make_array(tensor, seeded, Path(request.folder))
        return arrays

    def _counted(self) -> int:
        request = self._request
        wanted = max(1, -(-request.samples // self.batch_size))
        if not request.path:
            return wanted
        rows = {name: len(self._stored[name]) for name in self._names}
        if len(set(rows.values())) > 1:
            said = ", ".join(f"{name} {count}" for name, count in sorted(rows.items()))
            raise _bad(
                request, f"holds unequal numbers of samples: {said}", "one row a sample in every array"
            )
        have = next(iter(rows.values())) // self.batch_size
        if not have:
            count = next(iter(rows.values()))
            raise _bad(
                request,
                f"holds {count} samples, which is less than one batch of {self.batch_size}",
                "give at least one batch",
            )
        return min(wanted, have)


def _open(request: DataRequest) -> Mapping[str, np.ndarray[Any, Any]]:
    """The arrays of a stored set, checked against the inputs. Raises `CaseError` in one line."""
    path = Path(request.path)
    arrays = _folder(request, path) if path.is_dir() else _archive(request, path)
    if not arrays:
        raise _bad(request, "is empty: no array", "one array an input, samples along the first axis")
    for tensor in request.tensors:
        if tensor.name not in arrays:
            have = ", ".join(sorted(arrays)) or "none"
            raise _bad(
                request, f"has no array {tensor.name!r} (it has: {have})", "name arrays as the graph's inputs"
            )
        _check(request, tensor, arrays[tensor.name])
    return arrays


def _check(request: DataRequest, tensor: Tensor, array: np.ndarray[Any, Any]) -> None:
    import numpy as np

    wanted = np.dtype({"double": "float64", "float": "float32"}.get(tensor.dtype, tensor.dtype))
    if array.dtype != wanted or array.ndim != len(tensor.shape) or array.shape[1:] != tensor.shape[1:]:
        rest = ", ".join(map(str, tensor.shape[1:]))
        raise _bad(
            request,
            f"{tensor.name!r} is {array.dtype}{list(array.shape)}, the input takes {wanted}[samples, {rest}]",
            f"save arrays of the measured shape as {wanted}, samples along the first axis",
        )
    if not len(array):
        raise _bad(request, f"{tensor.name!r} is empty: no sample", "give some dozens of real inputs")
    # Row by row: the set may be larger than memory.
    if array.dtype.kind == "f" and not all(np.isfinite(row).all() for row in array):
        raise _bad(request, f"{tensor.name!r} holds NaN or infinity", "remove the damaged samples")


def _archive(request: DataRequest, path: Path) -> dict[str, np.ndarray[Any, Any]]:
    import numpy as np

    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > LIMIT_BYTES:
                raise _bad(request, f"unpacks to more than {LIMIT_BYTES >> 30} GiB", "a folder of .npy files")
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise _bad(request, f"is not a .npz file: {error}", "save it with numpy.savez") from error


def _folder(request: DataRequest, folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    import numpy as np

    try:
        return {
            path.stem: np.load(path, mmap_mode="r", allow_pickle=False)
            for path in sorted(folder.glob("*.npy"))
        }
    except (OSError, ValueError, EOFError) as error:
        raise _bad(
            request, f"holds a file that is no .npy: {error}", "save arrays with numpy.save"
        ) from error


def _bad(request: DataRequest, what: str, fix: str) -> CaseError:
    return CaseError(f"the data set {Path(request.path).name}: {what}", fix=fix)
