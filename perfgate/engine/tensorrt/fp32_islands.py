"""Nodes that must stay in FP32: constraints on a weakly typed builder, and a look at what it did.

A strongly typed network needs no constraint: its graph casts around the node. The look is taken at both.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from perfgate.engine.tensorrt.api import Api
from perfgate.engine.tensorrt.inspect import Layer
from perfgate.errors import CaseError

_LOWER = ("fp16", "bf16", "int8", "fp8")


def constrain_islands(
    api: Api, network: Any, config: Any, islands: Sequence[str], nodes: Iterable[tuple[str, str]]
) -> str:
    """Demand FP32 of the layers that the parser made of these nodes; `nodes` are all (name, operator) of the
    graph. Returns a note; raises `CaseError` for a node that became no layer, so that nothing is demanded."""
    flag = api.need("BuilderFlag", "OBEY_PRECISION_CONSTRAINTS", "FP32 nodes in a weakly typed network")
    config.set_flag(flag)
    float_types = (api.trt.DataType.FLOAT, api.trt.DataType.HALF)
    others = {name for name, _ in nodes} - set(islands)
    met = set()
    for number in range(network.num_layers):
        layer = network.get_layer(number)
        name = None if layer.name in others else _island_of(layer.name, islands)
        if name is None:
            continue
        met.add(name)
        # Constants and shape arithmetic have no such choice, and a type set on them is refused.
        if layer.type in (api.trt.LayerType.CONSTANT, api.trt.LayerType.SHAPE):
            continue
        outputs = [layer.get_output(place) for place in range(layer.num_outputs)]
        if any(output.dtype in float_types for output in outputs):
            layer.precision = api.trt.DataType.FLOAT
            for place, output in enumerate(outputs):
                if output.dtype in float_types:
                    layer.set_output_type(place, api.trt.DataType.FLOAT)
    if lost := [name for name in islands if name not in met]:
        raise CaseError(
            f"the node {lost[0]!r} must stay in FP32, and {api} made no layer of that name of it",
            fix="set islands = false in [precision] if its FP16 is safe, or measure the model in fp32",
        )
    return f"{len(met)} nodes are kept in FP32 by constraint"


def _island_of(layer: str, islands: Sequence[str]) -> str | None:
    """The island that a layer comes from: the parser names layers as nodes, with a number for the second."""
    bare = re.sub(r"(?:_\d+| \[.*\])$", "", layer)
    return next((name for name in islands if name in (layer, bare)), None)


def check_islands(layers: Iterable[Layer], islands: Sequence[str]) -> None:
    """Raise `CaseError` that names the first island that a layer of the built engine computes below FP32."""
    wanted = set(islands)
    for layer in layers:
        kept = wanted.intersection(layer.onnx_nodes)
        if kept and layer.computes and layer.precision in _LOWER:
            raise CaseError(
                f"{sorted(kept)[0]!r} must stay in FP32, and the engine computes it in "
                f"{layer.precision.upper()} (layer {layer.name[:200]!r})",
                fix="exclude its neighbours too, in [precision], or measure the model in fp32",
            )
