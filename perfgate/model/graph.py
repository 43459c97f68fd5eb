"""What perfgate reads of an ONNX file before anything is built: its inputs, and whether the spec fits."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from perfgate.errors import SpecError
from perfgate.model.spec import ModelSpec
from perfgate.model.validate.messages import raise_all
from perfgate.records import Name, Record, Sha256

_CHUNK = 1 << 20


class GraphInput(Record):
    """One input: an axis is a size, or the name of a dynamic dimension (`?` where it has no name)."""

    name: Name
    dtype: Name
    axes: tuple[int | str, ...]


class Graph(Record):
    """The facts of an ONNX file, with the digest of its bytes (external data included)."""

    onnx_digest: Sha256
    onnx_bytes: int
    opset: int
    nodes: int
    inputs: tuple[GraphInput, ...]
    outputs: tuple[Name, ...]


def read_graph(path: Path) -> Graph:
    """Parse an ONNX file and digest it. Raises `SpecError` for one that does not parse."""
    import onnx

    try:
        return _read(path.resolve(), onnx.load(str(path), load_external_data=False))
    except SpecError:
        raise
    except Exception as error:  # protobuf raises its own kinds, by version
        raise SpecError(
            f"does not parse as ONNX: {error}",
            where=path,
            fix="export it again; is it cut short or a Git LFS pointer?",
        ) from error


def _read(path: Path, model: Any) -> Graph:
    if not model.graph.node:
        raise SpecError("is an ONNX file without nodes", where=path, fix="export it again")
    weights = {tensor.name for tensor in model.graph.initializer}
    hashed, size = _digest([path, *external_files(path.parent, model)])
    return Graph(
        onnx_digest=hashed,
        onnx_bytes=size,
        opset=max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0),
        nodes=len(model.graph.node),
        inputs=tuple(_input(value) for value in model.graph.input if value.name not in weights),
        outputs=tuple(value.name for value in model.graph.output),
    )


def _input(value: Any) -> GraphInput:
    import onnx

    tensor = value.type.tensor_type
    dtype = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
    # Some exporters write -1 for a dynamic axis.
    axes = tuple(
        d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else d.dim_param or "?"
        for d in tensor.shape.dim
    )
    return GraphInput(name=value.name, dtype=dtype, axes=axes)


def external_files(folder: Path, model: Any) -> list[Path]:
    """External data files, each a regular file inside `folder`, reached through no link."""
    from onnx.external_data_helper import ExternalDataInfo, _get_all_tensors

    names = {
        ExternalDataInfo(tensor).location
        for tensor in _get_all_tensors(model)
        if tensor.HasField("data_location") and tensor.data_location == tensor.EXTERNAL
    }
    files = []
    for name in sorted(names):
        path = folder / name
        steps = [folder / part for part in _prefixes(Path(name))]
        if Path(name).is_absolute() or ".." in Path(name).parts or any(step.is_symlink() for step in steps):
            raise SpecError(
                f"external data {name!r} leaves the model's folder",
                where=folder,
                fix="keep it beside the ONNX file",
            )
        if not path.is_file():
            raise SpecError(
                f"external data {name!r} is missing", where=folder, fix="put it beside the ONNX file"
            )
        files.append(path)
    return files


def read_external_files(path: Path) -> list[Path]:
    """The external data of an ONNX file. Raises `SpecError` for data that leaves the model's folder."""
    import onnx

    return external_files(path.parent, onnx.load(str(path), load_external_data=False))


def _prefixes(path: Path) -> list[Path]:
    return [Path(*path.parts[: count + 1]) for count in range(len(path.parts))]


def _digest(paths: list[Path]) -> tuple[str, int]:
    hashed, size = hashlib.sha256(), 0
    for path in paths:
        # O_NOFOLLOW: what was checked is what is read.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as source:
            if not stat.S_ISREG(os.fstat(source.fileno()).st_mode):
                raise SpecError(
                    "is not a regular file", where=path, fix="keep the data itself beside the model"
                )
            while chunk := source.read(_CHUNK):
                hashed.update(chunk)
                size += len(chunk)
    return hashed.hexdigest(), size


def check_against_graph(spec: ModelSpec, graph: Graph) -> None:
    """Hold the spec against the graph; what does not fit raises `SpecError` with what to write."""
    raise_all([*_of_dimensions(spec, graph), *_of_inputs(spec, graph)])


def _of_dimensions(spec: ModelSpec, graph: Graph) -> Iterator[SpecError]:
    used: dict[str, str] = {}
    for value in graph.inputs:
        for axis, size in enumerate(value.axes):
            if size == "?":
                yield SpecError(
                    f"axis {axis} of input {value.name!r} is dynamic and has no name",
                    where=spec.path,
                    fix="name it when exporting the model (dynamic_axes), then give it a profile",
                )
            elif isinstance(size, str):
                used.setdefault(size, value.name)
    have = ", ".join(sorted(used)) or "none"
    lost = [name for name in spec.dims if name not in used]
    wanted = {size: name for size, name in used.items() if size not in spec.dims}
    renamed = next(iter(wanted)) if len(lost) == len(wanted) == 1 else ""
    for name in lost:
        remove = f"remove [dims.{name}] or export the model with that dimension dynamic"
        yield SpecError(
            f"the ONNX graph has no dynamic dimension {name!r} (it has: {have})",
            where=f"{spec.path}: dims.{name}",
            fix=f"rename it to [dims.{renamed}]" if renamed else remove,
        )
    for size, name in [] if renamed else wanted.items():
        yield SpecError(
            f"dimension {size!r} of input {name!r} is dynamic and has no profile; add:\n"
            f"    [dims.{size}]\n    min = 1\n    opt = 8\n    max = 32\n    measure = [1, 8]",
            where=f"{spec.path}: dims.{size}",
        )


def _of_inputs(spec: ModelSpec, graph: Graph) -> Iterator[SpecError]:
    known = {value.name: value for value in graph.inputs}
    lost = [name for name in spec.inputs if name not in known]
    wanted = [
        value
        for name, value in known.items()
        if name not in spec.inputs and not value.dtype.startswith(("float", "double", "bfloat"))
    ]
    renamed = wanted[0].name if len(lost) == len(wanted) == 1 else ""
    for name in lost:
        yield SpecError(
            f"the ONNX graph has no input {name!r} (it has: {', '.join(known)})",
            where=f"{spec.path}: inputs.{name}",
            fix=f"rename it to [inputs.{renamed}]" if renamed else "use the graph's name",
        )
    for value in [] if renamed else wanted:
        yield SpecError(
            f"input {value.name!r} is {value.dtype} and its data is not described; add:\n"
            f'    [inputs.{value.name}]\n    generate = "integers"\n    low = 0\n    high = 30522',
            where=f"{spec.path}: inputs.{value.name}",
        )
