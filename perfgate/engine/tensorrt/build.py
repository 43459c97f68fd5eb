"""Parse, configure, build, serialise and inspect: what a TensorRT build is with its timing cache."""

from __future__ import annotations

import shutil
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from perfgate.engine import plugin_libraries as plugins
from perfgate.engine.gpu import free_memory_bytes
from perfgate.engine.interface import BuildRequest
from perfgate.engine.tensorrt.api import (
    Api,
    first_error,
    load_plugins,
    logger_of,
    make_progress,
    messages_of,
    say,
)
from perfgate.engine.tensorrt.facts import engine_facts
from perfgate.engine.tensorrt.onnx_names import Graph, network_name, profile_shapes, read_graph
from perfgate.engine.tensorrt.options import (
    FREE_MEMORY_OPTION,
    apply_options,
    check_islands,
    check_typing,
    constrain_islands,
    network_flags,
    tf32_of,
)
from perfgate.errors import CaseError, InfrastructureError
from perfgate.records import Count, EngineFacts, Recipe, Record, Text, Tf32, TimingKeys
from perfgate.util.files import write_bytes

_MIN_FREE_MIB = 4096
_MIN_FREE_DISK_BYTES = 1 << 30


def build_engine(api: Api, request: BuildRequest) -> EngineFacts:
    """Build, write and inspect the engine of a request.

    Raises `CaseError` for what the model or its options cannot do, and `InfrastructureError` for too
    little device memory or disk.
    """
    recipe, path = request.recipe, Path(request.onnx)
    check_typing(api, recipe)
    graph = read_graph(path)
    shapes = profile_shapes(graph.inputs, recipe.profile)
    if recipe.precision.startswith("int8") and not graph.quantised:
        raise CaseError(
            f"precision {recipe.precision!r} needs Q/DQ nodes in the graph and {path.name} has none",
            fix="let perfgate quantise the model, or export it with QuantizeLinear and DequantizeLinear",
        )
    notes = _preflight(request, graph, _least_free_bytes(recipe))
    logger = logger_of(api)
    logger.forget()
    target = Path(request.engine)
    placed = plugins.place(target, list(zip(recipe.plugins, request.plugins, strict=True)))
    load_plugins(api, placed, logger)
    started = time.perf_counter_ns()
    with warnings.catch_warnings():
        # The bindings warn of what a later version drops; what is there has been asked for by name.
        warnings.simplefilter("ignore", DeprecationWarning)
        built = _build(api, request, graph, shapes, logger, notes)
    build_ns = time.perf_counter_ns() - started
    write_bytes(target, built.plan)
    notes += built.notes
    facts, layers = engine_facts(api, built.plan, request, notes)
    check_islands(layers.layers, request.islands)
    return msgspec.structs.replace(
        facts,
        build_ns=build_ns,
        timing_cache_bytes=built.cache_bytes,
        timing_cache_loaded_bytes=built.loaded_bytes,
        timing_cache_keys=built.keys,
        tf32=built.tf32,
    )


class _Built(Record):
    """The serialised engine (`plan`), the timing cache's sizes before and after with its keys, and notes."""

    plan: bytes
    loaded_bytes: Count
    cache_bytes: Count
    keys: TimingKeys | None
    tf32: Tf32 | None
    notes: tuple[Text, ...]


