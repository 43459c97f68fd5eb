"""FP16 by graph conversion: ONNX Runtime's converter, with islands of FP32 where FP16 would overflow.

The converter itself does not look at ranges: it clamps weights and lets activations overflow.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from perfgate.model.precision.data import Arrays
from perfgate.model.precision.normalise import matching
from perfgate.model.precision.probe import FP16_MAX, element_types, largest
from perfgate.records import Count, Record, Text

# Half of FP16's end: data that was not seen may be larger than what was.
ISLAND_LIMIT = FP16_MAX / 2
FP16_LEAST = 2.0**-24
_SHOWN = 8


class Converted(Record):
    """What conversion did: the FP32 nodes of the written graph, what a reader of a report should know, and
    how long calibration took of it."""

    islands: tuple[Text, ...] = ()
    notes: tuple[Text, ...] = ()
    calibration_ns: Count = 0


def convert_fp16(
    prepared: Path,
    target: Path,
    *,
    keep_io: bool,
    exclude: tuple[str, ...],
    batches: Iterable[Arrays] | None,
) -> Converted:
    """Write the FP16 graph of a prepared one; `batches` find overflow-prone nodes (None: not looked for)."""
    import onnx
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    model = onnx.load(str(prepared))
    excluded = matching(model, exclude)
    hot = overflowing(prepared, model, batches) if batches is not None else {}
    weights = _out_of_range(model)
    islands = list(dict.fromkeys([*excluded, *hot]))
    # The converter's block list is about operators without an FP16 kernel in ONNX Runtime; ours by name.
    converted = convert_float_to_float16(
        model, keep_io_types=keep_io, op_block_list=DEFAULT_OP_BLOCK_LIST, node_block_list=islands
    )
    join_islands(converted)
    OnnxModel(converted).topological_sort()
    onnx.save_model(converted, str(target))
    return Converted(islands=tuple(islands), notes=(*island_notes(hot), *_clamp_notes(converted, weights)))


def join_islands(model: Any) -> None:
    """Between two FP32 nodes the converter casts to FP16 and back, which overflows just where FP32 was asked
    for: such pairs are taken out."""
    from onnx import TensorProto

    casts = {
        (node.output[0], to): node
        for node in model.graph.node
        if node.op_type == "Cast" and (to := next(a.i for a in node.attribute if a.name == "to"))
    }
    joined = {
        output: down.input[0]
        for (output, to), node in casts.items()
        if to == TensorProto.FLOAT and (down := casts.get((node.input[0], TensorProto.FLOAT16))) is not None
    }
    if not joined:
        return
    # A cast of the model's own may start from another type.
    kinds = element_types(model)
    joined = {name: source for name, source in joined.items() if kinds.get(source) == TensorProto.FLOAT}
    outputs = {value.name for value in model.graph.output}
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            if name in joined:
                node.input[place] = joined[name]
    used = {name for node in model.graph.node for name in node.input} | outputs
    dead = [node for node in model.graph.node if node.op_type == "Cast" and not used & set(node.output)]
    while dead:
        for node in dead:
            model.graph.node.remove(node)
        used = {name for node in model.graph.node for name in node.input} | outputs
        dead = [node for node in model.graph.node if node.op_type == "Cast" and not used & set(node.output)]


def overflowing(prepared: Path, model: Any, batches: Iterable[Arrays]) -> dict[str, float]:
    """Nodes that make or take a tensor larger than the limit, with the largest magnitude."""
    large = {f.tensor: f.value for f in largest(prepared, batches) if not f.value <= ISLAND_LIMIT}
    return {
        node.name: max(large[tensor] for tensor in touched)
        for node in model.graph.node
        if (touched := [tensor for tensor in (*node.output, *node.input) if tensor in large])
    }


def _out_of_range(model: Any) -> dict[str, tuple[int, int]]:
    """By initialiser: how many values are beyond FP16's end, and how many are under its least number."""
    import numpy as np
    from onnx import TensorProto, numpy_helper

    found = {}
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            size = np.abs(numpy_helper.to_array(tensor))
            over = int(np.count_nonzero(size > FP16_MAX))
            under = int(np.count_nonzero((size > 0) & (size < FP16_LEAST)))
            if over or under:
                found[tensor.name] = (over, under)
    return found


def _clamp_notes(converted: Any, weights: dict[str, tuple[int, int]]) -> list[str]:
    from onnx import TensorProto

    half = {one.name for one in converted.graph.initializer if one.data_type == TensorProto.FLOAT16}
    clamped = {name: counts for name, counts in weights.items() if name in half}
    notes = []
    for place, said in ((0, f"above {FP16_MAX:.0f}, clamped to it"), (1, "too small for FP16, set to 6e-8")):
        names = [name for name, counts in clamped.items() if counts[place]]
        if names:
            total = sum(clamped[name][place] for name in names)
            notes.append(f"fp16: {total} weights {said}: {_some(names)}")
    return notes


def island_notes(hot: dict[str, float]) -> list[str]:
    """What to say of nodes that calibration data drives near FP16's end."""
    if not hot:
        return []
    named = [f"{name} (up to {value:.3g})" for name, value in hot.items()]
    return [f"fp16: kept in FP32, because calibration drives it near FP16's end: {_some(named)}"]


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
