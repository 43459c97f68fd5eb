"""The shapes of all tensors of an ONNX graph, as far as shape inference can tell them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

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