def _build(
    api: Api,
    request: BuildRequest,
    graph: Graph,
    shapes: Mapping[str, tuple[tuple[int, ...], ...]],
    logger: Any,
    notes: list[str],
) -> _Built:
    """A function of its own so that parser, network and builder are freed before anything is loaded."""
    recipe, watch = request.recipe, _Watch()
    try:
        builder = api.trt.Builder(logger)
    except TypeError as error:  # the binding's way to say that TensorRT returned nothing
        raise InfrastructureError(
            f"{api} cannot start a builder: {messages_of(logger, warnings=True) or error}",
            fix="check the driver with nvidia-smi, and that a GPU is visible",
        ) from error
    watch.lap("to start the builder")
    network = builder.create_network(network_flags(api, recipe))
    parser = api.trt.OnnxParser(network, logger)
    parse(api, parser, Path(request.onnx), graph, logger)
    watch.lap("to parse")
    # The runtime knows no names of dimensions; the network's own name travels inside the engine.
    network.name = network_name(graph.inputs, recipe.plugins)
    config = builder.create_builder_config()
    notes += apply_options(api, config, recipe)
    if recipe.typing == "weak" and request.islands:
        notes.append(constrain_islands(api, network, config, request.islands, graph.nodes))
    _add_profile(builder, config, network, shapes)
    cache, loaded, cache_notes = load_timing_cache(api, config, request, logger)
    before = None if api.rtx else tactics(cache)  # in TensorRT for RTX the cache does nothing
    progress = make_progress(api)
    if progress is not None:
        config.progress_monitor = progress
    say(f"the builder of {api}")
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise CaseError(
            f"{api} cannot build the model: {first_error(logger)}",
            stderr_tail=messages_of(logger, warnings=True),
        )
    after = bytes(cache.serialize())
    watch.lap("to optimise and time")
    keys = timing_keys(before, None if before is None else tactics(cache))
    cache_notes += [cache_growth(len(loaded), len(after), keys), watch.note]
    if request.timing_cache_out:
        write_bytes(Path(request.timing_cache_out), after)
    return _Built(
        plan=bytes(plan),
        loaded_bytes=len(loaded),
        cache_bytes=len(after),
        keys=keys,
        tf32=tf32_of(api, config, recipe.precision),
        notes=tuple(cache_notes),
    )


class _Watch:
    """Where a build's time goes. A timing cache shortens the last step alone: to start 8.5's builder, which
    loads 1.6 GB of kernels, takes 4 s with it and without."""

    def __init__(self) -> None:
        self._last_ns = time.perf_counter_ns()
        self._laps: list[str] = []

    def lap(self, what: str) -> None:
        now_ns = time.perf_counter_ns()
        self._laps.append(f"{(now_ns - self._last_ns) / 1e9:.1f} s {what}")
        self._last_ns = now_ns

    @property
    def note(self) -> str:
        return f"took {', '.join(self._laps)}"


def parse(api: Api, parser: Any, path: Path, graph: Graph, logger: Any) -> None:
    """Parse by path, so that external weights resolve. Raises `CaseError` with every error found."""
    if parser.parse_from_file(str(path)):
        return
    errors = [_describe(parser.get_error(number), graph) for number in range(parser.num_errors)]
    said = "\n".join(dict.fromkeys(errors)) or first_error(logger)
    raise CaseError(
        f"{api} cannot parse {path.name}:\n{said}",
        stderr_tail=messages_of(logger, warnings=True),
        fix="replace the operator, lower the opset, or add a plugin that implements it",
    )


def _describe(error: Any, graph: Graph) -> str:
    """One parser error with node, operator, place in the graph, and where the parser met it."""
    index = int(error.node())
    known = graph.nodes[index] if 0 <= index < len(graph.nodes) else ("", "")
    # 10 names the node itself; 8.x gives only its index in the file.
    name = str(error.node_name()) if hasattr(error, "node_name") else known[0]
    operator = str(error.node_operator()) if hasattr(error, "node_operator") else known[1]
    where = f"graph.node[{index}] {name or '(no name)'!r} ({operator or 'unknown operator'})"
    if index < 0:
        where = "the graph"
    code = str(error.code()).rpartition(".")[2]
    return f"  {where}: {str(error.desc()).strip()} [{code} in {error.func()}]"


def _add_profile(
    builder: Any, config: Any, network: Any, shapes: Mapping[str, tuple[tuple[int, ...], ...]]
) -> None:
    inputs = [network.get_input(number) for number in range(network.num_inputs)]
    for tensor in inputs:
        if tensor.is_shape_tensor:
            raise CaseError(
                f"input {tensor.name!r} holds a shape, which perfgate cannot set",
                fix="make it a constant of the graph",
            )
    names = {tensor.name for tensor in inputs}
    used = {name: shape for name, shape in shapes.items() if name in names}
    if not used:
        return
    profile = builder.create_optimization_profile()
    try:
        for name, (least, best, most) in used.items():
            profile.set_shape(name, least, best, most)
    except ValueError as error:
        raise CaseError(f"the profile of the inputs {', '.join(used)} was refused: {error}") from error
    if config.add_optimization_profile(profile) < 0:
        raise CaseError("the optimisation profile was refused: " + ", ".join(sorted(used)))


