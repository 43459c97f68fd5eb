"""PyTorch as a backend: what it refuses and says, its outputs against ONNX Runtime's, and real launches."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

from perfgate.engine import NAMES, get_backend
from perfgate.engine.interface import Backend, BuildRequest, Script
from perfgate.engine.torch import backend as backend_module
from perfgate.engine.torch.backend import TorchBackend, TorchEngine, tf32_of
from perfgate.errors import CaseError, InfrastructureError
from perfgate.measure.launch import EngineTarget, LaunchRequest, launch
from perfgate.model.inputs import make_array
from perfgate.model.onnx_file import SourceModel, export_onnx
from perfgate.model.read import read_spec
from perfgate.model.sources import Sources
from perfgate.model.spec import ModelSpec
from perfgate.records import Case, InputData, Launch, Mode, Protocol, Recipe, Tensor, Tolerance
from perfgate.util.files import read_record
from perfgate.util.process import package_environment

MODELS = Path(__file__).resolve().parents[2] / "models"
# Largest difference over largest output. FP32 on both sides, with sums in another order.
FP32_ERROR = 1e-5
SHORT = Protocol(warmup_ns=1_000_000, duration_ns=20_000_000, min_samples=5, max_samples=100)
GPU_FACTS = {"__version__": "2.11.0+cu130", "cuda": "13.0"}


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model scripts run in this process: leave its import system as it was."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)


def spec_of(model: str, **args: Any) -> ModelSpec:
    spec = read_spec(MODELS / f"{model}.toml")
    return msgspec.structs.replace(spec, source=msgspec.structs.replace(spec.source, args=args))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Writes a model's ONNX file, once a model."""
    store = tmp_path_factory.mktemp("store")
    return lambda spec: export_onnx(spec, Sources(store))


def case_of(spec: ModelSpec, backend: Backend, **more: Any) -> Case:
    fields: dict[str, Any] = {
        "id": f"{spec.name}/fp32",
        "model": spec.name,
        "backend": backend.name,
        "precision": "fp32",
        "shape": {"b": 2, "s": 16} if spec.name == "bert-base" else {"b": 2},
        "inputs": spec.inputs,
        "tolerance": Tolerance(ignore=0.1, catch=0.3),
        **more,
    }
    return Case(**fields)


def request_of(backend: Backend, spec: ModelSpec, model: SourceModel, engine: Path, **more: Any) -> Any:
    recipe = Recipe(
        backend=backend.name,
        onnx_digest=model.graph.onnx_digest,
        precision="fp32",
        options={**backend.build_options(), **more.pop("options", {})},
    )
    source = spec.source
    script = Script(path=str((spec.folder / source.script).resolve()), seed=source.seed, args=source.args)
    fields = {"backend": backend.name, "recipe": recipe, "onnx": model.path, "script": script}
    return BuildRequest(**{**fields, "engine": str(engine), **more})


def outputs_of(backend: Backend, spec: ModelSpec, model: SourceModel, folder: Path) -> dict[str, Any]:
    """Build, load and infer once, as a launch does."""
    engine = folder / backend.name
    backend.build(request_of(backend, spec, model, engine))
    case = case_of(spec, backend)
    with backend.load(engine, case) as runner:
        runner.bind(
            {t.name: make_array(t, case.inputs.get(t.name, InputData()), folder) for t in runner.inputs}
        )
        runner.infer()
        return runner.outputs()


def own_model(folder: Path, body: str) -> tuple[ModelSpec, SourceModel]:
    """A model of one Relu whose script ends in `body`."""
    (folder / "relu.py").write_text(
        "import onnx\nfrom onnx import TensorProto, helper\n\n"
        "def write_onnx(path, seed):\n"
        "    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ['b', 3]) for n in 'xy')\n"
        "    graph = helper.make_graph([helper.make_node('Relu', ['x'], ['y'], 'relu')], 'relu', [x], [y])\n"
        "    opset = [helper.make_opsetid('', 17)]\n"
        "    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)\n\n" + body
    )
    (folder / "relu.toml").write_text(
        'schema = "perfgate-trt/model/v1"\nname = "relu"\nprecisions = ["fp32"]\n'
        '[source]\nscript = "relu.py"\n[dims.b]\nmin = 1\nopt = 2\nmax = 4\nmeasure = [2]\n'
    )
    spec = read_spec(folder / "relu.toml")
    return spec, export_onnx(spec, Sources(folder / "store"))


