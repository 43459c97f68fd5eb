"""FP32 islands: what is demanded of a weakly typed builder, and what is made of its answer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from perfgate.engine.tensorrt.api import Api
from perfgate.engine.tensorrt.inspect import Layer
from perfgate.engine.tensorrt.options import check_islands, constrain_islands
from perfgate.errors import CaseError

FLOAT, HALF, INT32 = "float", "half", "int32"


class FakeLayer:
    def __init__(self, name: str, kind: str = "conv", dtype: str = HALF) -> None:
        self.name, self.type = name, kind
        self.precision: str | None = None
        self.num_outputs, self.output = 1, SimpleNamespace(dtype=dtype)
        self.types: dict[int, str] = {}

    def get_output(self, place: int) -> Any:
        return self.output

    def set_output_type(self, place: int, kind: str) -> None:
        self.types[place] = kind


def constrained(layers: list[FakeLayer], islands: list[str], nodes: list[str]) -> tuple[str, list[str]]:
    flags: list[str] = []
    module = SimpleNamespace(
        __version__="8.5.3.1",
        DataType=SimpleNamespace(FLOAT=FLOAT, HALF=HALF),
        LayerType=SimpleNamespace(CONSTANT="constant", SHAPE="shape"),
        BuilderFlag=SimpleNamespace(OBEY_PRECISION_CONSTRAINTS="obey"),
    )
    network = SimpleNamespace(num_layers=len(layers), get_layer=lambda number: layers[number])
    api = Api(module)
    config = SimpleNamespace(set_flag=flags.append)
    note = constrain_islands(api, network, config, islands, [(name, "Conv") for name in nodes])
    return note, flags


def test_layers_of_an_island_are_demanded_in_fp32_and_no_others() -> None:
    hot, second, other = FakeLayer("hot"), FakeLayer("hot_2"), FakeLayer("hot_1")
    shape, constant = FakeLayer("hot", dtype=INT32), FakeLayer("hot", "constant")
    note, flags = constrained([hot, second, other, shape, constant], ["hot"], ["hot", "hot_1"])
    assert flags == ["obey"]
    assert "1 nodes are kept" in note
    assert (hot.precision, hot.types) == (FLOAT, {0: FLOAT})
    assert second.precision == FLOAT  # the parser's second layer of the node
    assert other.precision is None  # a node of its own
    assert shape.precision is None
    assert constant.precision is None


def test_an_island_that_became_no_layer_is_an_error() -> None:
    with pytest.raises(CaseError, match="'gone' must stay in FP32, and"):
        constrained([FakeLayer("hot")], ["hot", "gone"], ["hot", "gone"])


def test_an_engine_that_lowered_an_island_is_an_error() -> None:
    kept = Layer(name="hot + relu", type="Convolution", precision="fp32", onnx_nodes=("hot", "relu"))
    moved = Layer(name="copy", type="Reformat", precision="fp16", onnx_nodes=("hot",))
    check_islands([kept, moved], ["hot"])
    lowered = Layer(name="hot + relu", type="Convolution", precision="fp16", onnx_nodes=("hot", "relu"))
    with pytest.raises(CaseError, match="'hot' must stay in FP32, and the engine computes it in FP16"):
        check_islands([kept, lowered], ["hot"])
