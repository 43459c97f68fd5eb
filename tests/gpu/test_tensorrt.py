"""TensorRT on a real GPU, from 8.5 on: every mode against ONNX Runtime's CPU, rebuilt engines, clean exits.

Everything that starts CUDA runs in a child process, as it does in a real launch.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from perfgate.engine.interface import BuildRequest
from perfgate.engine.tensorrt.api import version_tuple
from perfgate.engine.tensorrt.backend import TensorRTBackend
from perfgate.engine.tensorrt.inspect import realised
from perfgate.records import Case, Dimension, EngineFacts, Mode, Precision, Recipe, Tolerance
from perfgate.util.process import package_environment

pytestmark = pytest.mark.gpu

SMALL = (8, 32, 32)
BATCH = {"b": Dimension(min=1, opt=4, max=8)}
MODES = (
    *TensorRTBackend().modes(),
    Mode(drive="graph", streams=2, wait="spin"),
    Mode(drive="enqueue", transfers=True, streams=3, wait="block"),
)
BUILD = """
import sys, msgspec
from pathlib import Path
from perfgate.engine.interface import BuildRequest
from perfgate.engine.tensorrt import TensorRTBackend
from perfgate.errors import PerfgateError
request = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=BuildRequest)
try:
    print(msgspec.json.encode(TensorRTBackend().build(request)).decode())
except PerfgateError as error:
    print(msgspec.json.encode({"error": str(error)}).decode())
"""
LAUNCH = """
import sys, msgspec, numpy
from pathlib import Path
from perfgate.engine.tensorrt import TensorRTBackend
from perfgate.errors import PerfgateError
from perfgate.records import Case, Protocol
engine, case_file, data, out, times = sys.argv[1:]
case = msgspec.json.decode(Path(case_file).read_bytes(), type=Case)
protocol = Protocol(duration_ns=50_000_000, min_samples=20, max_samples=500)
try:
    for _ in range(int(times)):
        with TensorRTBackend().load(Path(engine), case) as runner:
            wanted = numpy.load(data)["x"]
            runner.bind({tensor.name: wanted for tensor in runner.inputs})
            runner.infer()
            first = runner.outputs()
            samples = runner.take(protocol)
            last = runner.outputs()
        runner.close()
    numpy.savez(out, first=first["y"], last=last["y"])
    print(msgspec.json.encode(samples).decode())
except PerfgateError as error:
    print(msgspec.json.encode({"error": str(error), "kind": type(error).__name__}).decode())
