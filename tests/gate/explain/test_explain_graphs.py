"""What differs between two ONNX graphs: made with a small builder, and the real ResNet-50 and tinyconv."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from perfgate.errors import SpecError
from perfgate.gate.explain.graph_diff import GraphDiff, diff_graphs

Change = tuple[str, str]


class Net:
    """A chain of named nodes, Conv and Relu in turn, with everything that a test may want to change."""

    def __init__(self, depth: int = 6) -> None:
        self.names = [f"n{i}" for i in range(depth)]
        self.kinds = ["Conv" if i % 2 == 0 else "Relu" for i in range(depth)]
        self.weights = {f"n{i}": np.full((4, 4, 1, 1), i + 1, np.float32) for i in range(0, depth, 2)}
        self.outputs = [f"t{depth - 1}"]
        self.opset = 17
        self.batch: int | str = 1
        self.attributes: dict[str, dict[str, object]] = {}
        self.dtype = np.float32

    def insert(self, at: int, name: str) -> Net:
        self.names.insert(at, name)
        self.kinds.insert(at, "Relu")
        self.outputs = [f"t{len(self.names) - 1}"]
        return self

    def write(self, path: Path) -> Path:
        nodes, inputs, before = [], [], "x"
        for index, (name, kind) in enumerate(zip(self.names, self.kinds, strict=True)):
            held = [before]
            if kind == "Conv":
                held.append(f"{name}.weight")
                inputs.append(
                    numpy_helper.from_array(self.weights[name].astype(self.dtype), f"{name}.weight")
                )
            nodes.append(
                helper.make_node(kind, held, [f"t{index}"], name=name, **self.attributes.get(name, {}))
            )
            before = f"t{index}"
        kind = TensorProto.FLOAT
        graph = helper.make_graph(
            nodes,
            "net",
            [helper.make_tensor_value_info("x", kind, [self.batch, 4, 8, 8])],
            [helper.make_tensor_value_info(name, kind, [self.batch, 4, 8, 8]) for name in self.outputs],
            initializer=inputs,
        )
        model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", self.opset)])
        path.write_bytes(model.SerializeToString(deterministic=True))
        return path


def compare(tmp_path: Path, base: Net, head: Net) -> GraphDiff:
    return diff_graphs(base.write(tmp_path / "base.onnx"), head.write(tmp_path / "head.onnx"))


def kinds(found: GraphDiff) -> list[Change]:
    return [(change.kind, change.node) for change in found.changes]


def test_equal_graphs_do_not_differ(tmp_path: Path) -> None:
    found = compare(tmp_path, Net(), Net())
    assert not found.changes
    assert found.pairs == {f"n{i}": f"n{i}" for i in range(6)}


def test_a_node_more_is_added_and_its_reader_rewired(tmp_path: Path) -> None:
    found = compare(tmp_path, Net(), Net().insert(4, "extra"))
    assert kinds(found) == [("added", "extra"), ("rewired", "n4")]
    assert found.changes[1].what == "Conv `n4`: input 0 is the output of `extra`, was the output of `n3`"


def test_a_node_less_is_removed(tmp_path: Path) -> None:
    found = compare(tmp_path, Net().insert(4, "extra"), Net())
    assert ("removed", "extra") in kinds(found)


def test_names_that_were_all_counted_anew_change_nothing_but_the_pairs(tmp_path: Path) -> None:
    head = Net().insert(2, "extra")
    renamed = {name: f"node_{i}" for i, name in enumerate(head.names)}
    head.weights = {renamed[name]: value for name, value in head.weights.items()}
    head.names = list(renamed.values())
    found = compare(tmp_path, Net(), head)
    assert kinds(found) == [("added", "node_2"), ("rewired", "node_3")]
    assert found.pairs["n4"] == "node_5"


@pytest.mark.parametrize(
    ("attribute", "value", "wanted"),
    [
        ("weights", np.full((4, 4, 1, 1), 9, np.float32), [("initializer", "n2")]),
        ("weights", np.full((4, 4, 3, 3), 3, np.float32), [("initializer", "n2")]),
    ],
)
def test_weights(tmp_path: Path, attribute: str, value: np.ndarray, wanted: list[Change]) -> None:
    head = Net()
    head.weights["n2"] = value
    found = compare(tmp_path, Net(), head)
    assert kinds(found) == wanted
    said = "other values" if value.shape == (4, 4, 1, 1) else "float[4, 4, 1, 1] → float[4, 4, 3, 3]"
    assert said in found.changes[0].what


def test_another_element_type(tmp_path: Path) -> None:
    head = Net()
    head.dtype = np.float16
    found = compare(tmp_path, Net(), head)
    assert kinds(found) == [("initializer", f"n{i}") for i in (0, 2, 4)]
    assert "float[4, 4, 1, 1] → float16[4, 4, 1, 1]" in found.changes[0].what


def test_attributes_opset_shapes_and_outputs(tmp_path: Path) -> None:
    head = Net()
    head.attributes = {"n2": {"group": 2}}
    head.opset = 16
    head.batch = "b"
    head.outputs = ["t5", "t2"]
    found = compare(tmp_path, Net(), head)
    assert kinds(found) == [
        ("opset", "ai.onnx"),
        ("shape", "x"),
        ("shape", "t5"),
        ("output", "t2"),
        ("attribute", "n2"),
    ]
    assert [change.what for change in found.changes[:2]] == [
        "opset of ai.onnx: 17 → 16",
        "graph input `x`: float[1, 4, 8, 8] → float[b, 4, 8, 8]",
    ]
    assert found.changes[3].what == "graph output `t2` is new"
    assert found.changes[4].what == "Conv `n2`: group = absent → 2"


def test_data_outside_the_models_folder_is_refused(tmp_path: Path) -> None:
    path = Net().write(tmp_path / "base.onnx")
    model = onnx.load(str(path))
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../secret"
    evil = tmp_path / "evil.onnx"
    evil.write_bytes(model.SerializeToString())
    with pytest.raises(SpecError, match="leaves the model's folder"):
        diff_graphs(path, evil)


def test_external_data_is_compared_by_content(tmp_path: Path) -> None:
    path = Net().write(tmp_path / "net.onnx")
    files = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        onnx.save(
            onnx.load(str(path)), str(folder / "m.onnx"), save_as_external_data=True, size_threshold=0,
            location="w.bin",
        )  # fmt: skip
        files.append(folder / "m.onnx")
    assert not diff_graphs(*files).changes
    data = bytearray((tmp_path / "two" / "w.bin").read_bytes())
    data[0] ^= 1
    (tmp_path / "two" / "w.bin").write_bytes(bytes(data))
    assert kinds(diff_graphs(*files)) == [("initializer", "n0")]


def test_what_is_no_onnx_is_said(tmp_path: Path) -> None:
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"version https://git-lfs")
    with pytest.raises(SpecError, match="does not parse"):
        diff_graphs(Net().write(tmp_path / "base.onnx"), bad)


def test_thousands_of_equal_nodes_take_no_time(tmp_path: Path) -> None:
    """Deep, and everything in it different: nothing pairs by what is above or below."""
    base, head = Net(3000), Net(3000)
    head.weights = {name: value + 1 for name, value in head.weights.items()}
    found = compare(tmp_path, base, head)
    assert len(found.changes) == 1500
    assert {change.kind for change in found.changes} == {"initializer"}
