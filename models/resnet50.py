"""ResNet-50 v1.5: He et al., "Deep Residual Learning for Image Recognition", 2015 (arXiv 1512.03385).

v1.5 is the variant that everybody measures: a downsampling block strides in its 3x3 convolution,
not in the first 1x1. Weights are seeded and untrained, and named as torchvision names them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from _graph import AFTER_RELU, Graph, draw, load
from onnx import TensorProto

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from _graph import Array

CLASSES = 1000
EPSILON = 1e-5
# The scale of what a block adds to the residual stream. An untrained network amplifies rounding from block
# to block; at a quarter, FP16 and INT8 lose about as much accuracy as they do on trained weights.
RESIDUAL_GAIN = 0.25


def blocks(extra_layers: int = 0) -> Iterator[tuple[str, int, int, int]]:
    """Each bottleneck block in order: name, channels in, channels inside (a quarter of those out), stride.

    `extra_layers` appends that many blocks to layer3, the longest stage.
    """
    channels = 64
    for stage, (count, inside) in enumerate([(3, 64), (4, 128), (6 + extra_layers, 256), (3, 512)], start=1):
        for index in range(count):
            yield f"layer{stage}.{index}", channels, inside, 2 if stage > 1 and index == 0 else 1
            channels = 4 * inside


def weights(seed: int, extra_layers: int = 0) -> dict[str, Array]:
    """Every weight by torchvision's name: conv [out, in, k, k], batch norm [out], fc [1000, 2048], [1000]."""
    state: dict[str, Array] = {}

    def conv_bn(conv: str, bn: str, shape: tuple[int, int, int, int], gain: float = 1.0) -> None:
        std = math.sqrt((1 if conv == "conv1" else AFTER_RELU) / math.prod(shape[1:]))
        state[f"{conv}.weight"] = draw(seed, f"{conv}.weight", shape, std, centre=True)
        for name, mean, std in (
            ("weight", gain, 0.1 * gain),
            ("bias", 0.0, 0.1),
            ("running_mean", 0.0, 0.1),
            ("running_var", 1.0, 0.1),
        ):
            state[f"{bn}.{name}"] = draw(seed, f"{bn}.{name}", shape[:1], std, mean=mean)

    conv_bn("conv1", "bn1", (64, 3, 7, 7))
    for name, channels, inside, _ in blocks(extra_layers):
        conv_bn(f"{name}.conv1", f"{name}.bn1", (inside, channels, 1, 1))
        conv_bn(f"{name}.conv2", f"{name}.bn2", (inside, inside, 3, 3))
        conv_bn(f"{name}.conv3", f"{name}.bn3", (4 * inside, inside, 1, 1), RESIDUAL_GAIN)
        if name.endswith(".0"):
            shape = (4 * inside, channels, 1, 1)
            conv_bn(f"{name}.downsample.0", f"{name}.downsample.1", shape)
    # Pooled features differ little from each other; the 3 spreads the logits to about 1.
    state["fc.weight"] = draw(seed, "fc.weight", (CLASSES, 2048), 3 / math.sqrt(2048), centre=True)
    state["fc.bias"] = draw(seed, "fc.bias", (CLASSES,), 0.1)
    return state


def write_onnx(path: str, seed: int, extra_layers: int = 0) -> None:
    """Write the model: "x" float32 [b, 3, 224, 224] to "logits" float32 [b, 1000]."""
    state = weights(seed, extra_layers)
    graph = Graph("resnet50")

    def conv_bn(conv: str, bn: str, x: str, stride: int = 1) -> str:
        weight = graph.constant(f"{conv}.weight", state[f"{conv}.weight"])
        size = state[weight].shape[2]
        y = graph.node(
            "Conv", conv, x, weight, kernel_shape=[size] * 2, strides=[stride] * 2, pads=[size // 2] * 4
        )
        parts = (f"{bn}.{part}" for part in ("weight", "bias", "running_mean", "running_var"))
        constants = [graph.constant(part, state[part]) for part in parts]
        return graph.node("BatchNormalization", bn, y, *constants, epsilon=EPSILON)

    x = graph.node("Relu", "relu", conv_bn("conv1", "bn1", "x", stride=2))
    x = graph.node("MaxPool", "maxpool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    for name, _, _, stride in blocks(extra_layers):
        y = graph.node("Relu", f"{name}.relu1", conv_bn(f"{name}.conv1", f"{name}.bn1", x))
        y = graph.node("Relu", f"{name}.relu2", conv_bn(f"{name}.conv2", f"{name}.bn2", y, stride))
        y = conv_bn(f"{name}.conv3", f"{name}.bn3", y)
        if name.endswith(".0"):
            x = conv_bn(f"{name}.downsample.0", f"{name}.downsample.1", x, stride)
        x = graph.node("Relu", f"{name}.relu3", graph.node("Add", f"{name}.add", y, x))
    x = graph.node("Flatten", "flatten", graph.node("GlobalAveragePool", "avgpool", x))
    fc = [graph.constant(part, state[part]) for part in ("fc.weight", "fc.bias")]
    graph.node("Gemm", "fc", x, *fc, output="logits", transB=1)
    graph.write(
        path, {"x": (TensorProto.FLOAT, ["b", 3, 224, 224])}, {"logits": (TensorProto.FLOAT, ["b", CLASSES])}
    )


def torch_module(seed: int, extra_layers: int = 0) -> torch.nn.Module:
    """The same network in PyTorch: float [b, 3, 224, 224] to [b, 1000]."""
    from torch import Tensor, nn

    class Bottleneck(nn.Module):  # type: ignore[misc]
        def __init__(self, channels: int, inside: int, stride: int, downsample: bool) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(channels, inside, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(inside, EPSILON)
            self.conv2 = nn.Conv2d(inside, inside, 3, stride, padding=1, bias=False)
            self.bn2 = nn.BatchNorm2d(inside, EPSILON)
            self.conv3 = nn.Conv2d(inside, 4 * inside, 1, bias=False)
            self.bn3 = nn.BatchNorm2d(4 * inside, EPSILON)
            self.relu = nn.ReLU(inplace=True)
            self.downsample = nn.Identity()
            if downsample:
                conv = nn.Conv2d(channels, 4 * inside, 1, stride, bias=False)
                self.downsample = nn.Sequential(conv, nn.BatchNorm2d(4 * inside, EPSILON))

        def forward(self, x: Tensor) -> Tensor:
            y = self.relu(self.bn1(self.conv1(x)))
            y = self.relu(self.bn2(self.conv2(y)))
            return self.relu(self.bn3(self.conv3(y)) + self.downsample(x))

    network = nn.Sequential()
    network.add_module("conv1", nn.Conv2d(3, 64, 7, 2, padding=3, bias=False))
    network.add_module("bn1", nn.BatchNorm2d(64, EPSILON))
    network.add_module("relu", nn.ReLU(inplace=True))
    network.add_module("maxpool", nn.MaxPool2d(3, 2, padding=1))
    for stage in ("layer1", "layer2", "layer3", "layer4"):
        members = [
            Bottleneck(channels, inside, stride, name.endswith(".0"))
            for name, channels, inside, stride in blocks(extra_layers)
            if name.startswith(stage)
        ]
        network.add_module(stage, nn.Sequential(*members))
    network.add_module("avgpool", nn.AdaptiveAvgPool2d(1))
    network.add_module("flatten", nn.Flatten())
    network.add_module("fc", nn.Linear(2048, CLASSES))
    return load(network, weights(seed, extra_layers))
