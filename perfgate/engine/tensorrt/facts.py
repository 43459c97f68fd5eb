"""What a TensorRT engine is, whoever built it: layers, precision and memory, from its own inspector."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from perfgate.engine.interface import BuildRequest
from perfgate.engine.plugin_libraries import beside
from perfgate.engine.tensorrt.api import Api, first_error, load_plugins, logger_of, messages_of
from perfgate.engine.tensorrt.inspect import (
    Layers,
    layer_share,
    pack_layers,
    read_layers,
    realised,
    stored_share,
    weight_share,
)
from perfgate.engine.tensorrt.onnx_names import plugins_in, read_graph
from perfgate.errors import CaseError
from perfgate.records import EngineFacts, Precision

if TYPE_CHECKING:
    import numpy as np


_NAMES_ALONE = "its layers are names alone: trtexec --profilingVerbosity=detailed builds it so that they tell"


def prebuilt_facts(api: Api, request: BuildRequest) -> EngineFacts:
    """The facts of `request.engine`, which was built elsewhere, held against the recipe's precision.

    Starts CUDA. Raises `CaseError` when the engine does not load.
    """
    logger_of(api).forget()
    plan = Path(request.engine).read_bytes()
    facts, layers = engine_facts(api, plan, request, ["built elsewhere"])
    if facts.unmet and not layers.detailed:
        return msgspec.structs.replace(facts, unmet=f"{facts.unmet}; {_NAMES_ALONE}")
    return facts


def engine_facts(
    api: Api, plan: bytes, request: BuildRequest, notes: list[str]
) -> tuple[EngineFacts, Layers]:
    """The facts of a serialised engine with its layers, held against the precision and the graph that were
    asked for; `notes` take what else is worth noting.

    Starts CUDA. Raises `CaseError` when the engine does not load.
    """
    precision = request.recipe.precision
    layers, memory = inspect_engine(api, plan, Path(request.engine), notes)
    share = layer_share(layers.layers)
    notes += _precision_notes(layers)
    if layers.layers and not share:
        share, told = _of_weights(plan, Path(request.onnx), precision)
        notes.append(f"the layers are opaque blocks; precision is told from {told}")
    facts = EngineFacts(
        digest=hashlib.sha256(plan).hexdigest(),
        engine_bytes=len(plan),
        layers=len(layers.layers),
        precision_share=share,
        device_memory_bytes=memory,
        layer_record=pack_layers(layers),
        unmet=(realised(precision, share) or "") if layers.layers else "",
        notes=tuple(notes),
    )
    return facts, layers


def _of_weights(plan: bytes, onnx_file: Path, precision: Precision) -> tuple[dict[str, float], str]:
    """The types that an engine stores its weights in, and how that is known."""
    if precision == "fp16" and (share := found_share(plan, onnx_file)):
        return share, "the weights that were found in it"
    share = stored_share(len(plan), read_graph(onnx_file).weights, precision)
    least = ", at least so much of the narrower type" if len(share) > 1 else ""
    return share, f"the size of the stored weights{least}"


def inspect_engine(api: Api, plan: bytes, file: Path, notes: list[str]) -> tuple[Layers, int | None]:
    """The layers of an engine that was read from `file`, and its activation memory in bytes; adds to `notes`
    what could not be read.

    Starts CUDA. Raises `CaseError` when the engine does not load.
    """
    logger = logger_of(api)
    load_plugins(api, beside(file, plugins_in(plan)), logger)
    try:
        runtime = api.trt.Runtime(logger)
    except TypeError:
        runtime = None
    if runtime is not None and hasattr(runtime, "engine_host_code_allowed"):
        runtime.engine_host_code_allowed = True  # a version-compatible engine of our own making
    engine = None if runtime is None else runtime.deserialize_cuda_engine(plan)
    if engine is None:
        if not api.rtx:
            raise CaseError(
                f"{api} cannot load the engine: {first_error(logger)}",
                stderr_tail=messages_of(logger, warnings=True),
                fix="an engine loads only with the TensorRT and the GPU that built it: build it again",
            )
        notes.append("the engine was not inspected: TensorRT for RTX loads it only on an RTX GPU")
        return Layers(), None
    inspector = engine.create_engine_inspector()
    text = inspector.get_engine_information(api.trt.LayerInformationFormat.JSON)
    newer = hasattr(engine, "device_memory_size_v2")  # 10.1; the older name is gone in 11
    memory = engine.device_memory_size_v2 if newer else engine.device_memory_size
    del inspector, engine, runtime
    try:
        return read_layers(text), int(memory)
    except ValueError as error:
        notes.append(f"the engine inspector's answer cannot be read: {error}")
        return Layers(), int(memory)


def _precision_notes(layers: Layers) -> list[str]:
    weights = weight_share(layers.layers)
    said = ", ".join(f"{kind} {part:.1%}" for kind, part in weights.items())
    return [f"weights by type: {said}"] if said else []


_TENSORS = 24
_LEAST_ELEMENTS = 4096  # below it are biases and scales, of which kernels keep copies of their own
_RUN, _ALIGNED = 4, 8  # elements: what layouts that kernels read by vectors keep together


def found_share(plan: bytes, onnx_file: Path) -> dict[str, float]:
    """The share of stored weights (elements) by type, `fp16` and `fp32`; empty where less than half of what
    was looked for was found.

    Of up to 24 weights spread over the graph, four neighbours along the last or the first axis are looked for
    in both types: four random FP16 numbers have some fifty random bits, so that in 400 MB they are found by
    chance once in ten million. Weights that a builder scaled, folded or laid out in smaller pieces are not
    found. What is stored in both types counts in both.
    """
    stored: Counter[str] = Counter()
    looked_for = found = 0
    for weight in _weights(onnx_file):
        runs = list(_runs(weight))
        if not runs:
            continue
        looked_for += 1
        kinds = {
            kind for kind in ("float16", "float32") if any(run.astype(kind).tobytes() in plan for run in runs)
        }
        found += bool(kinds)
        stored.update(dict.fromkeys(kinds, weight.size))
    if not found or 2 * found < looked_for:
        return {}
    total = sum(stored.values())
    return {
        f"fp{kind.removeprefix('float')}": round(size / total, 4) for kind, size in sorted(stored.items())
    }


def _weights(onnx_file: Path) -> Iterator[np.ndarray[Any, Any]]:
    """Weights of the graph, spread over it."""
    import onnx
    from onnx import TensorProto, numpy_helper
    from onnx.external_data_helper import load_external_data_for_tensor, uses_external_data

    graph = onnx.load(str(onnx_file), load_external_data=False).graph
    fitting = [
        tensor
        for tensor in graph.initializer
        if tensor.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16)
        and len(tensor.dims) > 1
        and math.prod(tensor.dims) >= _LEAST_ELEMENTS
    ]
    count = min(_TENSORS, len(fitting))
    for number in range(count):
        tensor = fitting[number * len(fitting) // count]
        if uses_external_data(tensor):
            load_external_data_for_tensor(tensor, str(onnx_file.parent))
        yield numpy_helper.to_array(tensor)


def _runs(weight: np.ndarray[Any, Any]) -> Iterator[np.ndarray[Any, Any]]:
    """Neighbours in the middle of a weight, along its last and its first axis."""
    import numpy as np

    for line in (weight.reshape(-1, weight.shape[-1]), weight.reshape(weight.shape[0], -1).T):
        start = line.shape[1] // 2 // _ALIGNED * _ALIGNED
        run = line[len(line) // 2, start : start + _RUN]
        if len(np.unique(run.astype("float16"))) == _RUN:  # ones are everywhere
            yield run