"""


@pytest.fixture(scope="module", autouse=True)
def _needs_tensorrt() -> Iterator[None]:
    reason = TensorRTBackend().unavailable()
    if reason:
        pytest.skip(reason)
    yield


def _version() -> tuple[int, ...]:
    return version_tuple(importlib.import_module("tensorrt").__version__)


def _typing() -> Any:
    """What each generation builds: weak before 10, strong from 10 on."""
    return "weak" if _version() < (10,) else "strong"


def _child(script: str, *argv: Any) -> tuple[dict[str, Any], str]:
    """Run a script in a fresh interpreter; its reply and its stderr. It must end with exit code 0."""
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, argv)],
        capture_output=True,
        text=True,
        timeout=240,
        env=package_environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


def _model(path: Path, *, batch: Any = "b") -> Path:
    """Two convolutions, pooling and a Gemm: small, and no operator newer than opset 17."""
    random = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> Any:
        array: Any = (random.standard_normal(shape) * 0.2).astype(np.float32)
        return numpy_helper.from_array(array, name)

    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], "conv2", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c2"], ["r2"], "relu2"),
        helper.make_node("GlobalAveragePool", ["r2"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "w3"], ["y"], "fc"),
    ]
    weights = [weight("w1", 32, 8, 3, 3), weight("w2", 64, 32, 3, 3), weight("w3", 64, 10)]
    return _save(path, nodes, weights, batch)


def _save(
    path: Path,
    nodes: list[Any],
    weights: list[Any],
    batch: Any,
    kind: int = TensorProto.FLOAT,
    *,
    shape: tuple[int, int, int] = SMALL,
) -> Path:
    graph = helper.make_graph(
        nodes,
        "tinyconv",
        [helper.make_tensor_value_info("x", kind, [batch, *shape])],
        [helper.make_tensor_value_info("y", kind, None)],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def _build(model: Path, *, cache: str = "", **recipe: Any) -> EngineFacts:
    reply, stderr = _try_build(model, cache=cache, **recipe)
    assert "error" not in reply, reply
    assert all(line.startswith("perfgate-progress ") for line in stderr.splitlines()), stderr
    return msgspec.convert(reply, EngineFacts)


def _try_build(model: Path, *, cache: str = "", **recipe: Any) -> tuple[dict[str, Any], str]:
    wanted = {
        "backend": "tensorrt",
        "onnx_digest": "0" * 64,
        "precision": "fp32",
        "typing": _typing(),
        **recipe,
    }
    request = BuildRequest(
        backend="tensorrt",
        recipe=Recipe(**wanted),
        onnx=str(model),
        engine=str(model.with_suffix(".engine")),
        timing_cache=cache,
        timing_cache_out=str(model.with_suffix(".timing")),
    )
    question = model.with_suffix(".json")
    question.write_bytes(msgspec.json.encode(request))
    return _child(BUILD, question)


def _launch(
    folder: Path,
    engine: Path,
    mode: Mode,
    batch: int,
    *,
    times: int = 1,
    dtype: type = np.float32,
    shape: tuple[int, int, int] = SMALL,
) -> tuple[dict[str, Any], Any, Any]:
    """The reply, the input and the outputs (None after an error); stderr must be empty."""
    case = Case(
        id="tiny/fp32",
        model="tiny",
        backend="tensorrt",
        precision="fp32",
        shape={"b": batch},
        mode=mode,
        tolerance=Tolerance(ignore=0.005, catch=0.02),
    )
    question, data, out = folder / "case.json", folder / "in.npz", folder / "out.npz"
    question.write_bytes(msgspec.json.encode(case))
    x: Any = np.random.default_rng(1).standard_normal((batch, *shape)).astype(dtype)
    np.savez(data, x=x)
    reply, stderr = _child(LAUNCH, engine, question, data, out, times)
    assert stderr == ""
    return reply, x, (None if "error" in reply else np.load(out))


def _reference(model: Path, x: Any) -> Any:
    runtime = pytest.importorskip("onnxruntime")
    return runtime.InferenceSession(str(model), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


@pytest.fixture(scope="module")
def dynamic(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, EngineFacts]:
    """One dynamic FP32 engine without TF32, so that its outputs are ONNX Runtime's."""
    model = _model(tmp_path_factory.mktemp("dynamic") / "m.onnx")
    return model, _build(model, profile=BATCH, options={"noTF32": True})


def test_facts(dynamic: tuple[Path, EngineFacts]) -> None:
    model, facts = dynamic
    assert facts.engine_bytes == model.with_suffix(".engine").stat().st_size
    assert facts.layers > 0
    assert realised("fp32", facts.precision_share) is None, facts
    assert facts.device_memory_bytes is not None
    assert facts.timing_cache_bytes
    assert "TF32 is off" in facts.notes


