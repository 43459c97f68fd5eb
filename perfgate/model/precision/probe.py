"""Looking inside a graph: how large every tensor grows, and where NaN and infinity begin.

Every float tensor is reduced to one number inside the graph itself, so that a whole network is watched in
one run and no activation leaves it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from perfgate.errors import CaseError
from perfgate.records import Name, Record

# NumPy arrays by the name of their tensor.
Arrays: TypeAlias = Mapping[str, Any]

FP16_MAX = 65504.0


class Found(Record):
    """A tensor in the order of the graph, the node that makes it, and the number it was reduced to."""

    node: Name
    operator: Name
    tensor: Name
    value: float


def largest(path: Path, batches: Iterable[Arrays]) -> list[Found]:
    """The largest magnitude of every float tensor over all batches (infinite where one is not finite)."""
    import math

    import numpy as np

    watched, totals = _Watched(path, "ReduceMax"), np.zeros(0)
    for batch in batches:
        values = np.array([math.inf if math.isnan(v) else v for v in watched.run(batch)])
        totals = np.maximum(totals, values) if totals.size else values
    return watched.named(totals)


def first_nonfinite(path: Path, batches: Iterable[Arrays]) -> Found | None:
    """The first tensor in the graph's order that holds NaN or infinity on one of the batches."""
    watched = _Watched(path, "ReduceSum")  # x - x is 0 for every finite x, and NaN for all others
    found = None
    for batch in batches:
        for item in watched.named(watched.run(batch)):
            if item.value != 0 and (found is None or watched.order(item) < watched.order(found)):
                found = item
                break
    return found


class _Watched:
    """A session of the graph whose only outputs are the reduced tensors."""

    def __init__(self, path: Path, reduce: str) -> None:
        import onnx

        model = onnx.load(str(path))
        kinds = element_types(model)
        floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
        self._nodes = [
            (node.name or tensor, node.op_type, tensor)
            for node in model.graph.node
            for tensor in node.output
            if kinds.get(tensor) in floats
        ]
        keep_fp16(model, kinds)
        del model.graph.output[:]
        for _, _, tensor in self._nodes:
            _reduce(model, tensor, reduce)
        self._session = _session_of(model)
        self._places = {tensor: place for place, (_, _, tensor) in enumerate(self._nodes)}

    def run(self, batch: Arrays) -> list[float]:
        return [float(value) for value in self._session.run(None, dict(batch))]

    def order(self, found: Found) -> int:
        return self._places[found.tensor]

    def named(self, values: Iterable[float]) -> list[Found]:
        return [
            Found(node=node, operator=operator, tensor=tensor, value=float(value))
            for (node, operator, tensor), value in zip(self._nodes, values, strict=True)
        ]


def _reduce(model: Any, tensor: str, reduce: str) -> None:
    """Nodes that make one number of a tensor: its largest magnitude, or 0 unless something is not finite."""
    from onnx import TensorProto, helper

    name = f"{tensor}__perfgate"
    nodes = [helper.make_node("Cast", [tensor], [f"{name}_f"], to=TensorProto.FLOAT)]
    if reduce == "ReduceMax":
        nodes.append(helper.make_node("Abs", [f"{name}_f"], [f"{name}_w"]))
    else:
        nodes.append(helper.make_node("Sub", [f"{name}_f", f"{name}_f"], [f"{name}_w"]))
    nodes.append(helper.make_node(reduce, [f"{name}_w"], [name], keepdims=0))
    model.graph.node.extend(nodes)
    model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, []))


def keep_fp16(model: Any, kinds: Mapping[str, int]) -> None:
    """Make ONNX Runtime's CPU provider round to FP16 where the graph does; `kinds` are types by tensor.

    It has no FP16 arithmetic: it computes in FP32 between casts, and removes a cast to FP16 that is followed
    by one back, so that no FP16 model would ever overflow. It leaves two Identity nodes in a row alone (one
    it takes for an isolated FP16 node, and moves it to FP32). Needs a session without optimisations.
    """
    from onnx import TensorProto, helper

    outputs = {value.name for value in model.graph.output}
    nodes = []
    for node in list(model.graph.node):
        nodes.append(node)
        for place, tensor in enumerate(node.output):
            if kinds.get(tensor) == TensorProto.FLOAT16 and tensor not in outputs:
                raw, between = f"{tensor}__raw", f"{tensor}__between"
                node.output[place] = raw
                nodes += [
                    helper.make_node("Identity", [raw], [between], f"{raw}_identity"),
                    helper.make_node("Identity", [between], [tensor], f"{between}_identity"),
                ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def element_types(model: Any) -> dict[str, int]:
    """The element type of every tensor that shape inference can name."""
    import onnx

    graph = onnx.shape_inference.infer_shapes(model).graph
    values = (*graph.value_info, *graph.output, *graph.input)
    return {value.name: value.type.tensor_type.elem_type for value in values}


def faithful_session(path: Path) -> Any:
    """A session that rounds to FP16 wherever the graph does, on a machine without FP16 arithmetic."""
    import onnx

    model = onnx.load(str(path))
    keep_fp16(model, element_types(model))
    return _session_of(model)


def _session_of(model: Any) -> Any:
    try:
        return plain_session(model.SerializeToString())
    except ValueError as error:  # protobuf's limit
        raise CaseError("the graph is larger than 2 GiB and cannot be looked into") from error


def plain_session(model: bytes | str) -> Any:
    """ONNX Runtime on the CPU with its optimisations off: the graph as it is written."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
