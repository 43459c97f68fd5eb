"""The shipped models: equal bytes everywhere, ONNX that TensorRT 8.5 parses, sane in FP16, PyTorch agrees."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest

from perfgate.model.graph import check_against_graph, read_graph
from perfgate.model.read import read_specs

if TYPE_CHECKING:
    from types import ModuleType

    Arrays = dict[str, np.ndarray[Any, Any]]

MODELS = Path(__file__).resolve().parents[2] / "models"
# The arguments the tests use: one BERT layer shows what twelve do, in a quarter of the time and bytes.
ARGS: dict[str, dict[str, int]] = {"bert-base": {"layers": 1}, "resnet50": {}, "tinyconv": {}}
SHAPES = {"bert-base": (16, 768), "resnet50": (1000,), "tinyconv": (10,)}
OPERATORS = {
    "bert-base": (
        "Add Cast Div Erf Gather MatMul Mul ReduceMean Reshape Shape Slice Softmax Sqrt Sub Transpose "
        "Unsqueeze"
    ),
    "resnet50": "Add BatchNormalization Conv Flatten Gemm GlobalAveragePool MaxPool Relu",
    "tinyconv": "Conv Flatten Gemm GlobalAveragePool Relu",
}

WRITE = """
import importlib.util, json, sys
folder, out, args = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
sys.path.insert(0, folder)
for name, arguments in args.items():
    spec = importlib.util.spec_from_file_location(name, f"{folder}/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.write_onnx(f"{out}/{name}.onnx", 0, **arguments)
"""

each_model = pytest.mark.parametrize("name", sorted(ARGS))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two folders of the same models, written by two processes that hash strings differently."""
    folders = [tmp_path_factory.mktemp("written") for _ in range(2)]
    for hash_seed, folder in enumerate(folders, start=1):
        env = {**os.environ, "PYTHONHASHSEED": str(hash_seed), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-c", WRITE, str(MODELS), str(folder), json.dumps(ARGS)]
        subprocess.run(command, check=True, env=env, timeout=120)
    return folders


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Loads a model script as the spec's child does: with its folder first on the path."""
    monkeypatch.setattr(sys, "path", [str(MODELS), *sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name.replace("-", "_"), MODELS / f"{name}.py")
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


def feed(name: str, batch: int, seed: int = 1) -> Arrays:
    random = np.random.default_rng(seed)
    if name == "bert-base":
        ids = random.integers(0, 30522, (batch, 16), dtype=np.int32)
        return {"input_ids": ids, "attention_mask": np.ones((batch, 16), np.int32)}
    size = 224 if name == "resnet50" else 64
    return {"x": random.standard_normal((batch, 3, size, size), dtype=np.float32)}


def run(model: Path | bytes, inputs: Arrays, *, optimise: bool = True) -> Arrays:
    options = onnxruntime.SessionOptions()
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    source = model if isinstance(model, bytes) else str(model)
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(None, inputs), strict=True))


def only(outputs: Arrays) -> np.ndarray[Any, Any]:
    (output,) = outputs.values()
    return output


@each_model
def test_bytes_are_equal_in_every_process(written: list[Path], name: str) -> None:
    first, second = (hashlib.sha256((folder / f"{name}.onnx").read_bytes()).hexdigest() for folder in written)
    assert first == second


def test_weights_are_equal_on_every_machine(load: Any) -> None:
    """Recorded once: a NumPy or a machine that draws other bits would orphan every stored baseline."""
    digest = hashlib.sha256()
    for value in load("tinyconv").weights(0).values():
        digest.update(value.tobytes())
    assert digest.hexdigest() == "142cfa42d69473916aaf97617659fbfd620fa953895ef6932f85e504ae82b405"


@each_model
def test_file_is_valid_and_as_old_as_promised(written: list[Path], name: str) -> None:
    model = onnx.load(written[0] / f"{name}.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version == 8
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 17)]
    assert not model.producer_name and not model.producer_version and not model.metadata_props
    assert {node.op_type for node in model.graph.node} == set(OPERATORS[name].split())
    names = [node.name for node in model.graph.node]
    assert all(names) and len(set(names)) == len(names)
    for value in [*model.graph.input, *model.graph.output]:
        assert value.type.tensor_type.shape.dim[0].dim_param == "b"


