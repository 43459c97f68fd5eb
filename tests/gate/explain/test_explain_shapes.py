"""Which nodes do other work, of which that cannot be told, and which nodes a layer was made from."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from perfgate.engine.tensorrt.inspect import Layer
from perfgate.gate.explain.graph_diff import GraphDiff, diff_graphs
from perfgate.gate.explain.graph_read import Shape, differ, read_for_diff
from perfgate.gate.explain.graph_work import with_nodes
from perfgate.gate.explain.layer_groups import Names, group_layers


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (Shape("float", (1, 2)), Shape("float", (1, 2)), False),
        (Shape("float", (1, 2)), Shape("float", (1, 3)), True),
        (Shape("float", (1, 2)), Shape("float16", (1, 2)), True),
        (Shape("float", (1,)), Shape("float", (1, 1)), True),
        (Shape("float", ("N", 2)), Shape("float", ("N", 2)), False),
        (Shape("float", ("N", 2)), Shape("float", ("batch", 2)), None),
        (Shape("float", (None, 2)), Shape("float", (None, 2)), None),
        (Shape("float", (None, 2)), Shape("float", (None, 3)), True),
        (None, Shape("float", (1,)), None),
    ],
)
def test_shapes_differ_only_where_that_is_known(
    one: Shape | None, other: Shape | None, expected: bool | None
) -> None:
    assert differ(one, other) is expected


def write(path: Path, nodes: list[onnx.NodeProto], axis: str | int = "N") -> Path:
    kind = TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", kind, [axis, 4, 8, 8])],
        [helper.make_tensor_value_info("y", kind, None)],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=opsets), str(path))
    return path


def pooled(size: int, operator: str = "Relu", domain: str = "") -> list[onnx.NodeProto]:
    """A ReLU, a pool with a kernel of `size`, then one node of any operator, and a ReLU behind it."""
    return [
        helper.make_node("Relu", ["x"], ["a"], name="first"),
        helper.make_node("MaxPool", ["a"], ["b"], name="pool", kernel_shape=[size, size]),
        helper.make_node(operator, ["b"], ["c"], name="middle", domain=domain),
        helper.make_node("Relu", ["c"], ["y"], name="last"),
    ]


def test_a_small_file_cannot_ask_for_gigabytes_of_values(tmp_path: Path) -> None:
    """A vector put behind itself forty times, and a range of 2^40 numbers: shapes need no values."""
    doubled = [helper.make_node("Concat", [f"c{n}", f"c{n}"], [f"c{n + 1}"], axis=0) for n in range(40)]
    numbers = [
        helper.make_node(
            "Constant", [], [name], value=helper.make_tensor(name, TensorProto.INT64, [], [value])
        )
        for name, value in (("zero", 0), ("many", 1 << 40), ("one", 1))
    ]
    nodes = [
        helper.make_node("Shape", ["x"], ["c0"]),
        *doubled,
        *numbers,
        helper.make_node("Range", ["zero", "many", "one"], ["range"]),
        helper.make_node("Gather", ["range", "c40"], ["found"]),
        helper.make_node("Relu", ["x"], ["y"], name="last"),
    ]
    graph = read_for_diff(write(tmp_path / "net.onnx", nodes), {"N": 2})
    assert graph.known["y"] == Shape("float", (2, 4, 8, 8))


def compare(tmp_path: Path, base: list[onnx.NodeProto], head: list[onnx.NodeProto]) -> GraphDiff:
    return diff_graphs(
        write(tmp_path / "base.onnx", base), write(tmp_path / "head.onnx", head), sizes={"N": 2}
    )


def test_what_lies_behind_a_change_of_shape_does_other_work_too(tmp_path: Path) -> None:
    found = compare(tmp_path, pooled(2), pooled(3))
    assert found.changed == {
        "pool": "MaxPool `pool`: kernel_shape = [2, 2] → [3, 3], `b` float[2, 4, 7, 7] → float[2, 4, 6, 6]",
        "middle": "Relu `middle`: `b` float[2, 4, 7, 7] → float[2, 4, 6, 6], "
        "`c` float[2, 4, 7, 7] → float[2, 4, 6, 6]",
        "last": "Relu `last`: `c` float[2, 4, 7, 7] → float[2, 4, 6, 6], "
        "`y` float[2, 4, 7, 7] → float[2, 4, 6, 6]",
    }
    assert not found.unsure


def test_what_lies_behind_an_unknown_shape_is_not_sure_once_something_changed(tmp_path: Path) -> None:
    found = compare(tmp_path, pooled(2, "Custom", "own"), pooled(3, "Custom", "own"))
    assert set(found.changed) == {"pool", "middle"}
    assert found.unsure == {"last"}
    # Without a change nothing can have spread.
    same = compare(tmp_path, pooled(2, "Custom", "own"), pooled(2, "Custom", "own"))
    assert not same.changed
    assert not same.unsure


def test_another_name_for_an_axis_is_no_other_work(tmp_path: Path) -> None:
    files = write(tmp_path / "base.onnx", pooled(2), "N"), write(tmp_path / "head.onnx", pooled(2), "batch")
    found = diff_graphs(*files)
    assert not found.changed
    assert not found.unsure


def test_a_layer_that_hides_its_nodes_is_not_sure_once_the_graph_differs() -> None:
    block = Layer(name="{ForeignNode[a...z]}", type="Myelin", onnx_nodes=("a", "z"), shapes=((1,),))
    reorder, plain = Layer(name="ReorderOutput", type="ReorderOutput"), Layer(name="a", onnx_nodes=("a",))
    moved = Layer(name="Reformatting CopyNode for Input Tensor 0 to b", type="Reformat", shapes=((1,),))
    layers = (block, reorder, plain, moved)

    def sure(names: Names) -> list[bool]:
        return [group.sure for layer in layers for group in group_layers((layer,), (layer,), names)]

    none: frozenset[str] = frozenset()
    assert sure(Names({}, none, none)) == [True, True, True, True]
    assert sure(Names({}, none, frozenset({"n"}))) == [False, True, True, True]
    assert sure(Names({}, none, none, {"n": "Conv `n`: other"})) == [False, False, True, True]
    assert sure(Names({}, none, none, {}, frozenset({"a"}))) == [False, False, False, True]


def test_a_layer_named_by_its_tensor_is_made_of_the_nodes_up_to_its_operator(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["/down/Conv_output_0"], name="/down/Conv"),
        helper.make_node("Conv", ["x", "w"], ["/conv/Conv_output_0"], name="/conv/Conv"),
        helper.make_node("Add", ["/down/Conv_output_0", "/conv/Conv_output_0"], ["sum"], name="/Add"),
        helper.make_node("Relu", ["sum"], ["y"], name="/Relu"),
    ]
    graph = read_for_diff(write(tmp_path / "m.onnx", nodes), {})
    layers = (
        Layer(name="/down/Conv_output_0_nchwc", type="Conv"),
        Layer(name="y_nchwc_token_3", type="Conv"),
        Layer(name="ReorderOutput", type="ReorderOutput"),
        Layer(name="own", type="Conv", onnx_nodes=("n",)),
    )
    assert [layer.onnx_nodes for layer in with_nodes(layers, graph)] == [
        ("/down/Conv",),
        ("/conv/Conv", "/Add", "/Relu"),
        (),
        ("n",),
    ]
