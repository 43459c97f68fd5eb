"""What TensorRT's own API does not tell of an ONNX file: the names of dimensions and nodes."""

from __future__ import annotations

import math
import re
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perfgate.errors import CaseError
from perfgate.records import Dimension, Record

Dims = tuple[int | str, ...]
_NAME_PREFIX = "perfgate?"


class Graph(Record):
    """The inputs by name, with numbers or dimension names; the nodes as (name, operator) in file order;
    the model's size with its external weights, and how many numbers its weights are."""

    inputs: dict[str, Dims]
    nodes: tuple[tuple[str, str], ...]
    size_bytes: int
    weights: int = 0

    @property
    def quantised(self) -> bool:
        """Whether the graph carries its INT8 scales (Q/DQ nodes)."""
        return any(operator in ("QuantizeLinear", "DequantizeLinear") for _, operator in self.nodes)


def read_graph(path: Path) -> Graph:
    """Read the graph without its weights. Raises `CaseError` for a dynamic dimension without a name."""
    import onnx

    try:
        graph = onnx.load(str(path), load_external_data=False).graph
    except Exception as error:  # protobuf and onnx raise families of their own
        raise CaseError(f"{path.name} is not a readable ONNX file: {error}") from error
    weights = {tensor.name for tensor in graph.initializer}
    used = _used_names(graph)
    beside = {
        path.parent / entry.value
        for tensor in graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    inputs: dict[str, Dims] = {}
    for value in graph.input:
        if value.name in weights:
            continue
        axes: list[int | str] = []
        for number, axis in enumerate(value.type.tensor_type.shape.dim):
            if not axis.dim_param and (not axis.HasField("dim_value") or axis.dim_value < 0):
                raise CaseError(
                    f"input {value.name!r} has a dynamic dimension without a name (axis {number})",
                    fix="name the dimension when exporting (dynamic_axes or dim_param), or make it fixed",
                )
            axes.append(axis.dim_param or int(axis.dim_value))
        inputs[value.name] = tuple(axes)
    return Graph(
        inputs=inputs,
        nodes=tuple((node.name, node.op_type) for node in graph.node),
        size_bytes=sum(file.stat().st_size for file in (path, *beside) if file.is_file()),
        weights=sum(math.prod(tensor.dims) for tensor in graph.initializer if tensor.name in used),
    )


def _used_names(graph: Any) -> set[str]:
    """Every tensor that a node takes, in the graph or in a branch or loop of it."""
    used = {name for node in graph.node for name in node.input}
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                used |= _used_names(inner)
    return used


def profile_shapes(
    inputs: Mapping[str, Dims], profile: Mapping[str, Dimension]
) -> dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]:
    """The (min, opt, max) shapes of every input with a named dimension.

    Raises `CaseError` for a dimension without a range, a range without its dimension, and a range that is
    not ordered.
    """
    named = {axis for dims in inputs.values() for axis in dims if isinstance(axis, str)}
    for name in sorted(named - set(profile)):
        raise CaseError(
            f"dimension {name!r} is dynamic and has no range",
            fix=f"add [profile.{name}] with min, opt and max to the model's TOML",
        )
    for name in sorted(set(profile) - named):
        known = ", ".join(sorted(named)) or "none"
        raise CaseError(f"the profile has a range for {name!r}; the model's dynamic dimensions: {known}")
    for name, size in profile.items():
        if not size.min <= size.opt <= size.max:
            raise CaseError(
                f"the profile of {name!r} is not ordered: min {size.min}, opt {size.opt}, max {size.max}"
            )
    shapes = {}
    for name, dims in inputs.items():
        if any(isinstance(axis, str) for axis in dims):
            ranges = [
                profile[axis] if isinstance(axis, str) else Dimension(min=axis, opt=axis, max=axis)
                for axis in dims
            ]
            shapes[name] = (
                tuple(size.min for size in ranges),
                tuple(size.opt for size in ranges),
                tuple(size.max for size in ranges),
            )
    return shapes


def network_name(inputs: Mapping[str, Dims], plugins: tuple[str, ...]) -> str:
    """A name for the network, kept inside the engine, that says what a runtime no longer knows:
    how the inputs' dimensions are called, and which plugin libraries the engine needs."""
    pairs = [
        (f"in.{name}", ",".join(urllib.parse.quote(str(axis)) for axis in dims))
        for name, dims in sorted(inputs.items())
    ]
    return f"{_NAME_PREFIX}{urllib.parse.urlencode([*pairs, *(('plugin', path) for path in plugins)])}#"


def read_network_name(name: str) -> tuple[dict[str, Dims], tuple[str, ...]]:
    """The inverse of `network_name`; both empty for an engine that perfgate did not build."""
    if not name.startswith(_NAME_PREFIX):
        return {}, ()
    inputs: dict[str, Dims] = {}
    plugins: list[str] = []
    for key, value in urllib.parse.parse_qsl(name[len(_NAME_PREFIX) :].rstrip("#"), keep_blank_values=True):
        if key == "plugin":
            plugins.append(value)
        else:
            axes = [urllib.parse.unquote(axis) for axis in value.split(",")] if value else []
            inputs[key.removeprefix("in.")] = tuple(int(a) if a.isdigit() else a for a in axes)
    return inputs, tuple(plugins)


def plugins_in(engine: bytes) -> tuple[str, ...]:
    """The plugin libraries that a serialised engine's network name asks for. Read from the bytes, because
    the engine loads only once they are there; empty where the name is not stored as text."""
    found = re.search(rb"perfgate\?[\x21-\x7e]*?#", engine)
    return read_network_name(found[0].decode("ascii"))[1] if found else ()


def concrete_shape(name: str, dims: Dims, shape: Mapping[str, int]) -> tuple[int, ...]:
    """An input's shape at the measured sizes. Raises `CaseError` for a size that the case does not give."""
    missing = [axis for axis in dims if isinstance(axis, str) and axis not in shape]
    if missing:
        raise CaseError(
            f"input {name!r} has a dynamic dimension {missing[0]!r} and the case gives no size for it",
            fix=f"give dims.{missing[0]} in the model's TOML",
        )
    return tuple(shape[axis] if isinstance(axis, str) else axis for axis in dims)
