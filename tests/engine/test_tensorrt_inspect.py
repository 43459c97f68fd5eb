"""Reading the engine inspector's JSON: a real 8.5.3 engine, and the shapes that later versions document."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from perfgate.engine.tensorrt.inspect import (
    Layers,
    layer_share,
    read_layers,
    realised,
    stored_share,
    weight_share,
)
from perfgate.records import Precision

REAL = Path(__file__).parent / "data" / "engine_inspector_resnet50_trt-8.5.3.json"


@pytest.fixture(scope="module")
def real() -> Layers:
    """14 layers of a ResNet-50 built by TensorRT 8.5.3 on an H200, FP16, batch 8."""
    return read_layers(REAL.read_text())


def test_real_8_5_layer(real: Layers) -> None:
    conv = real.layers[1]
    assert real.detailed
    assert len(real.layers) == 14
    assert (conv.type, conv.precision) == ("CaskConvolution", "fp16")
    assert conv.tactic.startswith("sm90_xmma_fprop_image_first_layer_f16f16")
    assert conv.tactic_value == "0xc4e457eb6dc4cc67"
    assert conv.onnx_nodes == ("n0", "n1", "n2")
    assert conv.weights == {"fp16": 9408}
    assert conv.formats == ("Channel major FP16 format where channel % 8 == 0",)


def test_real_8_5_shares_leave_data_movement_out(real: Layers) -> None:
    share = layer_share(real.layers)
    moving = [layer.type for layer in real.layers if not layer.computes]
    assert set(moving) == {"Reformat", "NoOp"}
    # The softmax alone stays in FP32.
    assert share == {"fp16": 0.9, "fp32": 0.1}
    assert weight_share(real.layers) == {"fp16": 1.0}


def test_records_survive_json(real: Layers) -> None:
    assert msgspec.json.decode(msgspec.json.encode(real), type=Layers) == real


def test_version_11_splits_format_and_datatype() -> None:
    text = json.dumps(
        {
            "Layers": [
                {
                    "Name": "conv1+relu1",
                    "LayerType": "CaskConvolution",
                    "Outputs": [{"Name": "y", "Format": "Channel major (kHWC8)", "Datatype": "Half"}],
                    "TacticName": "sm90_x",
                    "TacticValue": "0x1",
                    "Metadata": "[ONNX Layer: conv1]\u001e[ONNX Layer: relu1]",
                },
                {
                    "Name": "__myl_Fc_0",
                    "LayerType": "kgen",
                    "Outputs": [{"Name": "z", "Format": "kLINEAR", "DataType": "Float"}],
                    "Metadata": "[ONNX Layer: fc]",
                },
            ],
            "I/O Tensors": [{"Name": "x", "IOMode": "Input", "DataType": "Float"}],
        }
    )
    conv, fc = read_layers(text).layers
    assert (conv.precision, fc.precision) == ("fp16", "fp32")
    assert conv.onnx_nodes == ("conv1", "relu1")
    assert fc.onnx_nodes == ("fc",)


def test_quantised_weights_decide_over_the_output_type() -> None:
    entry = {
        "Name": "conv",
        "LayerType": "CaskConvolution",
        "Outputs": [{"Format/Datatype": "Row major linear FP32"}],
        "Weights": {"Type": "Int8", "Count": 100},
        "Bias": {"Type": "Float", "Count": 4},
    }
    (layer,) = read_layers(json.dumps([entry])).layers
    assert layer.precision == "int8"
    assert layer.weights == {"int8": 100}


def test_names_alone_are_layers_without_detail() -> None:
    found = read_layers('{"Layers": ["conv1 + relu1", "fc"], "Bindings": ["x", "y"]}')
    assert not found.detailed
    assert [layer.name for layer in found.layers] == ["conv1 + relu1", "fc"]
    assert layer_share(found.layers) == {}


def test_fused_names_of_8_x() -> None:
    text = json.dumps({"layers": ["PWN(PWN(a), b) + c", "{ForeignNode[first...last]}"]})
    pointwise, foreign = read_layers(text).layers
    assert pointwise.onnx_nodes == ("a", "b", "c")
    assert foreign.onnx_nodes == ("first", "last")


def test_c_style_numbers_are_read() -> None:
    found = read_layers('{"Layers": [{"Name": "clip", "Alpha": -inf, "Beta": nan, "All": [inf, 1.0]}]}')
    assert found.layers[0].name == "clip"


@pytest.mark.parametrize("text", ["", "nonsense", '{"Layers": 3}'])
def test_damaged_json_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_layers(text)


@pytest.mark.parametrize(
    ("precision", "share", "word"),
    [
        ("fp16", {"fp16": 0.9, "fp32": 0.1}, None),
        ("fp16", {"fp32": 1.0}, "no layer computes in fp16"),
        ("fp32", {"fp32": 1.0}, None),
        ("fp32", {"fp16": 0.5, "fp32": 0.5}, "some layers compute in fp16"),
        ("int8", {"fp32": 0.4, "int8": 0.6}, None),
        ("int8", {"fp32": 1.0}, "no layer computes in int8"),
        ("int8+fp16", {"int8": 1.0}, None),
        ("int8+fp16", {"fp16": 1.0}, "no layer computes in int8"),
        ("int8+fp16", {"int8": 0.5, "fp16": 0.5}, None),
        ("fp16", {}, "does not say"),
        ("fp32", {}, None),
    ],
)
def test_realised_precision(precision: str, share: dict[str, float], word: str | None) -> None:
    reason = realised(precision, share)  # type: ignore[arg-type]
    assert (reason is None) == (word is None)
    assert word is None or word in str(reason)


def test_realised_precision_against_the_least_share() -> None:
    assert realised("fp16", {"fp16": 0.3, "fp32": 0.7}, least=0.5) is not None
    assert realised("fp16", {"fp16": 0.5, "fp32": 0.5}, least=0.5) is None
    assert realised("int8+fp16", {"fp16": 0.4, "int8": 0.2, "fp32": 0.4}, least=0.6) is None


@pytest.mark.parametrize(
    ("engine_bytes", "weights", "precision", "share"),
    [
        # BERT-base as TensorRT 8.5.3 stored it on a GPU: FP32; FP16 for one shape; FP16 for batch 1 to 8
        (436_850_651, 108_890_898, "fp32", {"fp32": 1.0}),
        (220_023_932, 108_890_898, "fp16", {"fp16": 1.0}),
        (286_348_212, 108_890_898, "fp16", {"fp16": 0.6852, "fp32": 0.3148}),
        (115_000_000, 109_000_000, "int8", {"int8": 1.0}),
        (163_500_000, 109_000_000, "int8+fp16", {"int8": 0.5, "fp16": 0.5}),
        (327_000_000, 109_000_000, "fp16", {"fp16": 0.5, "fp32": 0.5}),
        (327_000_000, 109_000_000, "fp32", {}),  # its builder was allowed no FP16
        (390_000_000, 109_000_000, "fp16", {}),  # a quarter, or FP32 without weights that nothing uses
        (163_500_000, 109_000_000, "fp16", {}),  # fewer bits than were allowed
        (181_700_000, 109_000_000, "int8", {"int8": 0.7777, "fp32": 0.2223}),  # 13.3 bits
        (273_000_000, 109_000_000, "int8", {}),  # half of it at the most
        (273_000_000, 109_000_000, "int8+fp16", {}),  # there may be no INT8 in it
        (436_850_651, 108_890_898, "fp16", {"fp32": 1.0}),  # asked for and not realised
        (700_000_000, 109_000_000, "fp16", {}),  # far more than the weights, whatever they are
        (4_000_000, 999_999, "fp16", {}),  # so few weights that kernels would drown them
    ],
)
def test_an_opaque_engines_precision_is_told_from_its_size(
    engine_bytes: int, weights: int, precision: Precision, share: dict[str, float]
) -> None:
    assert stored_share(engine_bytes, weights, precision) == share