@pytest.fixture(scope="module")
def launched(
    dynamic: tuple[Path, EngineFacts], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[Mode, Future[Any]]]:
    """A launch in every mode, each in a process of its own; a few at a time, because starting them is what
    takes long and no test looks at how fast they are."""
    engine = dynamic[0].with_suffix(".engine")
    with ThreadPoolExecutor(max_workers=4) as pool:
        yield {mode: pool.submit(_launch, tmp_path_factory.mktemp("mode"), engine, mode, 4) for mode in MODES}


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_every_mode(mode: Mode, dynamic: tuple[Path, EngineFacts], launched: dict[Mode, Future[Any]]) -> None:
    model, _ = dynamic
    reply, x, outputs = launched[mode].result()
    assert "error" not in reply, reply
    wanted = _reference(model, x)
    np.testing.assert_allclose(outputs["first"], wanted, rtol=1e-3, atol=1e-4)
    # The timed loop computes the same as a single query does, also through a graph.
    np.testing.assert_array_equal(outputs["first"], outputs["last"])
    samples = reply["samples_ns"]
    assert 20 <= len(samples) <= 500
    assert min(samples) > 0
    assert reply["wall_ns"] > 0
    names = {"enqueue", "h2d", "gpu_compute", "d2h"} if mode.transfers else {"enqueue"}
    assert set(reply["other_ns"]) == names
    assert all(len(series) == len(samples) for series in reply["other_ns"].values())
    if mode.transfers:
        parts = zip(*(reply["other_ns"][name] for name in ("h2d", "gpu_compute", "d2h")), strict=True)
        # Four events on one stream: the parts are the whole, up to the events' resolution.
        assert all(abs(sum(part) - whole) < 5_000 for part, whole in zip(parts, samples, strict=True))
    if mode.streams == 1:
        # One stream runs one query at a time, so the samples cannot take longer than the wall's time; the
        # first of them was on its way before the wall's clock started.
        assert sum(samples[1:]) <= reply["wall_ns"] * 1.05


@pytest.mark.parametrize("batch", [1, 8])
def test_the_ends_of_the_profile(batch: int, dynamic: tuple[Path, EngineFacts], tmp_path: Path) -> None:
    model, _ = dynamic
    reply, x, outputs = _launch(tmp_path, model.with_suffix(".engine"), MODES[0], batch)
    assert "error" not in reply, reply
    np.testing.assert_allclose(outputs["last"], _reference(model, x), rtol=1e-3, atol=1e-4)


def test_a_shape_outside_the_profile_is_named_and_exits_cleanly(
    dynamic: tuple[Path, EngineFacts], tmp_path: Path
) -> None:
    model, _ = dynamic
    reply, _, _ = _launch(tmp_path, model.with_suffix(".engine"), MODES[0], 9)
    assert "b = 9 is outside the engine's profile (1 to 8)" in reply["error"]


def test_a_damaged_engine_is_named_and_exits_cleanly(tmp_path: Path) -> None:
    engine = tmp_path / "engine"
    engine.write_bytes(b"not an engine" * 100)
    reply, _, _ = _launch(tmp_path, engine, MODES[0], 4)
    assert "cannot load the engine" in reply["error"]


def test_several_loads_in_one_process(dynamic: tuple[Path, EngineFacts], tmp_path: Path) -> None:
    model, _ = dynamic
    reply, _, _ = _launch(tmp_path, model.with_suffix(".engine"), MODES[0], 4, times=3)
    assert "error" not in reply, reply


def test_a_rebuild_with_the_timing_cache_gives_the_same_bytes(tmp_path: Path) -> None:
    first = _build(_model(tmp_path / "first.onnx", batch=4))
    cache = tmp_path / "first.timing"
    again = _build(_model(tmp_path / "again.onnx", batch=4), cache=str(cache))
    assert again.digest == first.digest
    assert first.timing_cache_loaded_bytes == 0
    assert again.timing_cache_loaded_bytes == again.timing_cache_bytes == cache.stat().st_size
    assert any("loaded" in note and "grew by 0" in note for note in again.notes), again.notes
    if again.timing_cache_keys is not None:
        assert first.timing_cache_keys is not None
        assert again.timing_cache_keys.loaded == first.timing_cache_keys.added > 0
        assert again.timing_cache_keys.added == again.timing_cache_keys.changed == 0
    assert not any("refused" in note for note in again.notes)


def test_a_foreign_timing_cache_harms_nothing_and_is_noted(tmp_path: Path) -> None:
    cache = tmp_path / "foreign.timing"
    cache.write_bytes(b"\x00" * 64)
    model = _model(tmp_path / "m.onnx", batch=4)
    facts = _build(model, cache=str(cache), options={"noTF32": True})
    # 8.5 takes zeros for an empty cache, later versions refuse them: either way the build says so.
    assert any("refused" in note or "loaded 64 bytes" in note for note in facts.notes), facts.notes
    reply, x, outputs = _launch(tmp_path, model.with_suffix(".engine"), MODES[0], 4)
    assert "error" not in reply, reply
    np.testing.assert_allclose(outputs["last"], _reference(model, x), rtol=1e-3, atol=1e-4)


