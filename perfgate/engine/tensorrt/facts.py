"""What a TensorRT engine is, whoever built it: layers, precision and memory, from its own inspector."""

from __future__ import annotations

import hashlib
from pathlib import Path

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
from perfgate.engine.tensorrt.weight_types import found_share
from perfgate.errors import CaseError
from perfgate.records import EngineFacts, Precision

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
