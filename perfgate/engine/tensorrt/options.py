"""Builder options under trtexec's names, typing and precision flags, tactic sources, nodes that stay in FP32.

Every option either takes effect or is a `CaseError` that names it and the version: an option that is
skipped in silence would be another engine under the same name. A strongly typed network needs no constraint
for a node that stays in FP32, its graph casts around it; what the builder made of it is looked at in either.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from perfgate.engine.tensorrt.api import Api
from perfgate.engine.tensorrt.inspect import Layer
from perfgate.errors import CaseError
from perfgate.records import Precision, Recipe, Tf32

Value = str | int | float | bool

_FLAGS = {
    "versionCompatible": "VERSION_COMPATIBLE",
    "excludeLeanRuntime": "EXCLUDE_LEAN_RUNTIME",
    "errorOnTimingCacheMiss": "ERROR_ON_TIMING_CACHE_MISS",
    "noCompilationCache": "DISABLE_COMPILATION_CACHE",
}
_NUMBERS = {
    "builderOptimizationLevel": "builder_optimization_level",
    "avgTiming": "avg_timing_iterations",
    "maxAuxStreams": "max_aux_streams",
    "maxTactics": "max_num_tactics",
}
_POOLS = {
    "workspace": "WORKSPACE",
    "dlaSRAM": "DLA_MANAGED_SRAM",
    "dlaLocalDRAM": "DLA_LOCAL_DRAM",
    "dlaGlobalDRAM": "DLA_GLOBAL_DRAM",
    "tacticSharedMem": "TACTIC_SHARED_MEMORY",
}
_LEVELS = {
    "none": "NONE",
    "ampere+": "AMPERE_PLUS",
    "samecomputecapability": "SAME_COMPUTE_CAPABILITY",
}
_SUFFIXES = {"": 1 << 20, "B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
# Ours, not trtexec's: MiB of free device memory that a build waits for.
FREE_MEMORY_OPTION = "minFreeMemory"
_ELSEWHERE = (FREE_MEMORY_OPTION, "tacticSources", "stronglyTyped")


def check_typing(api: Api, recipe: Recipe) -> None:
    """Raise `CaseError` when this TensorRT cannot build with the recipe's typing."""
    strongly = recipe.options.get("stronglyTyped")
    if strongly is not None and not isinstance(strongly, bool):
        raise _bad("stronglyTyped", strongly, "true or false")
    if strongly is not None and strongly != (recipe.typing == "strong"):
        raise CaseError(
            f"option stronglyTyped = {str(strongly).lower()} contradicts typing = {recipe.typing!r}",
            fix="set typing alone",
        )
    if recipe.typing == "weak" and api.always_strong:
        raise api.lacks("typing = 'weak'", "it builds strongly typed networks only")
    if recipe.typing == "strong" and not api.always_strong:
        api.need("NetworkDefinitionCreationFlag", "STRONGLY_TYPED", "typing = 'strong'")


def network_flags(api: Api, recipe: Recipe) -> int:
    """The bit mask for `Builder.create_network`."""
    enum = "NetworkDefinitionCreationFlag"
    mask = 0
    explicit = api.member(enum, "EXPLICIT_BATCH")
    # Needed before 10, deprecated and ignored in 10, gone in 11. TensorRT for RTX counts versions anew.
    if explicit is not None and not api.rtx and api.version < (10,):
        mask |= 1 << int(explicit)
    strongly = api.member(enum, "STRONGLY_TYPED")
    if strongly is not None and recipe.typing == "strong":
        mask |= 1 << int(strongly)
    return mask


def precision_flags(api: Api, precision: Precision, typing: str) -> tuple[str, ...]:
    """The builder flags that a weakly typed build needs for a precision; none in a strongly typed one."""
    names = () if typing == "strong" or precision == "fp32" else tuple(precision.upper().split("+"))
    for name in names:
        api.need("BuilderFlag", name, f"precision {precision!r} with weak typing")
    return names


def apply_options(api: Api, config: Any, recipe: Recipe) -> list[str]:
    """Set verbosity, precision, tactic sources and all options; returns what is worth noting.

    Raises `CaseError` for an option that is unknown, malformed, missing in this version, or refused.
    """
    # Without it the inspector knows names alone, and nobody could say what precision was realised.
    config.profiling_verbosity = api.trt.ProfilingVerbosity.DETAILED
    for name in precision_flags(api, recipe.precision, recipe.typing):
        config.set_flag(api.member("BuilderFlag", name))
    notes = [*_tactic_sources(api, config, recipe.options), _tf32(api, config, recipe)]
    for name, value in sorted(recipe.options.items()):
        if name in _SETTERS:
            _SETTERS[name](api, config, name, value)
        elif name not in _ELSEWHERE and name != "noTF32":
            known = ", ".join(sorted([*_SETTERS, *_ELSEWHERE, "noTF32"]))
            raise CaseError(f"unknown TensorRT build option {name!r}", fix=f"known options: {known}")
    return notes


def _set_flag(api: Api, config: Any, name: str, value: Value) -> None:
    if not isinstance(value, bool):
        raise _bad(name, value, "true or false")
    if value:
        flag = api.need("BuilderFlag", _FLAGS[name], f"option {name}")
        config.set_flag(flag)
        if not config.get_flag(flag):
            raise api.lacks(f"option {name}", f"the flag {_FLAGS[name]} was refused")


