"""Engines that were built elsewhere: what is found out of them, and how their dimensions get names.

TensorRT is a stand-in whose inspector answers with a real engine's JSON, or with names of layers alone.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from onnx import helper
from small_models import CASE
from test_tensorrt_build import conv, save

from perfgate.engine.child import prebuilt_engine
from perfgate.engine.interface import BuildRequest
from perfgate.engine.tensorrt.api import Api
from perfgate.engine.tensorrt.backend import TensorRTBackend
from perfgate.engine.tensorrt.facts import prebuilt_facts
from perfgate.engine.tensorrt.inspect import unpack_layers
from perfgate.engine.tensorrt.stream import Plan
from perfgate.errors import CaseError
from perfgate.measure import launch, layer_profile as profile
from perfgate.measure.accuracy import answer_child as accuracy_child
from perfgate.measure.launch import EngineTarget, LaunchRequest
from perfgate.model.precision.data import DataRequest
from perfgate.records import EngineFacts, Precision, Protocol, Recipe, Tensor
from perfgate.util.files import file_digest

REAL = Path(__file__).parent / "data" / "engine_inspector_resnet50_trt-8.5.3.json"
NAMES = json.dumps({"Layers": ["conv1", "relu1"]})
AXES: dict[str, tuple[int | str, ...]] = {"x": ("b", 3, 8, 8)}


class Logger:
    """What TensorRT's binding demands of a subclass: that its own constructor is called."""


def tensorrt(text: str, *, loads: bool = True) -> Api:
    """A TensorRT whose one engine has these layers, and asks for 4,096 bytes of device memory."""
    engine = SimpleNamespace(
        device_memory_size=4096,
        create_engine_inspector=lambda: SimpleNamespace(get_engine_information=lambda _: text),
    )
    runtime = SimpleNamespace(deserialize_cuda_engine=lambda _: engine if loads else None)
    trt = SimpleNamespace(
        __name__="stand-in",
        __version__="8.5.3.1",
        ILogger=Logger,
        Runtime=lambda _: runtime,
        LayerInformationFormat=SimpleNamespace(JSON=1),
        TensorLocation=SimpleNamespace(HOST=1),
        TensorIOMode=SimpleNamespace(INPUT=0),
        init_libnvinfer_plugins=lambda *_: True,
        get_plugin_registry=lambda: None,
    )
    return Api(trt)


def request_for(folder: Path, precision: Precision, plan: bytes = b"plan", **more: Any) -> BuildRequest:
    (folder / "given.engine").write_bytes(plan)
    recipe = Recipe(backend="tensorrt", onnx_digest="0" * 64, precision=precision)
    onnx = str(more.pop("onnx", None) or conv(folder / "m.onnx"))
    return BuildRequest(backend="tensorrt", recipe=recipe, onnx=onnx, engine=str(folder / "given.engine"))


def inspected(
    folder: Path, text: str, precision: Precision, plan: bytes = b"plan", **more: Any
) -> EngineFacts:
    return prebuilt_facts(tensorrt(text), request_for(folder, precision, plan, **more))


def test_layers_precision_and_memory_of_a_given_engine_are_known(tmp_path: Path) -> None:
    facts = inspected(tmp_path, REAL.read_text(), "fp16")
    assert (facts.layers, facts.precision_share, facts.unmet) == (14, {"fp16": 0.9, "fp32": 0.1}, "")
    assert facts.device_memory_bytes == 4096
    assert len(unpack_layers(facts.layer_record).layers) == 14
    assert facts.digest == file_digest(tmp_path / "given.engine")
    assert facts.notes[0] == "built elsewhere"


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_given_engine_of_another_precision_is_not_what_was_asked_for(
    tmp_path: Path, precision: Precision
) -> None:
    assert precision.upper() in inspected(tmp_path, REAL.read_text(), precision).unmet


def test_an_engine_of_nameless_precision_says_how_to_build_it(tmp_path: Path) -> None:
    unmet = inspected(tmp_path, NAMES, "fp16").unmet
    assert "does not say what it computes in" in unmet
    assert "--profilingVerbosity=detailed" in unmet


