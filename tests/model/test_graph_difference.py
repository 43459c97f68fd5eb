"""The first difference of two ONNX files, in a sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_files import FLOAT, model, write

from perfgate.errors import SpecError
from perfgate.model.graph_difference import first_difference


def weight(name: str, *values: float) -> Any:
    return numpy_helper.from_array(np.array(values, np.float32), name)


def example() -> Any:
    made = model({"x": (FLOAT, ["b", 4]), "z": (FLOAT, ["b", 4])}, [weight("w", 1, 2), weight("v", 3)])
    inner = helper.make_graph([helper.make_node("Relu", ["x"], ["r"], name="r")], "then", [], [])
    made.graph.node[0].name = "pass"
    made.graph.node[0].attribute.append(helper.make_attribute("axis", 1))
    made.graph.node[1].attribute.append(helper.make_attribute("then_branch", inner))
    body = [helper.make_node("Relu", ["a"], ["b"])]
    made.functions.append(helper.make_function("own", "F", ["a"], ["b"], body, made.opset_import))
    return made


def shape(made: Any) -> None:
    made.graph.input[1].type.tensor_type.shape.dim[1].dim_value = 8


def constant(made: Any) -> None:
    made.graph.node[0].attribute.append(helper.make_attribute("value", weight("c", 1)))


def subgraph(made: Any) -> None:
    made.graph.node[1].attribute[0].g.node[0].op_type = "Gelu"


def one_node_more(made: Any) -> None:
    made.graph.node.append(helper.make_node("Relu", ["x"], ["r"]))


def unknown(made: Any) -> None:
    made.MergeFromString(b"\xc2\x3e\x03abc")


def set_of(path: str, value: Any) -> Callable[[Any], None]:
    """A change that sets a field, by its path below the model."""
    *steps, last = path.split(".")

    def change(made: Any) -> None:
        place = made
        for step in steps:
            place = place[int(step)] if step.isdigit() else getattr(place, step)
        setattr(place, last, value)

    return change


CASES: dict[str, tuple[Callable[[Any], None], str]] = {
    "opset": (
        set_of("opset_import.0.version", 18),
        "opset ai.onnx is 17 in the first file and 18 in the second",
    ),
    "input": (
        shape,
        "input 'z' is float[b, 4] in the first file and float[b, 8] in the second",
    ),
    "input name": (set_of("graph.input.0.name", "y"), "input 0 name is 'x' in the first file and 'y' in the"),
    "output": (
        set_of("graph.output.0.type.tensor_type.elem_type", TensorProto.DOUBLE),
        "output 'x_out' is float[b, 4] in the first file and double[b, 4] in the second",
    ),
    "operator": (
        set_of("graph.node.1.op_type", "Relu"),
        "node 1 operator is 'Identity' in the first file and 'Relu' in the second",
    ),
    "node name": (
        set_of("graph.node.0.name", "other"),
        "node 0 name is 'pass' in the first file and 'other' in the second",
    ),
    "attribute": (
        set_of("graph.node.0.attribute.0.i", 2),
        "node 0 (pass) attribute 'axis' is 1 in the first file and 2 in the second",
    ),
    "one attribute more": (constant, "node 0 (pass) attribute 'value' is only in the second file"),
    "overload": (set_of("graph.node.0.overload", "o"), "node 0 (pass): the field overload differs"),
    "subgraph": (
        subgraph,
        "node 1 (Identity) attribute 'then_branch': node 0 operator is 'Relu' in the first file and 'Gelu'",
    ),
    "node count": (one_node_more, "node count is 2 in the first file and 3 in the second"),
    "values": (
        lambda made: made.graph.initializer[0].CopyFrom(weight("w", 1, 3)),
        "initializer 'w' has other values in the two files",
    ),
    "dims": (
        lambda made: made.graph.initializer[0].CopyFrom(weight("w", 1)),
        "initializer 'w' dims is [2] in the first file and [1] in the second",
    ),
    "one initialiser more": (
        lambda made: made.graph.initializer.append(weight("u", 1)),
        "initializer 'u' is only in the second file",
    ),
    "function": (
        set_of("functions.0.node.0.op_type", "Gelu"),
        "function 'own::F': node 0 operator is 'Relu' in the first file and 'Gelu' in the second",
    ),
    "graph name": (set_of("graph.name", "other"), "graph: the field name differs"),
    "format": (set_of("ir_version", 9), "the model: the field ir_version differs"),
    "unknown field": (unknown, "the model: the field 1000 differs"),
}


@pytest.mark.parametrize("case", CASES)
def test_the_first_difference_is_named(tmp_path: Path, case: str) -> None:
    change, sentence = CASES[case]
    other = example()
    change(other)
    found = first_difference(write(tmp_path / "a.onnx", example()), write(tmp_path / "b.onnx", other))
    assert found.startswith(sentence)


def test_equal_files_have_no_difference(tmp_path: Path) -> None:
    other = example()
    other.doc_string = "made on a Monday"
    other.graph.initializer.reverse()
    assert first_difference(write(tmp_path / "a.onnx", example()), write(tmp_path / "b.onnx", other)) == ""


@pytest.mark.parametrize("content", [b"not onnx", None])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    one, other = write(tmp_path / "a.onnx"), tmp_path / "b.onnx"
    if content is not None:
        other.write_bytes(content)
    with pytest.raises(SpecError, match=r"b\.onnx"):
        first_difference(one, other)
