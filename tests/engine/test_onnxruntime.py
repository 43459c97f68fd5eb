from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import onnxruntime
import pytest
from small_models import CASE, write

from perfgate.engine import get_backend
from perfgate.engine.interface import BuildRequest
from perfgate.engine.onnxruntime import backend as backend_module
from perfgate.engine.onnxruntime.backend import OnnxRuntimeBackend, _tf32
from perfgate.errors import CaseError, UsageError
from perfgate.records import EngineFacts, Mode, Protocol, Recipe
from perfgate.util.files import file_digest

CPU = OnnxRuntimeBackend("cpu")
INPUTS: dict[str, np.ndarray[Any, Any]] = {
    "x": np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4),
    "ids": np.array([3, 7], dtype=np.int64),
}


def build(folder: Path, onnx: Path | None = None) -> tuple[Path, EngineFacts]:
    source = write(folder / "net.onnx") if onnx is None else onnx
    recipe = Recipe(
        backend="onnxruntime",
        onnx_digest=file_digest(source),
        precision="fp32",
        options=CPU.build_options(),
    )
    engine = folder / "engine"
    facts = CPU.build(
        BuildRequest(backend="onnxruntime", recipe=recipe, onnx=str(source), engine=str(engine), device="cpu")
    )
    return engine, facts


def test_an_engine_computes_what_a_plain_session_computes(tmp_path: Path) -> None:
    engine, _ = build(tmp_path)
    plain = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    with CPU.load(engine, CASE) as runner:
        runner.bind(INPUTS)
        runner.infer()
        (output,) = runner.outputs().values()
    np.testing.assert_allclose(output, plain.run(None, INPUTS)[0], rtol=1e-6)


def test_the_inputs_are_those_of_the_measured_shape(tmp_path: Path) -> None:
    engine, _ = build(tmp_path)
    with CPU.load(engine, msgspec.structs.replace(CASE, shape={"b": 5})) as runner:
        found = {tensor.name: (tensor.dtype, tensor.shape) for tensor in runner.inputs}
    assert found == {"x": ("float", (5, 4)), "ids": ("int64", (5,))}


def test_what_is_known_of_an_engine(tmp_path: Path) -> None:
    engine, facts = build(tmp_path)
    assert facts.digest == file_digest(engine)
    assert facts.engine_bytes == engine.stat().st_size
    assert facts.build_ns > 0
    assert facts.layers > 0
    assert facts.precision_share == {"float": 1.0}
    assert any("share of weights" in note for note in facts.notes)


def test_samples_keep_to_the_protocol(tmp_path: Path) -> None:
    engine, _ = build(tmp_path)
    with CPU.load(engine, CASE) as runner:
        runner.bind(INPUTS)
        few = runner.take(Protocol(duration_ns=0, min_samples=7))
        capped = runner.take(Protocol(duration_ns=10**12, min_samples=1, max_samples=9))
    assert len(few.samples_ns) == 7
    assert len(capped.samples_ns) == 9
    assert min(few.samples_ns) > 0
    assert sum(few.samples_ns) <= few.wall_ns * 1.01


def test_closing_twice_is_harmless(tmp_path: Path) -> None:
    engine, _ = build(tmp_path)
    runner = CPU.load(engine, CASE)
    runner.close()
    runner.close()


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x08\x08"])
def test_a_model_that_does_not_build_is_the_cases_fault(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(CaseError, match="cannot build the model"):
        build(tmp_path, path)


def test_an_engine_that_does_not_load_is_the_cases_fault(tmp_path: Path) -> None:
    for content in (None, b"garbage"):
        engine = tmp_path / "engine"
        if content is not None:
            engine.write_bytes(content)
        with pytest.raises(CaseError, match="cannot load the engine"):
            CPU.load(engine, CASE)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"mode": Mode(drive="graph")}, "no mode 'graph"),
        ({"mode": Mode(transfers=True)}, "no mode"),
    ],
)
def test_what_it_cannot_measure_on_a_cpu_is_refused_with_a_reason(
    change: dict[str, object], word: str
) -> None:
    reason = CPU.refuses(msgspec.structs.replace(CASE, **change))
    assert reason is not None
    assert word in reason