# --- without PyTorch ---------------------------------------------------------------------------------------


def test_both_backends_go_by_name() -> None:
    assert {"torch", "torch-compile"} <= set(NAMES)
    assert get_backend("torch", "cpu").name == "torch"
    assert get_backend("torch-compile", "cpu").name == "torch-compile"


def test_the_module_imports_no_torch() -> None:
    code = (
        "import sys; from perfgate.engine import get_backend; b = get_backend('torch', 'cpu'); "
        "b.unavailable(); b.kind; b.modes(); b.device(); sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], env=package_environment(), timeout=60, check=True)


def test_without_pytorch_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "not installed" in str(TorchBackend("cpu").unavailable())
    with pytest.raises(InfrastructureError):
        TorchBackend("cpu").versions()


def test_a_broken_pytorch_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> Any:
        raise ValueError("torch.__spec__ is None")

    monkeypatch.setattr("importlib.util.find_spec", broken)
    assert "not installed" in str(TorchBackend("cpu").unavailable())


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend_module, "_torch_facts", lambda: GPU_FACTS)
    monkeypatch.setattr(backend_module, "device_name", lambda device="auto": "NVIDIA H200")


def test_the_device_decides_the_kind(on_gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert TorchBackend().kind == "gpu"
    assert TorchBackend("cpu").kind == "cpu"
    assert TorchBackend().device() == "NVIDIA H200"
    assert TorchBackend().versions() == {"torch": "2.11.0+cu130"}
    monkeypatch.setattr(backend_module, "device_name", lambda device="auto": None)
    assert TorchBackend().kind == "cpu"
    assert "no NVIDIA GPU" in str(TorchBackend("0").unavailable())
    monkeypatch.setattr(backend_module, "_torch_facts", lambda: {"__version__": "2.13.0+cpu", "cuda": None})
    assert "without CUDA" in str(TorchBackend("0").unavailable())


def test_gpu_modes_are_tensorrts_with_enqueue_first(on_gpu: None) -> None:
    from perfgate.engine.tensorrt.backend import TensorRTBackend

    ours, theirs = TorchBackend().modes(), TensorRTBackend().modes()
    assert ours[0] == Mode(drive="enqueue", wait="spin")
    assert {str(mode) for mode in ours} == {str(mode) for mode in theirs}


@pytest.mark.parametrize(
    ("device", "change", "reason"),
    [
        ("cpu", {"precision": "int8"}, "INT8"),
        ("auto", {"precision": "int8+fp16"}, "INT8"),
        ("cpu", {"precision": "fp16"}, "FP16"),
        ("cpu", {"mode": Mode(drive="graph")}, "no mode"),
        ("auto", {"mode": Mode(drive="call")}, "no mode"),
        ("auto", {"mode": Mode(drive="enqueue", streams=2)}, "one stream"),
        ("auto", {"precision": "fp16", "mode": Mode(drive="graph", transfers=True)}, None),
        ("cpu", {}, None),
    ],
)
def test_refusals(on_gpu: None, device: str, change: dict[str, Any], reason: str | None) -> None:
    backend = TorchBackend(device)
    found = backend.refuses(case_of(spec_of("tinyconv"), backend, **change))
    assert found is None if reason is None else reason in str(found)


def test_a_model_without_a_script_is_refused_with_a_remedy(made: Any, tmp_path: Path) -> None:
    backend, spec = TorchBackend("cpu"), spec_of("tinyconv")
    with pytest.raises(CaseError, match="needs the model as a script") as caught:
        backend.build(request_of(backend, spec, made(spec), tmp_path / "engine", script=None))
    assert "torch_module" in str(caught.value.fix)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tf32": "on"}, "is not true or false"),
        ({"tf32": True, "noTF32": True}, "contradict"),
        ({"compile_mode": "reduce-overhead"}, "is not measured"),
    ],
)
def test_options_that_do_not_fit(made: Any, tmp_path: Path, options: dict[str, Any], said: str) -> None:
    backend, spec = TorchBackend("cpu", name="torch-compile"), spec_of("tinyconv")
    with pytest.raises(CaseError, match=said):
        backend.build(request_of(backend, spec, made(spec), tmp_path / "engine", options=options))


