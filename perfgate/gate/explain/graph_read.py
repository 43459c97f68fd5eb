"""An ONNX file as the graph diff sees it: nodes with local signatures, and what flows between them."""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from perfgate.errors import SpecError
from perfgate.gate.explain.graph_shapes import Shape, tensor_shapes
from perfgate.model.external_data import external_files

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
