"""Small ONNX files and specs for the tests of this folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

FLOAT, INT64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
HEAD = 'schema = "perfgate-trt/model/v1"\nname = "net"\nprecisions = ["fp32"]\n'


def model(
    inputs: Mapping[str, tuple[int, Sequence[int | str | None]]] | None = None, weights: Sequence[Any] = ()
) -> Any:
    """A graph that passes each input through an Identity."""
    inputs = {"x": (FLOAT, ["b", 4])} if inputs is None else inputs
    values = [helper.make_tensor_value_info(name, *value) for name, value in inputs.items()]
    outputs = [helper.make_tensor_value_info(f"{name}_out", *value) for name, value in inputs.items()]
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name in inputs]
    graph = helper.make_graph(nodes, "net", values, outputs, initializer=list(weights))
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def write(path: Path, made: Any = None) -> Path:
    path.write_bytes((model() if made is None else made).SerializeToString(deterministic=True))
    return path


def with_external_data(location: str) -> Any:
    """A model whose one weight lies in another file."""
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), "w")
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return model(weights=[tensor])


def spec_text(source: str = 'onnx = "net.onnx"', dims: str = "", top: str = "", rest: str = "") -> str:
    return f"{HEAD}{top}\n[source]\n{source}\n{dims}\n{rest}\n"


BATCH = "[dims.b]\nmin = 1\nopt = 2\nmax = 4\nmeasure = [1, 2]\n"


def write_spec(folder: Path, text: str | None = None, *, name: str = "net") -> Path:
    """`net.toml` beside `net.onnx`, by default one that fits."""
    if not (folder / "net.onnx").exists():
        write(folder / "net.onnx")
    path = folder / f"{name}.toml"
    path.write_text(spec_text(dims=BATCH) if text is None else text)
    return path