def _set_number(api: Api, config: Any, name: str, value: Value) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _bad(name, value, "a whole number")
    attribute = _NUMBERS[name]
    if not hasattr(type(config), attribute):
        raise api.lacks(f"option {name}", f"IBuilderConfig has no {attribute}")
    try:
        setattr(config, attribute, value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise api.lacks(f"option {name} = {value}", str(error)) from error
    # A number out of range is only logged by TensorRT: read it back.
    if getattr(config, attribute) != value:
        raise api.lacks(f"option {name} = {value}", f"it kept {getattr(config, attribute)}")


def _set_workspace(api: Api, config: Any, name: str, value: Value) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise _bad(name, value, "MiB, above 0")
    _set_pool(api, config, "workspace", int(value * (1 << 20)), f"option {name} = {value}")


def _set_pools(api: Api, config: Any, name: str, value: Value) -> None:
    for part in str(value).split(","):
        found = re.fullmatch(r"(\w+):(\d+(?:\.\d+)?)([BKMG]?)", part.strip())
        if not found or found[1] not in _POOLS:
            raise _bad(name, value, f"POOL:SIZE[B|K|M|G], ... with POOL of {', '.join(_POOLS)}")
        size = int(float(found[2]) * _SUFFIXES[found[3]])
        _set_pool(api, config, found[1], size, f"option {name} = {part.strip()!r}")


def _set_pool(api: Api, config: Any, pool: str, size: int, asked: str) -> None:
    member = api.need("MemoryPoolType", _POOLS[pool], asked)
    try:
        config.set_memory_pool_limit(member, size)
    except (TypeError, ValueError, RuntimeError) as error:
        raise api.lacks(asked, str(error)) from error
    if config.get_memory_pool_limit(member) != size:
        raise api.lacks(asked, f"it kept {config.get_memory_pool_limit(member)} bytes")


def _set_compatibility(api: Api, config: Any, name: str, value: Value) -> None:
    level = _LEVELS.get(str(value).lower())
    if level is None:
        raise _bad(name, value, "none, ampere+ or sameComputeCapability")
    if level != "NONE":
        config.hardware_compatibility_level = api.need(
            "HardwareCompatibilityLevel", level, f"option {name} = {value!r}"
        )


_Setter = Callable[[Api, Any, str, Value], None]
_SETTERS: dict[str, _Setter] = {
    **dict.fromkeys(_FLAGS, _set_flag),
    **dict.fromkeys(_NUMBERS, _set_number),
    "workspace": _set_workspace,
    "memPoolSize": _set_pools,
    "hardwareCompatibilityLevel": _set_compatibility,
}


def _tf32(api: Api, config: Any, recipe: Recipe) -> str:
    off = recipe.options.get("noTF32", False)
    if not isinstance(off, bool):
        raise _bad("noTF32", off, "true or false")
    flag = api.need("BuilderFlag", "TF32", "option noTF32") if off else api.member("BuilderFlag", "TF32")
    if flag is None:
        return "TF32: this TensorRT has no switch for it"
    if off:
        config.clear_flag(flag)
    on = config.get_flag(flag)
    return f"TF32 is {'on (the default): FP32 products may round to it' if on else 'off'}"


def tf32_of(api: Api, config: Any, precision: Precision) -> Tf32 | None:
    """Which FP32 products of a build may round to TF32; None where FP16 was asked for, or nobody can say."""
    flag = api.member("BuilderFlag", "TF32")
    if flag is None or precision.endswith("fp16"):
        return None
    return "on" if config.get_flag(flag) else "off"


def _tactic_sources(api: Api, config: Any, options: Mapping[str, Value]) -> list[str]:
    """Set the tactic sources. cuDNN is off unless asked for: 10 dropped it by default and 11 removed it,
    and where its library is absent 8.5 fails in the middle of a build."""
    asked = str(options.get("tacticSources", ""))
    mask = before = int(config.get_tactic_sources())
    notes = []
    cudnn = api.member("TacticSource", "CUDNN")
    if cudnn is not None and not re.search(r"[+-]CUDNN\b", asked):
        mask &= ~(1 << int(cudnn))
        notes.append("cuDNN tactics are off (perfgate's default; tacticSources = '+CUDNN' turns them on)")
    for part in filter(None, (word.strip() for word in asked.split(","))):
        found = re.fullmatch(r"([+-])(\w+)", part)
        if not found:
            raise _bad("tacticSources", asked, "'-CUDNN,+CUBLAS' and the like")
        source = api.need("TacticSource", found[2], f"option tacticSources = {part!r}")
        mask = mask | 1 << int(source) if found[1] == "+" else mask & ~(1 << int(source))
    if mask != before and not config.set_tactic_sources(mask):
        raise api.lacks(f"option tacticSources = {asked!r}", "the set was refused")
    return notes


def _bad(name: str, value: Value, wanted: str) -> CaseError:
    return CaseError(f"TensorRT build option {name} = {value!r} is not valid", fix=f"give {wanted}")


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
