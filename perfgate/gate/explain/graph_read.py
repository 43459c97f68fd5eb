"""An ONNX file as the graph diff sees it: nodes with local signatures, what flows between them, and
the shapes of all tensors, as far as shape inference can tell them."""

from __future__ import annotations

import contextlib
import math
import mmap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from perfgate.errors import SpecError
from perfgate.model.external_data import external_files

# Initialisers of up to so many values may be shapes, axes or pads, which inference reads; the values of
# larger ones it never needs, so that no weight is copied.
_READ = 1_024


class Shape(NamedTuple):
    """Element type and axes of a tensor: a number, the name that a graph input gives it, or None."""

    dtype: str
    axes: tuple[int | str | None, ...]

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join('?' if axis is None else str(axis) for axis in self.axes)}]"


def differ(one: Shape | None, other: Shape | None) -> bool | None:
    """Do two tensors differ in shape or type? None where one of them is not known well enough to say."""
    if one is None or other is None:
        return None
    if one.dtype != other.dtype or len(one.axes) != len(other.axes):
        return True
    axes = list(zip(one.axes, other.axes, strict=True))
    if any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in axes):
        return True
    return False if all(a == b and a is not None for a, b in axes) else None


def tensor_shapes(model: Any, sizes: Mapping[str, int]) -> dict[str, Shape]:
    """Shapes by tensor, with `sizes` of named axes. A tensor of which nothing is known is left out."""
    import onnx

    names = onnx.TensorProto.DataType
    found = {t.name: Shape(names.Name(t.data_type).lower(), tuple(t.dims)) for t in model.graph.initializer}
    light = _without_weights(model)
    for dim in _axes(light.graph):
        if dim.dim_param in sizes:
            dim.dim_value = sizes[dim.dim_param]
    declared = {d.dim_param for v in light.graph.input for d in v.type.tensor_type.shape.dim if d.dim_param}
    # It raises its own kinds, by version: what the file states is then all that is known. Values are not
    # followed: a file of 900 bytes can ask for gigabytes of them (a vector put behind itself, thirty times).
    with contextlib.suppress(Exception):
        light = onnx.shape_inference.infer_shapes(light)
    for value in (*light.graph.input, *light.graph.output, *light.graph.value_info):
        tensor = value.type.tensor_type
        if value.name not in found and tensor.HasField("shape"):
            axes = tuple(_axis(dim, declared) for dim in tensor.shape.dim)
            found[value.name] = Shape(names.Name(tensor.elem_type).lower(), axes)
    return found


def _axis(dim: Any, declared: set[str]) -> int | str | None:
    if dim.HasField("dim_value"):
        return int(dim.dim_value)
    # Inference invents names for axes that it does not know, and counts them anew in every graph.
    return str(dim.dim_param) if dim.dim_param in declared else None


def _axes(graph: Any) -> Iterator[Any]:
    for value in (*graph.input, *graph.output, *graph.value_info):
        yield from value.type.tensor_type.shape.dim


def _without_weights(model: Any) -> Any:
    """The model with inputs in place of its large initialisers, whose shapes alone matter."""
    import onnx

    light = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    light.functions.extend(model.functions)
    graph = light.graph
    graph.name = model.graph.name or "graph"
    for field in ("node", "input", "output", "value_info"):
        getattr(graph, field).extend(getattr(model.graph, field))
    inputs = {value.name for value in graph.input}
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) <= _READ and tensor.data_location != tensor.EXTERNAL:
            graph.initializer.append(tensor)
        elif tensor.name not in inputs:
            made = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tuple(tensor.dims))
            graph.input.append(made)
    return light


_SHOWN = 80
_HELD = 64


class Weight(NamedTuple):
    """An initialiser: element type, dimensions, and a number that differs where its bytes do. The number is
    of this process only (Python's keyed hash): it is compared, never kept."""

    dtype: str
    dims: tuple[int, ...]
    content: int

    def __str__(self) -> str:
        return f"{self.dtype}{list(self.dims)}"


class Node(NamedTuple):
    """A node. `key` is its name, or the one that TensorRT's parser gives a node without one."""

    key: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, str]
    weights: dict[int, Weight]

    def signature(self, *, values: bool) -> int:
        """Operator, attributes and weights; without `values` types and shapes of the weights alone."""
        held = tuple(
            (slot, weight if values else (weight.dtype, weight.dims)) for slot, weight in self.weights.items()
        )
        return hash((self.operator, tuple(sorted(self.attributes.items())), held))


