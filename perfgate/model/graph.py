"""What perfgate reads of an ONNX file before anything is built: its inputs, and whether the spec fits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from perfgate.errors import PerfgateError, SpecError
from perfgate.model.content import (
    content_digest,
    is_settled,
    keep,
    read_kept,
    refuse_lfs_pointer,
    stat_facts,
)
from perfgate.model.external_data import external_files, read_range
from perfgate.model.graph_digest import FORMAT, graph_digest
from perfgate.model.inputs import make_array
from perfgate.model.spec import ModelSpec
from perfgate.model.validate.messages import raise_all
from perfgate.records import InputData, Name, Record, Sha256, Tensor, digest

# Draws that tell whether an input's data is one value everywhere.
_TRIED = 1_000


class GraphInput(Record):
    """One input: an axis is a size, or the name of a dynamic dimension (`?` where it has no name)."""

    name: Name
    dtype: Name
    axes: tuple[int | str, ...]


class Graph(Record):
    """The facts of an ONNX file. `onnx_digest` identifies the model: see `graph_digest`. `file_digest` is the
    SHA-256 of the bytes of its files, one after the other: the ONNX file, then its external data by name."""

    onnx_digest: Sha256
    file_digest: Sha256
    onnx_bytes: int
    opset: int
    nodes: int
    inputs: tuple[GraphInput, ...]
    outputs: tuple[Name, ...]


def read_graph(path: Path, cache: Path | None = None) -> Graph:
    """Parse an ONNX file and digest it. With the folder `cache`, digests of files that did not change are
    taken from there.

    Raises `SpecError` for a file that does not parse, a Git LFS pointer, or external data that is missing,
    too short or outside the model's folder, and as `write_text` does where `cache` cannot be written.
    """
    import onnx

    path = path.resolve()
    try:
        refuse_lfs_pointer(path)
        before = (stat_facts(path), is_settled(path))
        return _read(path, onnx.load(str(path), load_external_data=False), cache, before)
    except PerfgateError:
        raise
    except Exception as error:  # protobuf raises its own kinds, by version
        raise SpecError(
            f"does not parse as ONNX: {error}",
            where=path,
            fix="export it again; is it cut short or a Git LFS pointer?",
        ) from error


def _read(path: Path, model: Any, cache: Path | None, before: tuple[str, bool]) -> Graph:
    if not model.graph.node:
        raise SpecError("is an ONNX file without nodes", where=path, fix="export it again")
    weights = {tensor.name for tensor in model.graph.initializer}
    data = external_files(path.parent, model)
    for file in data:
        refuse_lfs_pointer(file)
    if cache is None:
        of_graph, of_files = graph_digest(model, path.parent), _files_digest([path, *data])
    else:
        of_graph, of_files = _kept_digests(path, data, model, cache, before)
    return Graph(
        onnx_digest=of_graph,
        file_digest=of_files,
        onnx_bytes=sum(file.stat().st_size for file in [path, *data]),
        opset=max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0),
        nodes=len(model.graph.node),
        inputs=tuple(_input(value) for value in model.graph.input if value.name not in weights),
        outputs=tuple(value.name for value in model.graph.output),
    )


def _kept_digests(
    path: Path, data: list[Path], model: Any, cache: Path, before: tuple[str, bool]
) -> tuple[str, str]:
    """The digest of the graph and that of the files, kept under the digests of the files' contents. `before`
    is what `path` was when the model was loaded."""
    import onnx

    facts = [before, *((stat_facts(file), is_settled(file)) for file in data)]
    contents = {file.relative_to(path.parent).as_posix(): content_digest(file, cache) for file in data}
    content = content_digest(path, cache)
    # A later version of onnx may know a field that this one does not.
    key = f"graph {digest([FORMAT, onnx.__version__, content, contents])}"
    if (kept := read_kept(cache, key)) and len(kept) == 2:
        return kept[0], kept[1]
    of_graph = graph_digest(model, path.parent)
    of_files = _files_digest([path, *data]) if data else content
    if facts == [(stat_facts(file), True) for file in [path, *data]]:
        keep(cache, key, of_graph, of_files)
    return of_graph, of_files


def _files_digest(paths: list[Path]) -> str:
    hashed = hashlib.sha256()
    for path in paths:
        for chunk in read_range(path):
            hashed.update(chunk)
    return hashed.hexdigest()


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


def check_against_graph(spec: ModelSpec, graph: Graph) -> None:
    """Hold the spec against the graph; what does not fit raises `SpecError` with what to write."""
    raise_all([*_of_dimensions(spec, graph), *_of_inputs(spec, graph), *_constant_inputs(spec, graph)])


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


def _constant_inputs(spec: ModelSpec, graph: Graph) -> Iterator[SpecError]:
    """Inputs whose data would be one value everywhere without being asked for: a model that is fed zeros
    answers rightly, calibrates and is fast, and tells nothing."""
    for value in graph.inputs:
        data = spec.inputs.get(value.name, InputData())
        if data.generate not in ("normal", "uniform", "integers"):
            continue
        try:
            drawn = make_array(Tensor(name=value.name, dtype=value.dtype, shape=(_TRIED,)), data, spec.folder)
        except (TypeError, ValueError):
            continue  # a type or bounds that are refused elsewhere
        if drawn.size and (drawn == drawn[0]).all():
            yield SpecError(
                f"the data of input {value.name!r} is {drawn[0]} everywhere (high is exclusive)",
                where=f"{spec.path}: inputs.{value.name}",
                fix=f'give low and high, or ask for it: generate = "constant", value = {drawn[0]}',
            )