# A convolution that is worth the tensor cores: on a small one a weakly typed build rightly keeps FP32.
HEAVY = (256, 64, 64)
HEAVY_BATCH = {"b": Dimension(min=1, opt=8, max=8)}


def _heavy_weight(*shape: int) -> Any:
    """Scaled so that outputs are about 1, well inside FP16."""
    fan_in = int(np.prod(shape[1:])) if len(shape) == 4 else shape[0]
    return (np.random.default_rng(0).standard_normal(shape) * (2 / fan_in) ** 0.5).astype(np.float32)


def test_half_precision_is_realised(tmp_path: Path) -> None:
    weak = _version() < (10,)
    dtype, kind = (np.float32, TensorProto.FLOAT) if weak else (np.float16, TensorProto.FLOAT16)
    nodes = [
        _conv("x", "w1", "c1"),
        helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
        helper.make_node("GlobalAveragePool", ["r1"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "w2"], ["y"], "fc"),
    ]
    shapes = {"w1": (HEAVY[0], HEAVY[0], 3, 3), "w2": (HEAVY[0], 10)}
    weights = [
        numpy_helper.from_array(_heavy_weight(*shape).astype(dtype), name) for name, shape in shapes.items()
    ]
    model = _save(tmp_path / "m.onnx", nodes, weights, "b", kind, shape=HEAVY)
    facts = _build(model, precision="fp16", profile=HEAVY_BATCH)
    assert realised("fp16", facts.precision_share) is None, facts
    reply, x, outputs = _launch(tmp_path, model.with_suffix(".engine"), MODES[0], 4, dtype=dtype, shape=HEAVY)
    assert "error" not in reply, reply
    np.testing.assert_allclose(outputs["last"], _reference(model, x), rtol=0.05, atol=0.05)


def _conv(x: str, weight: str, y: str) -> Any:
    # 8.5's parser cannot tell the kernel's shape from weights behind a DequantizeLinear: it must be said.
    return helper.make_node(
        "Conv", [x, weight], [y], "conv1", kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1]
    )


@pytest.mark.parametrize("precision", ["int8", "int8+fp16"])
def test_quantised_precision(precision: Precision, tmp_path: Path) -> None:
    if _version() >= (10,) and precision == "int8+fp16":
        pytest.skip("a strongly typed build of this needs FP16 in the graph itself")
    model = _quantised(tmp_path / "m.onnx")
    facts = _build(model, precision=precision, profile=HEAVY_BATCH)
    assert realised("int8", facts.precision_share) is None, facts
    assert facts.precision_share["int8"] > 0


def _quantised(path: Path) -> Path:
    """One convolution between Q/DQ pairs, per tensor."""

    def pair(source: str, scale: float) -> tuple[list[Any], list[Any]]:
        names = [f"{source}_s", f"{source}_z"]
        values = [np.array(scale, np.float32), np.array(0, np.int8)]
        nodes = [
            helper.make_node("QuantizeLinear", [source, *names], [f"{source}_q"], f"{source}_quantise"),
            helper.make_node("DequantizeLinear", [f"{source}_q", *names], [f"{source}_d"], f"{source}_back"),
        ]
        return nodes, [
            numpy_helper.from_array(value, name) for name, value in zip(names, values, strict=True)
        ]

    nodes: list[Any] = []
    weights = [numpy_helper.from_array(_heavy_weight(HEAVY[0], HEAVY[0], 3, 3), "w")]
    for source, scale in (("x", 0.03), ("w", 0.001)):
        more, constants = pair(source, scale)
        nodes += more
        weights += constants
    nodes.append(_conv("x_d", "w_d", "y"))
    return _save(path, nodes, weights, "b", shape=HEAVY)


def test_an_unsupported_operator_is_named(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], "fine"),
        helper.make_node("NoSuch", ["a"], ["y"], "bad1"),
    ]
    reply, _ = _try_build(_save(tmp_path / "m.onnx", nodes, [], 4))
    assert "graph.node[1] 'bad1' (NoSuch)" in reply["error"]