class ReadGraph(NamedTuple):
    """`shapes` are those that the file states of inner tensors, `known` those that follow for all of them."""

    nodes: list[Node]
    maker: dict[str, int]
    inputs: dict[str, str]
    outputs: dict[str, str]
    shapes: dict[str, str]
    opsets: dict[str, int]
    known: dict[str, Shape]


def read_for_diff(path: Path, sizes: Mapping[str, int]) -> ReadGraph:
    """Read a model's graph, with `sizes` of named axes. Raises `SpecError` for one that does not parse or
    whose data lies elsewhere."""
    import onnx

    path = path.resolve()
    try:
        model = onnx.load(str(path), load_external_data=False)
        external_files(path.parent, model)  # refuses those that leave the model's folder
        return _read(path, model, sizes)
    except SpecError:
        raise
    except Exception as error:  # protobuf raises its own kinds, by version
        raise SpecError(f"does not parse as ONNX: {error}", where=path, fix="export it again") from error


def _read(path: Path, model: Any, sizes: Mapping[str, int]) -> ReadGraph:
    import onnx

    graph = model.graph
    names = onnx.TensorProto.DataType
    weights = {tensor.name: _weight(tensor, path.parent, names) for tensor in graph.initializer}
    nodes: list[Node] = []
    seen: dict[str, int] = {}
    for found in graph.node:
        key = found.name or f"node_of_{next(iter(found.output), '')}"
        seen[key] = seen.get(key, 0) + 1
        if seen[key] > 1:
            key = f"{key}#{seen[key]}"
        inputs = tuple(found.input)
        nodes.append(
            Node(
                key=key,
                operator=f"{found.domain}::{found.op_type}" if found.domain else found.op_type,
                inputs=inputs,
                outputs=tuple(found.output),
                attributes={a.name: _attribute(a, path.parent, names) for a in found.attribute},
                weights={slot: weights[name] for slot, name in enumerate(inputs) if name in weights},
            )
        )
    return ReadGraph(
        nodes=nodes,
        maker={output: index for index, node in enumerate(nodes) for output in node.outputs if output},
        inputs=_values((v for v in graph.input if v.name not in weights), names),
        outputs=_values(graph.output, names),
        shapes=_values(graph.value_info, names),
        opsets={entry.domain or "ai.onnx": entry.version for entry in model.opset_import},
        known=tensor_shapes(model, sizes),
    )


def _weight(tensor: Any, folder: Path, names: Any) -> Weight:
    if tensor.data_location == tensor.EXTERNAL:
        content = _external(tensor, folder)
    elif tensor.HasField("raw_data"):
        content = hash(tensor.raw_data)
    else:
        content = hash(tensor.SerializeToString(deterministic=True))
    return Weight(names.Name(tensor.data_type).lower(), tuple(tensor.dims), content)


def _external(tensor: Any, folder: Path) -> int:
    said = {entry.key: entry.value for entry in tensor.external_data}
    offset, length = int(said.get("offset", 0)), int(said.get("length", 0))
    with (
        (folder / said["location"]).open("rb") as source,
        mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
    ):
        return hash(mapped[offset : offset + length if length else len(mapped)])


def _attribute(attribute: Any, folder: Path, names: Any) -> str:
    import onnx

    if attribute.type == onnx.AttributeProto.TENSOR:
        weight = _weight(attribute.t, folder, names)
        return f"{weight} of content {weight.content & 0xFFFFFFFF:08x}"
    if attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS):
        return f"a graph of content {hash(attribute.SerializeToString(deterministic=True)) & 0xFFFFFFFF:08x}"
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        text = value.decode(errors="replace")
    else:
        text = str(list(value)) if not isinstance(value, int | float | str) else f"{value}"
    return text if len(text) <= _SHOWN else f"{text[:_HELD]}… ({hash(text) & 0xFFFFFFFF:08x})"


def _values(values: Iterable[Any], names: Any) -> dict[str, str]:
    """Type and dimensions of tensors by name."""
    found = {}
    for value in values:
        tensor = value.type.tensor_type
        axes = [
            d.dim_param or (str(d.dim_value) if d.HasField("dim_value") else "?") for d in tensor.shape.dim
        ]
        found[value.name] = f"{names.Name(tensor.elem_type).lower()}[{', '.join(axes)}]"
    return found