# --- with PyTorch, on the CPU ------------------------------------------------------------------------------


def test_the_engine_says_what_is_run(room: None, made: Any, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    backend, spec = TorchBackend("cpu"), spec_of("tinyconv")
    model = made(spec)
    options = {"noTF32": True, "workspace": 64}
    facts = backend.build(request_of(backend, spec, model, tmp_path / "engine", options=options))
    engine = read_record(tmp_path / "engine", TorchEngine, limit_bytes=1 << 20)
    assert engine.script.path == str(MODELS / "tinyconv.py")
    assert engine.onnx_digest == model.graph.onnx_digest
    assert [(t.name, t.dtype, t.axes) for t in engine.inputs] == [("x", "float", ("b", 3, 64, 64))]
    assert engine.outputs == ("y",)
    assert engine.tf32 is False
    assert facts.engine_bytes == (tmp_path / "engine").stat().st_size
    assert facts.precision_share == {"fp32": 1.0}
    assert any("without effect here: workspace" in note for note in facts.notes)
    again = backend.build(request_of(backend, spec, model, tmp_path / "again", options=options))
    assert again.digest == facts.digest


@pytest.mark.parametrize(("model", "args"), [("tinyconv", {}), ("bert-base", {"layers": 1})])
def test_outputs_are_onnx_runtimes(
    room: None, made: Any, tmp_path: Path, model: str, args: dict[str, Any]
) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("onnxruntime")
    spec = spec_of(model, **args)
    backends = [get_backend("torch", "cpu"), get_backend("onnxruntime", "cpu")]
    ours, theirs = (outputs_of(backend, spec, made(spec), tmp_path) for backend in backends)
    assert ours.keys() == theirs.keys()
    for name, wanted in theirs.items():
        assert ours[name].dtype == wanted.dtype and ours[name].shape == wanted.shape
        assert np.abs(ours[name] - wanted).max() / np.abs(wanted).max() < FP32_ERROR


@pytest.mark.parametrize(
    "array",
    [np.zeros((2, 3, 64, 64)), np.zeros((1, 3, 64, 64), np.float32)],
    ids=["type", "shape"],
)
def test_an_input_that_does_not_fit_is_named(room: None, made: Any, tmp_path: Path, array: Any) -> None:
    pytest.importorskip("torch")
    backend, spec = TorchBackend("cpu"), spec_of("tinyconv")
    backend.build(request_of(backend, spec, made(spec), tmp_path / "engine"))
    with backend.load(tmp_path / "engine", case_of(spec, backend)) as runner:
        with pytest.raises(CaseError, match=r"input 'x' is float32\[2, 3, 64, 64\]"):
            runner.bind({"x": array})
        with pytest.raises(CaseError, match="was given"):
            runner.bind({"z": array})
    runner.close()


RELU = "def torch_module(seed):\n    from torch import nn\n    "


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("", "has no torch_module"),
        ("def torch_module(seed):\n    return 7\n", "returned int, not an nn.Module"),
        ("def torch_module(seed):\n    raise OSError('no weights here')\n", "OSError: no weights here"),
    ],
)
def test_a_script_without_a_module(room: None, tmp_path: Path, body: str, said: str) -> None:
    pytest.importorskip("torch")
    backend = TorchBackend("cpu")
    spec, model = own_model(tmp_path, body)
    with pytest.raises(CaseError, match=said):
        backend.build(request_of(backend, spec, model, tmp_path / "engine"))


