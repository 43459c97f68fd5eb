"""Profiles of layers: the protocol of TensorRT's profiler with a stand-in, ONNX Runtime's for real."""

from __future__ import annotations

import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_models import CASE, write

from perfgate.engine.interface import Samples, faster_half_mean, middle_mean
from perfgate.engine.onnxruntime.backend import OnnxRuntimeBackend
from perfgate.engine.onnxruntime.layers import read_ort_layers, read_profile
from perfgate.engine.tensorrt import run as _trt_profile
from perfgate.engine.tensorrt.inspect import Layer, unpack_layers
from perfgate.engine.tensorrt.run import TensorRTRunner
from perfgate.errors import CaseError
from perfgate.records import Case, Mode, Protocol, Tensor


class Context:
    """An execution context that reports as 8.5 to 11 do: in the enqueue, or apart from it when told to."""

    def __init__(self, times_ms: list[dict[str, float]], *, knows_apart: bool) -> None:
        self.profiler: Any = None
        self.times_ms = times_ms
        self.reported = 0
        if knows_apart:
            self.enqueue_emits_profile = True
            self.report_to_profiler = self._report

    def _report(self) -> bool:
        row = self.times_ms[min(self.reported, len(self.times_ms) - 1)]
        self.reported += 1
        for name, ms in row.items():
            self.profiler.report_layer_time(name, ms)
        return True

    def enqueue(self) -> None:
        if self.profiler is not None and getattr(self, "enqueue_emits_profile", True):
            self._report()


class Runner(TensorRTRunner):
    def __init__(self, context: Context) -> None:
        self._context = context

    @property
    def context(self) -> Any:
        return self._context

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        return (Tensor(name="x", dtype="float", shape=(1, 2)),)

    def bind(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> None:
        assert set(inputs) == {"x"}

    def infer(self) -> None:
        self._context.enqueue()

    def take(self, protocol: Protocol) -> Samples:
        raise AssertionError("a profiled load is never timed")

    def close(self) -> None:
        pass


class IProfiler:
    """What TensorRT's binding demands of a subclass: that its own constructor is called."""


API: Any = types.SimpleNamespace(trt=types.SimpleNamespace(IProfiler=IProfiler))


def profiled(context: Context, queries: int) -> tuple[Any, list[Case]]:
    loaded: list[Case] = []

    def load(engine: Path, case: Case) -> Runner:
        loaded.append(case)
        return Runner(context)

    graph = Case(**{**{f: getattr(CASE, f) for f in CASE.__struct_fields__}, "mode": Mode(drive="graph")})
    make = lambda tensor: np.zeros(tensor.shape, np.float32)  # noqa: E731
    return _trt_profile.profile_engine(API, load, Path("e"), graph, make, queries), loaded


@pytest.mark.parametrize("knows_apart", [True, False])
def test_each_query_is_reported_once_and_no_graph_is_used(knows_apart: bool) -> None:
    # A query that was disturbed moves nothing.
    rows = [{"conv": 0.010, "relu": 0.002}] * 7 + [{"conv": 9.0, "relu": 9.0}]
    context = Context(rows, knows_apart=knows_apart)
    found, loaded = profiled(context, 8)
    assert context.reported == 8
    assert found.queries == 8
    assert found.layers_ns == pytest.approx({"conv": 10_000, "relu": 2_000})
    assert list(found.layers_ns) == ["conv", "relu"]
    assert loaded[0].mode.drive == "enqueue"


def test_a_layer_that_runs_twice_in_a_query_is_summed() -> None:
    context = Context([{"a": 0.001}], knows_apart=True)
    original = context._report

    def twice() -> bool:
        original()
        return original()

    context.report_to_profiler = twice
    found, _ = profiled(context, 4)
    assert found.layers_ns["a"] == pytest.approx(2_000)


def test_an_engine_that_reports_nothing_is_an_error() -> None:
    with pytest.raises(CaseError, match="reported no layer"):
        profiled(Context([{}], knows_apart=True), 4)


def test_means_over_parts() -> None:
    values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 100.0]
    assert middle_mean(values) == 4.5
    assert faster_half_mean(values) == 2.5
    assert middle_mean([3.0]) == faster_half_mean([3.0]) == 3.0


def test_onnx_runtime_profiles_its_own_engine_for_real(tmp_path: Path) -> None:
    source, engine = write(tmp_path / "net.onnx"), tmp_path / "engine"
    backend = OnnxRuntimeBackend("cpu")
    from perfgate.engine.interface import BuildRequest
    from perfgate.records import Recipe

    recipe = Recipe(backend="onnxruntime", onnx_digest="0" * 64, precision="fp32")
    facts = backend.build(
        BuildRequest(backend="onnxruntime", recipe=recipe, onnx=str(source), engine=str(engine))
    )
    layers = unpack_layers(facts.layer_record).layers
    dtypes = {"float": np.float32, "int64": np.int64}

    def make(tensor: Tensor) -> np.ndarray[Any, Any]:
        return np.zeros(tensor.shape, dtypes[tensor.dtype])

    found = backend.profile(engine, CASE, make, queries=20)
    assert set(found.layers_ns) == {layer.name for layer in layers}
    assert len(layers) == facts.layers
    # What follows depends on how long the queries took; ten is the least.
    assert 10 <= found.queries <= 20


def test_a_node_that_was_fused_names_what_went_into_it(tmp_path: Path) -> None:
    import onnx
    from onnx import helper

    def model(*nodes: Any) -> Path:
        value = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1]) for n in ("x", "y")]
        graph = helper.make_graph(list(nodes), "g", value[:1], value[1:])
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.onnx"
        path.write_bytes(helper.make_model(graph).SerializeToString())
        return path

    source = model(
        helper.make_node("Conv", ["x"], ["a"], name="conv"),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("Abs", ["b"], ["y"], name="abs"),
    )
    engine = model(
        helper.make_node("Conv", ["x"], ["p"], name="relu_nchwc"),
        helper.make_node("ReorderOutput", ["p"], ["q"]),
        helper.make_node("Abs", ["q"], ["y"], name="abs"),
    )
    found = [(layer.name, layer.onnx_nodes) for layer in read_ort_layers(engine, source).layers]
    assert found == [("relu_nchwc", ("conv", "relu")), ("ReorderOutput_1", ()), ("abs", ("abs",))]


def test_a_profile_without_a_node_is_an_error() -> None:
    with pytest.raises(CaseError, match="holds no node"):
        read_profile([{"cat": "Session", "name": "model_run", "dur": 5}], 3)


def test_an_inspector_record_without_shapes_is_still_read() -> None:
    assert Layer(name="old").shapes == ()
