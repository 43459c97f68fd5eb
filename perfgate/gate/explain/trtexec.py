"""The trtexec command that builds and measures what perfgate measured, in the flags of that TensorRT.

What trtexec does unasked changed in 11.0 (a CUDA graph, spinning, no transfers), and 10 and 11 dropped flags;
an unknown one ends it. So every mode is spelled out, in the words that the version has.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from perfgate.model.graph import GraphInput
from perfgate.records import Case, Protocol, Recipe

Version = tuple[int, ...]
EIGHT, TEN, ELEVEN = (8, 6), (10, 0), (11, 0)
_INFERENCE_STREAMS = (8, 6)
# trtexec flags that take no value, among the build options of a recipe.
_SWITCHES = (
    "versionCompatible",
    "excludeLeanRuntime",
    "errorOnTimingCacheMiss",
    "noCompilationCache",
    "noTF32",
)
_OURS = ("minFreeMemory", "stronglyTyped", "workspace", "tacticSources")


def build_and_run(
    recipe: Recipe, case: Case, inputs: Sequence[GraphInput], protocol: Protocol, version: Version, side: str
) -> list[str]:
    """The words of one command. It reads `<side>.onnx` and writes `<side>.engine` and three JSON files."""
    return [
        "trtexec",
        f"--onnx={side}.onnx",
        f"--saveEngine={side}.engine",
        *_shapes(recipe, case, inputs),
        *_precision(recipe, version),
        *_options(recipe, version),
        *_plugins(recipe, version),
        f"--timingCacheFile={side}.timing",
        "--profilingVerbosity=detailed",
        *_mode(case, version),
        *_protocol(protocol),
        f"--exportTimes={side}.times.json",
        f"--exportProfile={side}.profile.json",
        f"--exportLayerInfo={side}.layers.json",
    ]


def shell_line(words: Sequence[str]) -> str:
    """The words for a shell, one a line."""
    return " \\\n    ".join(shlex.quote(word) for word in words)


def _shapes(recipe: Recipe, case: Case, inputs: Sequence[GraphInput]) -> list[str]:
    """The profile, and the measured shape, of every input with a dynamic dimension."""
    dynamic = [value for value in inputs if any(isinstance(axis, str) for axis in value.axes)]
    if not dynamic:
        return []
    rows = {
        "min": {name: one.min for name, one in recipe.profile.items()},
        "opt": {name: one.opt for name, one in recipe.profile.items()},
        "max": {name: one.max for name, one in recipe.profile.items()},
    }
    flags = [f"--{word}Shapes={_spelled(dynamic, {**case.shape, **sizes})}" for word, sizes in rows.items()]
    return [*flags, f"--shapes={_spelled(dynamic, case.shape)}"]


def _spelled(inputs: Sequence[GraphInput], sizes: dict[str, int]) -> str:
    return ",".join(
        f"{value.name}:{'x'.join(str(sizes.get(a, 1) if isinstance(a, str) else a) for a in value.axes)}"
        for value in inputs
    )


def _precision(recipe: Recipe, version: Version) -> list[str]:
    """From 11 on types are the graph's alone; before, a weakly typed build is asked by flags."""
    if version >= ELEVEN:
        return []
    if recipe.typing == "strong":
        return ["--stronglyTyped"] if version >= (9,) else []
    return [f"--{name}" for name in recipe.precision.split("+") if name != "fp32"]


def _options(recipe: Recipe, version: Version) -> list[str]:
    words = []
    for name, value in sorted(recipe.options.items()):
        if name in _SWITCHES:
            words += [f"--{name}"] if value else []
        elif name not in _OURS:
            words.append(f"--{name}={value}")
    if "workspace" in recipe.options:
        words.append(f"--memPoolSize=workspace:{recipe.options['workspace']}M")
    sources = str(recipe.options.get("tacticSources", ""))
    if version < TEN and "CUDNN" not in sources:
        sources = ",".join(filter(None, (sources, "-CUDNN")))  # perfgate's default
    return [*words, f"--tacticSources={sources}"] if sources else words


def _plugins(recipe: Recipe, version: Version) -> list[str]:
    flag = "--staticPlugins" if version >= EIGHT else "--plugins"
    return [f"{flag}=plugins/{digest[:16]}.so" for digest in recipe.plugins]


def _mode(case: Case, version: Version) -> list[str]:
    mode = case.mode
    if version >= ELEVEN:
        words = [] if mode.drive == "graph" else ["--noCudaGraph"]
        words += [] if mode.wait == "spin" else ["--noSpinWait"]
        words += ["--includeDataTransfers"] if mode.transfers else []
    else:
        words = ["--useCudaGraph"] if mode.drive == "graph" else []
        words += ["--useSpinWait"] if mode.wait == "spin" else []
        words += [] if mode.transfers else ["--noDataTransfers"]
        words.append("--separateProfileRun")
    if mode.streams > 1:
        flag = "--infStreams" if version >= _INFERENCE_STREAMS else "--streams"
        words.append(f"{flag}={mode.streams}")
    return words


def _protocol(protocol: Protocol) -> list[str]:
    seconds = max(1, -(-protocol.duration_ns // 1_000_000_000))
    return [
        f"--warmUp={protocol.warmup_ns // 1_000_000}",
        f"--duration={seconds}",
        f"--iterations={protocol.min_samples}",
    ]