def test_a_module_in_training_mode_is_put_into_eval_mode(room: None, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    spec, model = own_model(tmp_path, RELU + "return nn.Sequential(nn.ReLU(), nn.Dropout(1.0)).train()\n")
    outputs = outputs_of(TorchBackend("cpu"), spec, model, tmp_path)
    assert outputs["y"].max() > 0


MAPPING = (
    RELU + "class Named(nn.Module):\n        def forward(self, x):\n            return {{'{0}': x.relu()}}\n"
    "    return Named()\n"
)


def test_named_outputs(room: None, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    spec, model = own_model(tmp_path, MAPPING.format("y"))
    assert outputs_of(TorchBackend("cpu"), spec, model, tmp_path)["y"].shape == (2, 3)


def test_an_output_that_is_missing_is_named(room: None, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    spec, model = own_model(tmp_path, MAPPING.format("z"))
    with pytest.raises(CaseError, match="no output 'y'"):
        outputs_of(TorchBackend("cpu"), spec, model, tmp_path)


def test_a_script_that_changed_is_not_run_under_the_old_engine(room: None, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    backend = TorchBackend("cpu")
    spec, model = own_model(tmp_path, RELU + "return nn.ReLU()\n")
    backend.build(request_of(backend, spec, model, tmp_path / "engine"))
    (tmp_path / "relu.py").write_text((tmp_path / "relu.py").read_text().replace("ReLU()", "GELU()"))
    with pytest.raises(CaseError, match="not what this engine was made from"):
        backend.load(tmp_path / "engine", case_of(spec, backend))


def test_a_damaged_engine_is_named(tmp_path: Path) -> None:
    backend = TorchBackend("cpu")
    (tmp_path / "engine").write_text("{}")
    with pytest.raises(CaseError, match="cannot load the engine"):
        backend.load(tmp_path / "engine", case_of(spec_of("tinyconv"), backend))


def launched(backend: Backend, spec: ModelSpec, model: SourceModel, folder: Path) -> Launch:
    engine = folder / "engine"
    backend.build(request_of(backend, spec, model, engine))
    case = case_of(spec, backend)
    target = EngineTarget(engine=str(engine), case=case, folder=str(spec.folder), device="cpu")
    result = launch(LaunchRequest(target=target, protocol=SHORT))
    assert 5 <= len(result.samples_ns) <= 100
    assert sum(result.samples_ns) <= result.wall_ns
    assert result.peak_memory_bytes > 50 << 20
    return result


def test_a_launch(room: None, made: Any, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    spec = spec_of("tinyconv")
    result = launched(TorchBackend("cpu"), spec, made(spec), tmp_path)
    assert min(result.samples_ns) > 10_000


@pytest.mark.filterwarnings("ignore")  # the compiler's own, from inside PyTorch
def test_compiled(room: None, tmp_path: Path) -> None:
    """A network of one Relu: what takes long is the compiler's start, not the model."""
    pytest.importorskip("torch")
    backend = get_backend("torch-compile", "cpu")
    if reason := backend.unavailable():
        pytest.skip(reason)
    spec, model = own_model(tmp_path, RELU + "return nn.ReLU()\n")
    result = launched(backend, spec, model, tmp_path)
    # Compiled at the first inference, not before it and not in every call.
    assert result.first_inference_ns > 10 * max(result.samples_ns)
    outputs = outputs_of(backend, spec, model, tmp_path)
    x = make_array(Tensor(name="x", dtype="float", shape=(2, 3)), InputData(), tmp_path)
    np.testing.assert_array_equal(outputs["y"], np.maximum(x, 0))
    facts = backend.build(request_of(backend, spec, model, tmp_path / "again"))
    assert any("compiled for the measured shape" in note for note in facts.notes)


@pytest.mark.parametrize(
    ("asked", "convolutions", "products", "state"),
    [
        (None, True, False, "convolutions only"),
        (None, True, True, "on"),
        (None, False, False, "off"),
        (None, False, True, "matrix products only"),
        (False, True, True, "off"),
        (True, False, False, "on"),
    ],
)
def test_tf32_is_what_is_asked_or_else_pytorchs_own(
    monkeypatch: pytest.MonkeyPatch, asked: bool | None, convolutions: bool, products: bool, state: str
) -> None:
    backends = SimpleNamespace(
        cudnn=SimpleNamespace(allow_tf32=convolutions),
        cuda=SimpleNamespace(matmul=SimpleNamespace(allow_tf32=products)),
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(backends=backends))
    assert tf32_of(asked) == state
