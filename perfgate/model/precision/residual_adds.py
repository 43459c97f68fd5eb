"""Residual additions in a Q/DQ graph: the convolution's own result is added as it is, the other rounded."""

from __future__ import annotations

from collections import Counter
from typing import Any

_FUSED = ("Conv", "ConvTranspose")


def fix_residual_adds(model: Any) -> int:
    """Take the Q/DQ pair away between a convolution and an addition of its result; returns how many.

    TensorRT can run such an addition inside the convolution, with one rounding to INT8, if the *other* term
    alone is quantised (TensorRT Developer Guide, "Q/DQ Layer-Placement Recommendations": quantise the
    residual input in skip connections). With both quantised it rounds once more. Of two convolutions'
    results only the first can be free.
    """
    makers = {output: node for node in model.graph.node for output in node.output}
    uses = Counter(name for node in model.graph.node for name in node.input)
    uses.update(value.name for value in model.graph.output)
    gone: list[Any] = []
    for node in model.graph.node:
        if node.op_type != "Add":
            continue
        pairs = [_pair(makers, name) for name in node.input]
        if None in pairs:
            continue  # with one term in floating point it is free already
        for place, pair in enumerate(pairs):
            assert pair is not None
            quantise, dequantise = pair
            source = quantise.input[0]
            maker = makers.get(source)
            alone = max(uses[source], uses[quantise.output[0]], uses[dequantise.output[0]]) == 1
            if maker is not None and maker.op_type in _FUSED and alone:
                node.input[place] = source
                gone += [quantise, dequantise]
                break
    for node in gone:
        model.graph.node.remove(node)
    _drop_unused(model, {name for node in gone for name in node.input[1:]})
    return len(gone) // 2


def _pair(makers: dict[str, Any], name: str) -> tuple[Any, Any] | None:
    """The Q and DQ nodes that a tensor comes through, or None."""
    dequantise = makers.get(name)
    if dequantise is None or dequantise.op_type != "DequantizeLinear":
        return None
    quantise = makers.get(dequantise.input[0])
    return (quantise, dequantise) if quantise is not None and quantise.op_type == "QuantizeLinear" else None


def _drop_unused(model: Any, names: set[str]) -> None:
    used = {name for node in model.graph.node for name in node.input}
    for tensor in [one for one in model.graph.initializer if one.name in names - used]:
        model.graph.initializer.remove(tensor)