def test_without_details_the_size_of_large_weights_tells(tmp_path: Path) -> None:
    weight = np.zeros((1_000_000 // 27 + 1, 3, 3, 3), np.float32)
    model = save(tmp_path / "m.onnx", [helper.make_node("Conv", ["x", "w"], ["y"])], {"w": weight})
    half = inspected(tmp_path, NAMES, "fp16", bytes(2 * weight.size), onnx=model)
    full = inspected(tmp_path, NAMES, "fp16", bytes(4 * weight.size), onnx=model)
    assert (half.precision_share, half.unmet) == ({"fp16": 1.0}, "")
    assert full.unmet


def test_a_given_engine_that_does_not_load_is_the_cases_fault(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match="cannot load the engine") as caught:
        prebuilt_facts(tensorrt(NAMES, loads=False), request_for(tmp_path, "fp16"))
    assert "build it again" in str(caught.value.fix)


def test_tensorrt_for_rtx_without_its_gpu_leaves_the_precision_open(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", exc_type=ImportError)
    facts = TensorRTBackend(name="tensorrt-rtx").inspect(request_for(tmp_path, "fp16"))
    assert facts.unmet == "" and facts.precision_share == {}
    assert any("was not inspected" in note for note in facts.notes)


def test_a_backend_that_cannot_inspect_tells_bytes_alone(tmp_path: Path) -> None:
    engine = tmp_path / "given.engine"
    request = msgspec.structs.replace(
        request_for(tmp_path, "fp16"), backend="onnxruntime", device="cpu", engine=""
    )
    path, facts = prebuilt_engine(request, engine, timeout_s=60)
    assert path == engine
    assert facts == EngineFacts(digest=file_digest(engine), engine_bytes=4, notes=("built elsewhere",))


class Engine:
    """A deserialised engine with one input and no name of its own."""

    num_io_tensors = 1

    def __init__(self, shape: tuple[int, ...], most: tuple[int, ...] = ()) -> None:
        self.shape, self.most = shape, most

    def get_tensor_name(self, _: int) -> str:
        return "x"

    def get_tensor_location(self, _: str) -> int:
        return 0

    def get_tensor_dtype(self, _: str) -> str:
        return "DataType.FLOAT"

    def get_tensor_mode(self, _: str) -> int:
        return 0

    def get_tensor_shape(self, _: str) -> tuple[int, ...]:
        return self.shape

    def get_tensor_profile_shape(self, _: str, profile: int) -> tuple[tuple[int, ...], ...]:
        assert profile == 0
        return tuple(1 if axis == -1 else axis for axis in self.shape), self.most, self.most


def plan_of(engine: Engine, axes: dict[str, tuple[int | str, ...]]) -> Plan:
    return Plan.of(tensorrt(NAMES), engine, msgspec.structs.replace(CASE, shape={"b": 4}), axes)


def test_the_graph_names_the_dimensions_of_an_engine_that_does_not() -> None:
    plan = plan_of(Engine((-1, 3, 8, 8), (8, 3, 8, 8)), AXES)
    assert plan.inputs == (Tensor(name="x", dtype="float", shape=(4, 3, 8, 8)),)
    assert plan.dynamic == {"x"}


def test_a_static_engine_needs_no_names() -> None:
    for axes in ({}, AXES):
        plan = plan_of(Engine((2, 3, 8, 8)), axes)
        assert plan.inputs[0].shape == (2, 3, 8, 8) and not plan.dynamic


@pytest.mark.parametrize(
    ("most", "axes", "word"),
    [
        ((8, 3, 8, 8), {}, "neither the engine nor the model's graph"),
        ((2, 3, 8, 8), AXES, "b = 4 is outside the engine's profile"),
        ((8, 3, 8, 8), {"x": ("b", 3)}, "4 dimensions in the engine and 2 in the graph"),
    ],
)
def test_an_engine_that_does_not_fit_the_graph_is_refused(most: Any, axes: Any, word: str) -> None:
    with pytest.raises(CaseError, match=word):
        plan_of(Engine((-1, 3, 8, 8), most), axes)


def answered(target: EngineTarget) -> None:
    data = DataRequest(tensors=(), folder="", samples=1, seed=0)
    with accuracy_child._model(accuracy_child.AnswerRequest(data=data, out="", engine=target)):
        pass


@pytest.mark.parametrize(
    ("module", "work"),
    [
        (launch, lambda target: launch._serve(LaunchRequest(target=target, protocol=Protocol()))),
        (profile, lambda target: profile._serve(profile.ProfileRequest(target=target))),
        (accuracy_child, answered),
    ],
    ids=["launch", "profile", "answers"],
)
def test_every_process_that_loads_an_engine_hands_the_axes_on(
    monkeypatch: pytest.MonkeyPatch, module: Any, work: Any
) -> None:
    seen: list[Any] = []

    def take(*given: Any, **named: Any) -> Any:
        seen.append(named.get("axes") or given[-1])
        raise CaseError("far enough")

    backend = SimpleNamespace(kind="cpu", load=take, profile=take)
    monkeypatch.setattr(module, "get_backend", lambda *_: backend)
    with pytest.raises(CaseError, match="far enough"):
        work(EngineTarget(engine="e", case=CASE, folder=".", device="cpu", axes=AXES))
    assert seen == [AXES]
