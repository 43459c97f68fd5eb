"""Real builds without a GPU: TensorRT for RTX has TensorRT 11's API and a builder that needs no device."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from perfgate.engine.interface import BuildRequest
from perfgate.engine.tensorrt.backend import TensorRTBackend
from perfgate.engine.tensorrt.onnx_names import (
    concrete_shape,
    network_name,
    plugins_in,
    profile_shapes,
    read_graph,
    read_network_name,
)
from perfgate.errors import CaseError, InfrastructureError
from perfgate.records import Case, Dimension, EngineFacts, Mode, Recipe, Tolerance

BATCH = {"b": Dimension(min=1, opt=4, max=8)}


def save(
    path: Path, nodes: list[Any], weights: dict[str, Any], *, dtype: int = TensorProto.FLOAT, batch: Any = "b"
) -> Path:
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", dtype, [batch, 3, 8, 8])],
        [helper.make_tensor_value_info("y", dtype, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=8), str(path))
    return path


def conv(path: Path, element: type = np.float32, **more: Any) -> Path:
    weight: Any = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(element)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "conv1"),
        helper.make_node("Relu", ["c"], ["y"], "relu1"),
    ]
    return save(path, nodes, {"w": weight}, **more)


def test_weights_that_nothing_takes_are_not_counted(tmp_path: Path) -> None:
    branch = helper.make_graph(
        [helper.make_node("Add", ["c", "inner"], ["sum"])],
        "branch",
        [],
        [helper.make_tensor_value_info("sum", TensorProto.FLOAT, None)],
    )
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "conv1"),
        helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch),
    ]
    weights = {
        "w": np.zeros((4, 3, 3, 3), np.float32),
        "inner": np.zeros(5, np.float32),
        "yes": np.array(True),
        "unused": np.zeros(1000, np.float32),
    }
    assert read_graph(save(tmp_path / "net.onnx", nodes, weights)).weights == 108 + 5 + 1


def build(model: Path, **recipe: Any) -> EngineFacts:
    pytest.importorskip("tensorrt_rtx", exc_type=ImportError)
    wanted = {"backend": "tensorrt-rtx", "onnx_digest": "0" * 64, "precision": "fp32", **recipe}
    request = BuildRequest(
        backend="tensorrt-rtx",
        recipe=Recipe(**wanted),
        onnx=str(model),
        engine=str(model.with_suffix(".engine")),
        timing_cache_out=str(model.with_suffix(".timing")),
    )
    return TensorRTBackend(name="tensorrt-rtx").build(request)


def test_dynamic_shapes(tmp_path: Path) -> None:
    model = conv(tmp_path / "m.onnx")
    facts = build(model, profile=BATCH)
    engine = model.with_suffix(".engine").read_bytes()
    assert facts.engine_bytes == len(engine) > 0
    assert facts.digest == hashlib.sha256(engine).hexdigest()
    assert facts.build_ns > 0
    assert facts.timing_cache_bytes == model.with_suffix(".timing").stat().st_size
    assert facts.timing_cache_loaded_bytes == 0
    assert facts.timing_cache_keys is None  # TensorRT for RTX keeps nothing in it
    assert any(note.startswith("TF32 is on") for note in facts.notes)
    assert facts.tf32 == "on"
    steps = r"took [\d.]+ s to start the builder, [\d.]+ s to parse, [\d.]+ s to optimise and time"
    assert any(re.fullmatch(steps, note) for note in facts.notes)
    # The names of the dimensions travel inside the engine.
    assert network_name({"x": ("b", 3, 8, 8)}, ()).encode() in engine


def test_the_same_build_gives_the_same_bytes(tmp_path: Path) -> None:
    model = conv(tmp_path / "m.onnx")
    assert build(model, profile=BATCH).digest == build(model, profile=BATCH).digest


def test_half_graph(tmp_path: Path) -> None:
    model = conv(tmp_path / "m.onnx", np.float16, dtype=TensorProto.FLOAT16)
    assert build(model, precision="fp16", profile=BATCH).tf32 is None


def test_quantised_graph(tmp_path: Path) -> None:
    def pair(name: str, source: str) -> list[Any]:
        scale, zero = f"{name}_s", f"{name}_z"
        return [
            helper.make_node("QuantizeLinear", [source, scale, zero], [f"{name}_q"], f"{name}_quantise"),
            helper.make_node("DequantizeLinear", [f"{name}_q", scale, zero], [f"{name}_d"], f"{name}_back"),
        ]

    weights: dict[str, Any] = {"w": np.ones((4, 3, 3, 3), np.float32)}
    for name in ("x", "w"):
        weights |= {f"{name}_s": np.float32(0.05), f"{name}_z": np.int8(0)}
    last = helper.make_node("Conv", ["x_d", "w_d"], ["y"], "conv1")
    model = save(tmp_path / "m.onnx", [*pair("x", "x"), *pair("w", "w"), last], weights)
    assert build(model, precision="int8", profile=BATCH).engine_bytes > 0


def test_external_weights_resolve(tmp_path: Path) -> None:
    model = conv(tmp_path / "m.onnx", batch=1)
    onnx.save_model(
        onnx.load(str(model)), str(model), save_as_external_data=True, location="w.bin", size_threshold=0
    )
    assert (tmp_path / "w.bin").exists()
    assert build(model).engine_bytes > 0


def test_every_unsupported_operator_is_named(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], "fine"),
        helper.make_node("NoSuch", ["a"], ["c"], "bad1"),
        helper.make_node("NorThis", ["c"], ["y"], "bad2"),
    ]
    model = save(tmp_path / "m.onnx", nodes, {})
    with pytest.raises(CaseError) as caught:
        build(model, profile=BATCH)
    text = str(caught.value)
    assert "graph.node[1] 'bad1' (NoSuch)" in text
    assert "graph.node[2] 'bad2' (NorThis)" in text
    assert "m.onnx" in text


def test_a_profile_that_the_network_cannot_meet(tmp_path: Path) -> None:
    nodes = [helper.make_node("Add", ["x", "four"], ["y"], "add4")]
    model = save(tmp_path / "m.onnx", nodes, {"four": np.zeros((4, 3, 8, 8), np.float32)})
    with pytest.raises(CaseError, match="cannot build") as caught:
        build(model, profile={"b": Dimension(min=6, opt=6, max=8)})
    assert caught.value.stderr_tail


@pytest.mark.parametrize(
    ("profile", "word"),
    [
        ({}, "'b' is dynamic and has no range"),
        ({"b": Dimension(min=4, opt=2, max=8)}, "not ordered"),
        ({**BATCH, "seq": Dimension(min=1, opt=1, max=1)}, "'seq'"),
    ],
)
def test_profiles_that_do_not_fit(tmp_path: Path, profile: dict[str, Dimension], word: str) -> None:
    with pytest.raises(CaseError, match=word):
        build(conv(tmp_path / "m.onnx"), profile=profile)


def test_an_unnamed_dimension_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match=r"'x'.*axis 0"):
        build(conv(tmp_path / "m.onnx", batch=None))


def test_requests_that_cannot_be_met(tmp_path: Path) -> None:
    model = conv(tmp_path / "m.onnx")
    with pytest.raises(CaseError, match="weak"):
        build(model, profile=BATCH, typing="weak")
    with pytest.raises(CaseError, match="Q/DQ"):
        build(model, profile=BATCH, precision="int8")
    with pytest.raises(CaseError, match=r"builderOptimizationLevel = 9.*kept 5"):
        build(model, profile=BATCH, options={"builderOptimizationLevel": 9})
    with pytest.raises(CaseError, match="stronglyTyped"):
        build(model, profile=BATCH, options={"stronglyTyped": False})


def test_not_onnx(tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    model.write_bytes(b"junk")
    with pytest.raises(CaseError, match="not a readable ONNX file"):
        build(model)


def test_too_little_disk_is_the_machines_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 5 << 20})())
    with pytest.raises(InfrastructureError, match="5 MiB of disk"):
        build(conv(tmp_path / "m.onnx"), profile=BATCH)


def test_too_little_device_memory_is_the_machines_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perfgate.engine.tensorrt.build.free_memory_bytes", lambda _: 1 << 30)
    model = conv(tmp_path / "m.onnx")
    with pytest.raises(InfrastructureError, match=r"1024 MiB of device memory.*4096"):
        build(model, profile=BATCH)
    build(model, profile=BATCH, options={"minFreeMemory": 512})


def test_a_build_says_how_far_it_is_and_no_more(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    build(conv(tmp_path / "m.onnx"), profile=BATCH)
    out, err = capfd.readouterr()
    assert out == ""
    assert err.splitlines()
    assert all(line.startswith("perfgate-progress ") for line in err.splitlines())


def test_network_name_is_read_back() -> None:
    inputs: dict[str, tuple[int | str, ...]] = {"in:0/a b": ("b", 3), "s": (), "odd,#&=": ("x,y", 1)}
    name = network_name(inputs, ("/opt/a b.so",))
    assert name.isascii()
    assert " " not in name
    assert read_network_name(name) == (inputs, ("/opt/a b.so",))
    assert plugins_in(b"\x00\x01" + name.encode() + b"*}\x00") == ("/opt/a b.so",)
    assert read_network_name("main_graph") == ({}, ())
    assert plugins_in(b"nothing here") == ()


def test_shapes() -> None:
    shapes = profile_shapes({"x": ("b", 3), "fixed": (2, 2)}, BATCH)
    assert shapes == {"x": ((1, 3), (4, 3), (8, 3))}
    assert concrete_shape("x", ("b", 3), {"b": 2}) == (2, 3)
    with pytest.raises(CaseError, match="'b'"):
        concrete_shape("x", ("b", 3), {})


def test_modes_and_refusals() -> None:
    backend = TensorRTBackend()
    assert backend.modes()[0] == Mode(drive="graph", transfers=False, wait="spin")
    assert len(set(map(str, backend.modes()))) == 8
    case = Case(
        id="m/fp32",
        model="m",
        backend="tensorrt",
        precision="fp32",
        mode=Mode(drive="call"),
        tolerance=Tolerance(ignore=0.005, catch=0.02),
    )
    assert "blocking call" in str(backend.refuses(case))


def test_unavailable_never_raises() -> None:
    for device in ("auto", "cpu", "99"):
        for name in ("tensorrt", "tensorrt-rtx"):
            reason = TensorRTBackend(device, name=name).unavailable()
            assert reason is None or len(reason) > 10
    assert "CPU" in str(TensorRTBackend("cpu").unavailable())
