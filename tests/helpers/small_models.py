"""Small ONNX models for the tests of this folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from perfgate.records import Case, Tolerance

CASE = Case(
    id="net/fp32/b2",
    model="net",
    backend="onnxruntime",
    precision="fp32",
    shape={"b": 2},
    tolerance=Tolerance(ignore=0.1, catch=0.3),
)


def linear() -> Any:
    """y = relu(x @ w) for x float [b, 4], with a second input of integers that picks rows of a table."""
    float_, int64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
    weights = np.random.default_rng(1).standard_normal((4, 3)).astype(np.float32)
    table = np.arange(30, dtype=np.float32).reshape(10, 3)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gather", ["t", "ids"], ["g"]),
        helper.make_node("Add", ["r", "g"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "linear",
        [
            helper.make_tensor_value_info("x", float_, ["b", 4]),
            helper.make_tensor_value_info("ids", int64, ["b"]),
        ],
        [helper.make_tensor_value_info("y", float_, ["b", 3])],
        initializer=[numpy_helper.from_array(weights, "w"), numpy_helper.from_array(table, "t")],
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def write(path: Path) -> Path:
    path.write_bytes(linear().SerializeToString(deterministic=True))
    return path