def test_what_it_can_measure_is_not_refused() -> None:
    for precision in ("fp32", "fp16", "int8", "int8+fp16"):
        assert CPU.refuses(msgspec.structs.replace(CASE, precision=precision)) is None
    assert CPU.modes()[0] == Mode(drive="call")


def test_it_says_what_it_is() -> None:
    assert CPU.unavailable() is None
    assert CPU.kind == "cpu"
    assert CPU.versions() == {"onnxruntime": onnxruntime.__version__}
    assert CPU.device()


def test_a_device_that_this_runtime_cannot_use_is_unavailable_with_a_remedy() -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    reason = OnnxRuntimeBackend("0").unavailable()
    assert reason is not None
    assert "pip install" in reason


def test_a_gpu_that_does_not_start_is_an_error_and_never_the_cpu_under_its_name(tmp_path: Path) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    gpu, source = OnnxRuntimeBackend("0"), write(tmp_path / "net.onnx")
    options = {**gpu.build_options(), "provider": "gpu"}
    recipe = Recipe(backend="onnxruntime", onnx_digest=file_digest(source), precision="fp32", options=options)
    request = BuildRequest(
        backend="onnxruntime", recipe=recipe, onnx=str(source), engine=str(tmp_path / "engine"), device="0"
    )
    # The real runtime warns, and takes the CPU.
    with pytest.warns(UserWarning), pytest.raises(CaseError, match="could not start its CUDA") as caught:
        gpu.build(request)
    assert "cudnn" in str(caught.value.fix)


@pytest.mark.parametrize("work", ["build", "load", "profile"])
@pytest.mark.parametrize(("device", "chosen"), [("1", ["1"]), ("cpu", [])])
def test_the_gpu_asked_for_is_chosen_before_a_session_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, chosen: list[str], work: str
) -> None:
    engine, _ = build(tmp_path)
    recipe = Recipe(backend="onnxruntime", onnx_digest=file_digest(engine), precision="fp32")
    request = BuildRequest(
        backend="onnxruntime", recipe=recipe, onnx=str(engine), engine=str(engine), device=device
    )
    found: list[str] = []
    seen: list[list[str]] = []

    def session(*_: object) -> None:
        seen.append(list(found))
        raise CaseError("no GPU here")

    monkeypatch.setattr(backend_module, "choose", found.append)
    monkeypatch.setattr(backend_module, "_session", session)
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    backend = OnnxRuntimeBackend(device)
    with pytest.raises(CaseError, match="no GPU here"):
        if work == "build":
            backend.build(request)
        elif work == "load":
            backend.load(engine, CASE)
        else:
            backend.profile(engine, CASE, lambda tensor: INPUTS[tensor.name], queries=1)
    assert seen == [chosen]


def test_backends_by_name() -> None:
    assert get_backend("onnxruntime", "cpu").name == "onnxruntime"
    with pytest.raises(UsageError, match="no such backend: 'onxruntime'") as caught:
        get_backend("onxruntime")
    assert "onnxruntime" in str(caught.value.fix)


@pytest.mark.parametrize(
    ("providers", "precision", "state"),
    [
        ({"CUDAExecutionProvider": {"use_tf32": "1"}, "CPUExecutionProvider": {}}, "fp32", "on"),
        ({"CUDAExecutionProvider": {"use_tf32": "0"}}, "fp32", "off"),
        ({"CUDAExecutionProvider": {}}, "fp32", "on"),
        ({"CUDAExecutionProvider": {"use_tf32": "1"}}, "fp16", None),
        ({"CPUExecutionProvider": {}}, "fp32", None),
    ],
)
def test_tf32_is_the_cuda_providers_own_setting(providers: Any, precision: str, state: str | None) -> None:
    assert _tf32(SimpleNamespace(get_provider_options=lambda: providers), precision) == state
