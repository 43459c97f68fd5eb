"""Small graphs and specs to convert."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from perfgate.model.onnx_file import export_onnx
from perfgate.model.precision.convert import ConvertedModel, Typing, convert_model
from perfgate.model.precision.data import DataRequest, DataSet
from perfgate.model.read import read_spec
from perfgate.model.sources import Sources
from perfgate.model.spec import ModelSpec
from perfgate.records import InputData, Precision, Tensor

SHAPE = (1, 3, 8, 8)


def save(
    path: Path,
    nodes: list[Any],
    weights: dict[str, Any],
    *,
    axes: tuple[int | str, ...] = ("b", 3, 8, 8),
    opset: int = 17,
    outputs: tuple[str, ...] = ("y",),
) -> Path:
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, axes)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, str(path))
    return path


def network(path: Path, **more: Any) -> Path:
    """Conv, batch norm, Relu, a residual Add, an Add of a constant, pooling and a Gemm."""
    random = np.random.default_rng(0)
    weights = {
        "w1": random.normal(0, 0.3, (4, 3, 3, 3)).astype(np.float32),
        "b1": random.normal(0, 0.1, 4).astype(np.float32),
        **{name: np.full(4, 1 + place / 10, np.float32) for place, name in enumerate("stmv")},
        "w2": random.normal(0, 0.3, (4, 4, 3, 3)).astype(np.float32),
        "half": np.float32(0.5),
        "w3": random.normal(0, 0.5, (10, 4)).astype(np.float32),
        "b3": random.normal(0, 0.1, 10).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], "conv1", pads=[1] * 4),
        helper.make_node("BatchNormalization", ["c1", "s", "t", "m", "v"], ["n1"], "norm1"),
        helper.make_node("Relu", ["n1"], ["r1"], "relu1"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], "conv2", pads=[1] * 4),
        helper.make_node("Add", ["c2", "r1"], ["a2"], "residual"),
        helper.make_node("Add", ["a2", "half"], ["h2"], "shift"),
        helper.make_node("GlobalAveragePool", ["h2"], ["g"], "pool"),
        helper.make_node("Flatten", ["g"], ["f"], "flat"),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["y"], "fc", transB=1),
    ]
    return save(path, nodes, weights, **more)


def hot(path: Path, *, scale: float = 1000.0) -> Path:
    """A graph that passes a million on its way to ordinary numbers."""
    weights = {"k": np.float32(scale), "s": np.float32(1 / scale)}
    nodes = [
        helper.make_node("Mul", ["x", "k"], ["up"], "up"),
        helper.make_node("Mul", ["up", "k"], ["top"], "top"),
        helper.make_node("Mul", ["top", "s"], ["down"], "down"),
        helper.make_node("Mul", ["down", "s"], ["y"], "out"),
    ]
    return save(path, nodes, weights)


def spec_of(folder: Path, more: str = "", *, onnx_file: str = "net.onnx", top: str = "") -> ModelSpec:
    """A spec of `net.onnx` beside it, in all precisions unless `top` says otherwise."""
    top = top or 'precisions = ["fp32", "fp16", "int8", "int8+fp16"]'
    (folder / "net.toml").write_text(
        f'schema = "perfgate-trt/model/v1"\nname = "net"\n{top}\n[source]\nonnx = "{onnx_file}"\n'
        f"[dims.b]\nmin = 1\nopt = 2\nmax = 4\nmeasure = [2]\n[inputs.x]\nseed = 1\n{more}"
    )
    return read_spec(folder / "net.toml")


def made(spec: ModelSpec, precision: Precision, typing: Typing = "strong") -> ConvertedModel:
    sources = Sources(spec.folder / ".store")
    return convert_model(spec, export_onnx(spec, sources), precision, typing, sources)


def batches(count: int = 4, *, folder: str = "/") -> DataSet:
    request = DataRequest(
        tensors=(Tensor(name="x", dtype="float", shape=SHAPE),),
        inputs={"x": InputData(seed=3)},
        folder=folder,
        samples=count,
        seed=7,
    )
    return DataSet(request)
