"""A graph whose nodes do other work: real engines of ONNX Runtime, with made-up times (see `explain_sides`).

Tensors have names of their own, as exporters give them: ONNX Runtime then calls a convolution by its tensor.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from explain_sides import loads, profiled
from given_engines import built_side
from onnx import TensorProto, helper, numpy_helper

from perfgate.engine.tensorrt.inspect import Layer, unpack_layers
from perfgate.gate.explain.explain import Side, explain_case
from perfgate.records import Case, Explanation, Mode, Tolerance
from perfgate.report.explanation import explanation_text

CASE = Case(
    id="small/fp32/n4",
    model="small",
    backend="onnxruntime",
    precision="fp32",
    shape={"N": 4},
    mode=Mode(drive="call"),
    tolerance=Tolerance(ignore=0.1, catch=0.3),
)
Explain = Callable[..., Explanation]


def write(path: Path, channels: int = 32, kernel: int = 3, seed: int = 0) -> Path:
    """Three convolutions with their ReLUs, pooled into a Gemm; `kernel` is that of the second one."""
    draw = np.random.default_rng(seed)
    nodes, weights = [], []
    for i, (ins, size) in enumerate(((3, 3), (channels, kernel), (channels, 3))):
        values = draw.standard_normal((channels, ins, size, size)).astype(np.float32)
        weights.append(numpy_helper.from_array(values, f"w{i}"))
        before = f"a{i - 1}" if i else "x"
        pads = [size // 2] * 4
        nodes.append(helper.make_node("Conv", [before, f"w{i}"], [f"c{i}"], name=f"conv{i}", pads=pads))
        nodes.append(helper.make_node("Relu", [f"c{i}"], [f"a{i}"], name=f"relu{i}"))
    nodes.append(helper.make_node("GlobalAveragePool", ["a2"], ["g"], name="gap"))
    nodes.append(helper.make_node("Flatten", ["g"], ["f"], name="flat"))
    weights.append(numpy_helper.from_array(draw.standard_normal((channels, 10)).astype(np.float32), "wg"))
    nodes.append(helper.make_node("Gemm", ["f", "wg"], ["y"], name="head"))
    kind = TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", kind, ["N", 3, 32, 32])],
        [helper.make_tensor_value_info("y", kind, ["N", 10])],
        initializer=weights,
    )
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), str(path))
    return path


def built(model: Path) -> tuple[Side, tuple[Layer, ...]]:
    side = built_side(model)
    assert side.facts is not None
    return side, unpack_layers(side.facts.layer_record).layers


@pytest.fixture(scope="module")
def explain(tmp_path_factory: pytest.TempPathFactory) -> Explain:
    folder = tmp_path_factory.mktemp("work")
    base, layers = built(write(folder / "base.onnx"))

    def explained(name: str, factor: dict[str, float], state: float = 1.0, **how: int) -> Explanation:
        head, after = built(write(folder / f"{name}.onnx", **how))
        took = profiled(loads(layers, 1), loads(after, 2, factor=factor, state=state))
        return explain_case(CASE, base, head, profile=took)

    return explained


def test_a_larger_kernel_of_one_convolution_is_the_cause(explain: Explain) -> None:
    found = explain("kernel", {"a1_nchwc": 2.5}, kernel=5)
    assert found.kind == "changed-layers"
    assert found.cause.startswith("changed layers: `a1_nchwc`, explains ")
    assert found.cause.endswith(
        "; Conv `conv1`: pads = [1, 1, 1, 1] → [2, 2, 2, 2], `w1` float[32, 32, 3, 3] → float[32, 32, 5, 5]"
    )
    assert [(change.kind, change.head_layers) for change in found.layers] == [("slower", ("a1_nchwc",))]
    assert found.layers[0].onnx_nodes == ("conv1", "relu1")
    assert found.layers[0].share == pytest.approx(1.0, abs=0.1)


def test_the_state_is_still_that_of_the_layers_beside_it(explain: Explain) -> None:
    found = explain("kernel", {"a1_nchwc": 2.5}, state=1.3, kernel=5)
    assert found.state_ratio == pytest.approx(1.3, abs=0.03)
    assert found.cause.startswith("changed layers: `a1_nchwc`, explains ")


def test_what_is_wider_everywhere_is_no_state(explain: Explain) -> None:
    slower = dict.fromkeys(("a0_nchwc", "a1_nchwc", "a2_nchwc", "g_nchwc", "ReorderOutput"), 3.0)
    found = explain("wide", slower, channels=48)
    assert found.state_ratio is None
    assert found.kind == "changed-layers"
    assert found.cause.startswith("changed layers: ")
    assert found.unexplained_ns is not None and found.profiled_head_ns is not None
    assert abs(found.unexplained_ns) < 0.2 * found.profiled_head_ns
    assert (
        "too little is known to be unchanged to tell the state of a load, so none was removed" in found.unseen
    )
    shown = explanation_text(CASE.id, found)
    assert "state of the loads not removed: too little is known to be unchanged to tell it" in shown


def test_other_values_of_the_weights_are_the_same_work(explain: Explain) -> None:
    found = explain("values", {}, state=1.3, seed=1)
    assert found.state_ratio == pytest.approx(1.3, abs=0.03)
    assert not found.layers