def _least_free_bytes(recipe: Recipe) -> int:
    value = recipe.options.get(FREE_MEMORY_OPTION, _MIN_FREE_MIB)
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise CaseError(f"option {FREE_MEMORY_OPTION} = {value!r} is not valid", fix="give MiB, 0 or more")
    return int(value * (1 << 20))


def _preflight(request: BuildRequest, graph: Graph, least_bytes: int) -> list[str]:
    """Refuse a build that would fail, or choose slower tactics, for want of memory or disk."""
    folder = Path(request.engine).parent
    needed = _MIN_FREE_DISK_BYTES + graph.size_bytes
    free_disk = shutil.disk_usage(folder).free
    if free_disk < needed:
        raise InfrastructureError(
            f"{free_disk >> 20} MiB of disk are free and the build wants {needed >> 20}",
            where=folder,
            fix="free some space, or give another cache folder",
        )
    free = free_memory_bytes(request.device)
    if free is None:
        return ["free device memory is unknown: NVML gave no answer"]
    if free < least_bytes:
        raise InfrastructureError(
            f"{free >> 20} MiB of device memory are free and the build wants {least_bytes >> 20}",
            fix=f"stop what uses the GPU, or lower the option {FREE_MEMORY_OPTION} (MiB)",
        )
    return []


def load_timing_cache(
    api: Api, config: Any, request: BuildRequest, logger: Any
) -> tuple[Any, bytes, list[str]]:
    """The cache in use, the bytes that it was loaded from (empty for a fresh one), and notes."""
    loaded = Path(request.timing_cache).read_bytes() if request.timing_cache else b""
    editable = api.member("BuilderFlag", "EDITABLE_TIMING_CACHE")
    if editable is not None and not api.rtx:
        config.set_flag(editable)  # its keys can be listed, so misses are known
    if loaded:
        cache = config.create_timing_cache(loaded)
        if cache is not None and config.set_timing_cache(cache, False):
            return cache, loaded, []
        why = first_error(logger)
    cache = config.create_timing_cache(b"")
    if cache is None or not config.set_timing_cache(cache, False):
        raise api.lacks("a timing cache", first_error(logger))
    notes = [f"the timing cache was refused, so every tactic was timed anew: {why}"] if loaded else []
    return cache, b"", notes


def tactics(cache: Any) -> dict[str, int] | None:
    """The hash of the chosen tactic by key; None where this version lists no keys (before TensorRT 10.8, or
    without the flag EDITABLE_TIMING_CACHE)."""
    if not hasattr(cache, "queryKeys"):
        return None
    try:
        return {str(key): int(cache.query(key).tacticHash) for key in cache.queryKeys()}
    except RuntimeError:
        return None


def timing_keys(before: Mapping[str, int] | None, after: Mapping[str, int] | None) -> TimingKeys | None:
    """What a build did to its timing cache; None where a side's keys are unknown, or none are listed."""
    if before is None or not after:
        return None
    return TimingKeys(
        loaded=len(before),
        added=len(after.keys() - before.keys()),
        changed=sum(after.get(key, tactic) != tactic for key, tactic in before.items()),
    )


def cache_growth(loaded_bytes: int, after_bytes: int, keys: TimingKeys | None) -> str:
    """The growth in words."""
    grown = f"timing cache: loaded {loaded_bytes} bytes, grew by {after_bytes - loaded_bytes}"
    if keys is None:
        return f"{grown}; hits unknown in this version"
    return f"{grown}; {keys.loaded} keys loaded, {keys.added} added, {keys.changed} with another tactic"
