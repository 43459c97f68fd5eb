"""PyTorch on a real GPU: every mode against ONNX Runtime's CPU, FP16, TF32, compiled, captured.

Everything that starts CUDA runs in a child process, as it does in a real launch.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from perfgate.engine.interface import BuildRequest, Script
from perfgate.engine.torch.backend import TorchBackend
from perfgate.measure.launch import EngineTarget, LaunchRequest, launch
from perfgate.model.inputs import make_array
from perfgate.model.onnx_file import SourceModel, export_onnx
from perfgate.model.read import read_spec
from perfgate.model.sources import Sources
from perfgate.model.spec import ModelSpec
from perfgate.records import Case, Mode, Precision, Protocol, Recipe, Tensor, Tolerance
from perfgate.util.process import package_environment

pytestmark = pytest.mark.gpu

MODELS = Path(__file__).resolve().parents[2] / "models"
# Largest difference over largest output. FP32 without TF32 differs by the order of sums alone; TF32 keeps
# 10 bits of mantissa, and FP16 as many with less range, through fifty layers.
ERRORS = {"fp32": 1e-4, "tf32": 2e-2, "fp16": 2e-2}
MODES = tuple(
    Mode(drive=drive, transfers=transfers, wait=wait)
    for drive in ("enqueue", "graph")
    for transfers in (False, True)
    for wait in ("spin", "block")
)
RUN = """
import sys, msgspec, numpy
from pathlib import Path
from perfgate.engine.interface import BuildRequest
from perfgate.engine.torch import TorchBackend
from perfgate.errors import PerfgateError
from perfgate.records import Case, Protocol
request_file, case_file, data, out = sys.argv[1:]
request = msgspec.json.decode(Path(request_file).read_bytes(), type=BuildRequest)
case = msgspec.json.decode(Path(case_file).read_bytes(), type=Case)
backend = TorchBackend(name=request.backend)
protocol = Protocol(duration_ns=50_000_000, min_samples=20, max_samples=500)
try:
    facts = backend.build(request)
    with backend.load(Path(request.engine), case) as runner:
        arrays = dict(numpy.load(data))
        runner.bind(arrays)
        runner.infer()
        first = runner.outputs()
        samples = runner.take(protocol)
        last = runner.outputs()
        runner.bind({name: numpy.zeros_like(array) for name, array in arrays.items()})
        runner.infer()
        other = runner.outputs()
    runner.close()
    name, = first
    numpy.savez(out, first=first[name], last=last[name], other=other[name])
    print(msgspec.json.encode({"samples": samples, "notes": facts.notes}).decode())
except PerfgateError as error:
    print(msgspec.json.encode({"error": str(error), "kind": type(error).__name__}).decode())