@each_model
def test_runs_at_any_batch(written: list[Path], name: str) -> None:
    inputs = feed(name, 2)
    two = only(run(written[0] / f"{name}.onnx", inputs))
    one = only(run(written[0] / f"{name}.onnx", {key: value[:1] for key, value in inputs.items()}))
    assert two.shape == (2, *SHAPES[name]) and one.shape == (1, *SHAPES[name])
    assert np.isfinite(two).all()
    np.testing.assert_allclose(one[0], two[0], atol=1e-3)


@each_model
def test_activations_fit_fp16_and_outputs_follow_inputs(written: list[Path], name: str) -> None:
    model = onnx.shape_inference.infer_shapes(onnx.load(written[0] / f"{name}.onnx"))
    floats = [v for v in model.graph.value_info if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT]
    model.graph.output.extend(floats)
    values = run(model.SerializeToString(), feed(name, 2), optimise=False)
    assert len(values) > 10
    largest = {key: float(np.abs(value).max()) for key, value in values.items()}
    assert max(largest.values()) < 1000, max(largest, key=largest.__getitem__)
    output = values[model.graph.output[0].name]
    assert 0.3 < output.std() < 3
    # An accuracy check on outputs that hardly depend on the input would see nothing.
    assert np.abs(output[0] - output[1]).mean() > 0.1 * output.std()


def test_padding_does_not_reach_the_other_tokens(written: list[Path]) -> None:
    inputs = feed("bert-base", 1)
    inputs["attention_mask"][:, 10:] = 0
    other = {**inputs, "input_ids": inputs["input_ids"].copy()}
    other["input_ids"][:, 10:] = 7
    first, second = (only(run(written[0] / "bert-base.onnx", given)) for given in (inputs, other))
    np.testing.assert_allclose(first[:, :10], second[:, :10], atol=1e-5)
    assert np.abs(first[:, 10:] - second[:, 10:]).max() > 0.1


def test_an_extra_layer_changes_nothing_else(load: Any) -> None:
    resnet50 = load("resnet50")
    plain, longer = resnet50.weights(0), resnet50.weights(0, extra_layers=1)
    added = set(longer) - set(plain)
    assert {name.rpartition(".")[0] for name in added} == {
        f"layer3.6.{part}" for part in ("conv1", "bn1", "conv2", "bn2", "conv3", "bn3")
    }
    assert all(np.array_equal(longer[name], value) for name, value in plain.items())
    assert sum(value.size for value in plain.values()) == 25_557_032 + 2 * 26_560  # with running statistics


def test_repeat_multiplies_the_middle(load: Any, tmp_path: Path) -> None:
    load("tinyconv").write_onnx(str(tmp_path / "long.onnx"), 0, repeat=8)
    nodes = onnx.load(tmp_path / "long.onnx").graph.node
    assert sum(node.op_type == "Conv" for node in nodes) == 2 + 8 * 2
    assert np.isfinite(only(run(tmp_path / "long.onnx", feed("tinyconv", 1)))).all()


def test_specs_fit_their_graphs(written: list[Path]) -> None:
    specs = read_specs([MODELS])
    assert {spec.name for spec in specs} == {*ARGS, "ocr"}  # the trained one has tests of its own
    for spec in specs:
        if spec.name == "ocr":
            continue
        check_against_graph(spec, read_graph(written[0] / f"{spec.name}.onnx"))


@each_model
def test_pytorch_agrees(written: list[Path], load: Any, name: str) -> None:
    torch = pytest.importorskip("torch")
    inputs = feed(name, 2)
    if name == "bert-base":
        inputs["attention_mask"][1, 10:] = 0
    module = load(name).torch_module(0, **ARGS[name])
    assert not module.training
    with torch.inference_mode():
        output = module(*(torch.from_numpy(value) for value in inputs.values())).numpy()
    assert np.abs(output - only(run(written[0] / f"{name}.onnx", inputs))).max() < 1e-3
