"""ONNX Runtime's layers: the nodes of an optimised model, what they were made of, and their own profile."""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perfgate.engine.interface import LayerTimes, Runner, faster_half_mean
from perfgate.engine.tensorrt.inspect import Layer, Layers, element_type
from perfgate.errors import CaseError
from perfgate.records import Tensor
from perfgate.util.files import read_bytes

if TYPE_CHECKING:
    import numpy as np

# What its optimisers add to the name of the node that they replace.
_DECORATION = re.compile(r"^fused |_nchwc$|_nhwc$|/?_?(?:FusedMatMul|Fused[A-Z]\w*)(?:Node)?$|_token_\d+$")
_KERNEL = "_kernel_time"
_PROFILE_LIMIT_BYTES = 1 << 30
_LEAST_QUERIES = 10
_LONGEST_NS = 300_000_000


def read_ort_layers(engine: Path, source: Path) -> Layers:
    """The nodes of the optimised model `engine`, with the nodes of the ONNX file `source` in each."""
    import onnx

    optimised = onnx.load(str(engine), load_external_data=False).graph
    original = _Origin(onnx.load(str(source), load_external_data=False).graph)
    types = {tensor.name: tensor.data_type for tensor in optimised.initializer}
    types |= {value.name: value.type.tensor_type.elem_type for value in optimised.value_info}
    names = onnx.TensorProto.DataType
    layers = []
    for index, node in enumerate(optimised.node):
        held = next((types[name] for name in (*node.input, *node.output) if types.get(name)), 0)
        layers.append(
            Layer(
                name=_name(node.name, node.op_type, index),
                type=node.op_type,
                precision=element_type(names.Name(held)) if held else "",
                onnx_nodes=original.nodes_in(node.name, node.op_type),
            )
        )
    return Layers(detailed=True, layers=tuple(layers))


def _name(name: str, operator: str, index: int) -> str:
    return name or f"{operator}_{index}"  # as its profile calls a node without a name


class _Origin:
    """The graph as it was: which nodes went into one of the optimised nodes."""

    def __init__(self, graph: Any) -> None:
        self._nodes = {node.name: node for node in graph.node if node.name}
        self._maker = {output: node for node in graph.node for output in node.output}

    def nodes_in(self, name: str, operator: str) -> tuple[str, ...]:
        """A fused node carries the last node's name and the first one's operator: what lies between them."""
        node = self._nodes.get(name) or self._nodes.get(_DECORATION.sub("", name))
        if node is None:
            return ()
        chain = [node.name]
        while node is not None and node.op_type != operator:
            node = next((self._maker[i] for i in node.input if i in self._maker), None)
            if node is not None and node.name:
                chain.append(node.name)
        # A walk that never met the operator says nothing of what was fused.
        return tuple(reversed(chain)) if node is not None else (chain[0],)


def profile_nodes(
    start: Callable[[str], tuple[Any, Runner]], make: Callable[[Tensor], np.ndarray], queries: int
) -> LayerTimes:
    """Run a session with its profiler on. `start` opens it, given where its file goes. Raises `CaseError`."""
    with tempfile.TemporaryDirectory(prefix="perfgate-profile-") as folder:
        session, runner = start(str(Path(folder) / "profile"))
        runner.bind({tensor.name: make(tensor) for tensor in runner.inputs})
        for _ in range(3):
            runner.infer()
        started, count = time.perf_counter_ns(), 0
        while count < _LEAST_QUERIES or (count < queries and time.perf_counter_ns() - started < _LONGEST_NS):
            runner.infer()
            count += 1
        try:
            events = json.loads(read_bytes(Path(session.end_profiling()), limit_bytes=_PROFILE_LIMIT_BYTES))
        except ValueError as error:
            raise CaseError(f"ONNX Runtime's profile is not JSON: {error}") from error
    return read_profile(events, count)


def read_profile(events: list[dict[str, Any]], queries: int) -> LayerTimes:
    """Times by node from ONNX Runtime's profile (durations in microseconds); the last `queries` of each."""
    times: dict[str, list[float]] = defaultdict(list)
    for event in events:
        name = str(event.get("name", ""))
        if event.get("cat") == "Node" and name.endswith(_KERNEL):
            about = event.get("args", {})
            key = _name(
                name.removesuffix(_KERNEL), str(about.get("op_name", "")), int(about.get("node_index", 0))
            )
            times[key].append(float(event.get("dur", 0)) * 1000)
    if not times:
        raise CaseError("ONNX Runtime's profile holds no node")
    return LayerTimes(
        layers_ns={name: faster_half_mean(found[-queries:]) for name, found in times.items()}, queries=queries
    )