"""


@pytest.fixture(scope="module", autouse=True)
def _needs_cuda() -> Iterator[None]:
    backend = TorchBackend()
    if reason := backend.unavailable():
        pytest.skip(reason)
    if backend.kind != "gpu":
        pytest.skip("PyTorch has no CUDA here, or no GPU is visible")
    yield


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


def prepared(model: str, store: Path) -> tuple[ModelSpec, SourceModel]:
    spec = read_spec(MODELS / f"{model}.toml")
    return spec, export_onnx(spec, Sources(store))


def case_of(spec: ModelSpec, mode: Mode, precision: Precision = "fp32", backend: str = "torch") -> Case:
    return Case(
        id=f"{spec.name}/{precision}",
        model=spec.name,
        backend=backend,
        precision=precision,
        shape={"b": 2},
        mode=mode,
        inputs=spec.inputs,
        tolerance=Tolerance(ignore=0.005, catch=0.02),
    )


def request_of(case: Case, script: Path, model: SourceModel, engine: Path, **options: Any) -> BuildRequest:
    backend = TorchBackend(name=case.backend)
    recipe = Recipe(
        backend=case.backend,
        onnx_digest=model.graph.onnx_digest,
        precision=case.precision,
        options={**backend.build_options(), **options},
    )
    return BuildRequest(
        backend=case.backend,
        recipe=recipe,
        onnx=model.path,
        engine=str(engine),
        script=Script(path=str(script), seed=0),
    )


def run(
    folder: Path, spec: ModelSpec, model: SourceModel, case: Case, **options: Any
) -> tuple[dict[str, Any], dict[str, Any], Any]:
    """The child's reply, the inputs, and the outputs (None after an error)."""
    request = request_of(case, MODELS / spec.source.script, model, folder / "engine", **options)
    inputs = {
        tensor.name: make_array(tensor, spec.inputs[tensor.name], folder) for tensor in _tensors(model, case)
    }
    files = [folder / name for name in ("request.json", "case.json", "in.npz", "out.npz")]
    for path, record in zip(files, (request, case), strict=False):
        path.write_bytes(msgspec.json.encode(record))
    save: Any = np.savez  # its stub takes keywords for its own flag
    save(files[2], **inputs)
    done = subprocess.run(
        [sys.executable, "-c", RUN, *map(str, files)],
        capture_output=True,
        text=True,
        timeout=280,
        env=package_environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    reply = json.loads(done.stdout.splitlines()[-1])
    return reply, inputs, None if "error" in reply else np.load(files[3])


def _tensors(model: SourceModel, case: Case) -> Any:
    from perfgate.engine.tensorrt.onnx_names import concrete_shape

    return [
        Tensor(name=one.name, dtype=one.dtype, shape=concrete_shape(one.name, one.axes, case.shape))
        for one in model.graph.inputs
    ]


def reference(model: SourceModel, inputs: dict[str, Any]) -> Any:
    runtime = pytest.importorskip("onnxruntime")
    return runtime.InferenceSession(model.path, providers=["CPUExecutionProvider"]).run(None, inputs)[0]


def error(found: Any, wanted: Any) -> float:
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def check_samples(samples: dict[str, Any], mode: Mode) -> None:
    taken, other = samples["samples_ns"], samples["other_ns"]
    assert 20 <= len(taken) <= 500 and min(taken) > 0
    assert set(other) == ({"enqueue", "h2d", "gpu_compute", "d2h"} if mode.transfers else {"enqueue"})
    assert all(len(series) == len(taken) for series in other.values())
    # One stream runs one query at a time, so the samples cannot take longer than the wall's time.
    assert sum(taken) <= samples["wall_ns"] * 1.05
    if mode.transfers:
        parts = zip(*(other[name] for name in ("h2d", "gpu_compute", "d2h")), strict=True)
        # Four events on one stream: the parts are the whole, up to the events' resolution.
        assert all(abs(sum(part) - whole) < 5_000 for part, whole in zip(parts, taken, strict=True))


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_every_mode(mode: Mode, store: Path, tmp_path: Path) -> None:
    spec, model = prepared("tinyconv", store)
    reply, inputs, outputs = run(tmp_path, spec, model, case_of(spec, mode), noTF32=True)
    assert "error" not in reply, reply
    assert error(outputs["first"], reference(model, inputs)) < ERRORS["fp32"]
    # The timed loop computes what a single query does, also through a graph, and new inputs arrive.
    assert error(outputs["last"], outputs["first"]) < 1e-6
    zeros = {name: np.zeros_like(array) for name, array in inputs.items()}
    assert error(outputs["other"], reference(model, zeros)) < ERRORS["fp32"]
    check_samples(reply["samples"], mode)


@pytest.mark.parametrize(
    ("precision", "options", "bound", "note"),
    [
        ("fp32", {"noTF32": True}, "fp32", "TF32 is off"),
        ("fp32", {"tf32": True}, "tf32", "TF32 is on"),
        ("fp32", {}, "tf32", "TF32 as PyTorch has it: convolutions only"),
        ("fp16", {}, "fp16", "FP16 by .half()"),
    ],
)
def test_resnet50_agrees(
    precision: Precision, options: dict[str, Any], bound: str, note: str, store: Path, tmp_path: Path
) -> None:
    spec, model = prepared("resnet50", store)
    case = case_of(spec, Mode(drive="enqueue", transfers=True), precision)
    reply, inputs, outputs = run(tmp_path, spec, model, case, **options)
    assert "error" not in reply, reply
    assert outputs["first"].dtype == np.float32
    found = error(outputs["first"], reference(model, inputs))
    assert found < ERRORS[bound]
    if bound != "fp32":
        assert found > 1e-6, "that is FP32, and another precision was asked for"
    assert any(note in said for said in reply["notes"]), reply["notes"]


@pytest.mark.parametrize("drive", ["enqueue", "graph"])
def test_compiled(drive: Any, store: Path, tmp_path: Path) -> None:
    if reason := TorchBackend(name="torch-compile").unavailable():
        pytest.skip(reason)
    spec, model = prepared("tinyconv", store)
    mode = Mode(drive=drive, transfers=True)
    reply, inputs, outputs = run(
        tmp_path, spec, model, case_of(spec, mode, backend="torch-compile"), noTF32=True
    )
    assert "error" not in reply, reply
    assert error(outputs["last"], reference(model, inputs)) < ERRORS["fp32"]
    check_samples(reply["samples"], mode)


def test_a_module_that_synchronises_cannot_be_captured(store: Path, tmp_path: Path) -> None:
    _, model = prepared("tinyconv", store)
    (tmp_path / "bad.py").write_text(
        "def torch_module(seed):\n    import torch\n\n    class Bad(torch.nn.Module):\n"
        "        def forward(self, x):\n            return x[:, 0, 0, :10] * x.sum().item()\n\n"
        "    return Bad()\n"
    )
    spec = read_spec(MODELS / "tinyconv.toml")
    spec = msgspec.structs.replace(
        spec, source=msgspec.structs.replace(spec.source, script=str(tmp_path / "bad.py"))
    )
    reply, _, _ = run(tmp_path, spec, model, case_of(spec, Mode(drive="graph")))
    assert reply["kind"] == "GraphCaptureError", reply


def test_a_launch(store: Path, tmp_path: Path) -> None:
    spec, model = prepared("tinyconv", store)
    case = case_of(spec, Mode(drive="enqueue", transfers=True))
    engine = tmp_path / "engine"
    reply, _, _ = run(tmp_path, spec, model, case)
    assert "error" not in reply, reply
    target = EngineTarget(engine=str(engine), case=case, folder=str(spec.folder))
    result = launch(LaunchRequest(target=target, protocol=Protocol(duration_ns=50_000_000, min_samples=20)))
    assert set(result.other_ns) == {"enqueue", "h2d", "gpu_compute", "d2h"}
    assert len(result.samples_ns) >= 20
