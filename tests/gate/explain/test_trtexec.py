"""trtexec's commands: flags by version, from what trtexec lists in 8.5, 8.6, 10 and 11."""

from __future__ import annotations

import pytest

from perfgate.engine.tensorrt.api import version_tuple
from perfgate.gate.explain.trtexec import build_and_run, shell_line
from perfgate.model.graph import GraphInput
from perfgate.records import Case, Dimension, Mode, Protocol, Recipe, Tolerance

INPUTS = (GraphInput(name="x", dtype="float", axes=("b", 3, 224, 224)),)
PROTOCOL = Protocol(duration_ns=500_000_000, min_samples=200)
GRAPH, SPIN, STILL = "--useCudaGraph", "--useSpinWait", "--noDataTransfers"
NO_GRAPH, NO_SPIN = "--noCudaGraph", "--noSpinWait"
SPINNING = Mode(drive="graph", wait="spin")
BLOCKING = Mode(drive="enqueue", wait="block", transfers=True)
# Gone, and an unknown flag ends trtexec: from the flags' own history, by the first version without them.
GONE = {
    (10, 0): ("--buildOnly", "--workspace", "--explicitBatch", "--explicitPrecision", "--nvtxMode"),
    (11, 0): ("--fp16", "--int8", "--bf16", "--best", "--calib", "--precisionConstraints"),
}


def words(
    version: str, mode: Mode, *, precision: str = "fp16", typing: str = "strong", **more: object
) -> list[str]:
    case = Case(
        id="resnet50/fp16/b8",
        model="resnet50",
        backend="tensorrt",
        precision="fp16",
        shape={"b": 8},
        mode=mode,
        tolerance=Tolerance(ignore=0.005, catch=0.02),
    )
    recipe = Recipe(
        backend="tensorrt",
        onnx_digest="0" * 64,
        precision=precision,  # type: ignore[arg-type]
        typing=typing,  # type: ignore[arg-type]
        profile={"b": Dimension(min=1, opt=8, max=32)},
        **more,  # type: ignore[arg-type]
    )
    return build_and_run(recipe, case, INPUTS, PROTOCOL, version_tuple(version), "head")


@pytest.mark.parametrize(
    ("version", "mode", "there", "absent"),
    [
        ("8.5.3.1", SPINNING, {GRAPH, SPIN, STILL}, {NO_GRAPH}),
        ("8.5.3.1", BLOCKING, {"--separateProfileRun"}, {GRAPH, SPIN, STILL}),
        ("10.9.0", Mode(drive="graph", wait="block"), {GRAPH, STILL}, {SPIN, NO_SPIN}),
        ("11.0.0", SPINNING, set(), {GRAPH, SPIN, STILL, "--separateProfileRun", NO_GRAPH, NO_SPIN}),
        ("11.2.1", BLOCKING, {NO_GRAPH, NO_SPIN, "--includeDataTransfers"}, {GRAPH}),
    ],
)
def test_the_mode_is_spelled_out(version: str, mode: Mode, there: set[str], absent: set[str]) -> None:
    found = set(words(version, mode))
    assert there <= found
    assert not absent & found


@pytest.mark.parametrize("version", ["8.5.3", "8.6.1", "10.0.1", "10.16.0", "11.0.0", "11.4.0"])
@pytest.mark.parametrize("typing", ["weak", "strong"])
def test_no_flag_that_is_gone(version: str, typing: str) -> None:
    found = words(version, Mode(drive="graph", wait="spin"), precision="int8+fp16", typing=typing)
    for since, flags in GONE.items():
        if version_tuple(version) >= since:
            assert not set(flags) & {word.split("=")[0] for word in found}


def test_precision_is_asked_for_where_types_are_weak_and_in_the_graph_elsewhere() -> None:
    graph = Mode(drive="graph", wait="spin")
    assert "--fp16" in words("8.5.3", graph, typing="weak")
    assert {"--int8", "--fp16"} <= set(words("8.6.1", graph, precision="int8+fp16", typing="weak"))
    assert "--stronglyTyped" in words("10.9", graph)
    assert not {"--fp16", "--stronglyTyped"} & set(words("11.0", graph))


def test_profile_and_measured_shape() -> None:
    found = words("8.5.3", Mode(drive="graph"))
    assert "--minShapes=x:1x3x224x224" in found
    assert "--optShapes=x:8x3x224x224" in found
    assert "--maxShapes=x:32x3x224x224" in found
    assert "--shapes=x:8x3x224x224" in found


def test_streams_options_and_plugins() -> None:
    many = Mode(drive="enqueue", streams=4)
    assert "--streams=4" in words("8.5.3", many)
    assert "--infStreams=4" in words("10.0", many)
    found = words(
        "8.6.1",
        many,
        plugins=("a" * 64,),
        options={"workspace": 1024, "noTF32": True, "builderOptimizationLevel": 4, "minFreeMemory": 1},
    )
    assert {"--memPoolSize=workspace:1024M", "--noTF32", "--builderOptimizationLevel=4"} <= set(found)
    assert f"--staticPlugins=plugins/{'a' * 16}.so" in found
    assert not any("minFreeMemory" in word for word in found)
    # perfgate turns cuDNN off before 10; later versions do so themselves, and 11 has no such source.
    assert "--tacticSources=-CUDNN" in found
    assert not any("tacticSources" in word for word in words("11.0", many))


def test_a_name_with_a_quote_stays_one_word() -> None:
    assert shell_line(["trtexec", "--onnx=a b.onnx; rm x"]) == "trtexec \\\n    '--onnx=a b.onnx; rm x'"
