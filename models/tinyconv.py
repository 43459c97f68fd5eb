"""A small plain convolutional network, about a millisecond on one CPU core: to try perfgate, and to test it.

In the manner of Simonyan and Zisserman, "Very Deep Convolutional Networks", 2014 (arXiv 1409.1556):
3x3 convolutions and ReLU. `repeat` multiplies the middle layers, which is how a slowdown is planted.
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

CLASSES = 10


def convolutions(repeat: int = 1) -> Iterator[tuple[str, int, int, int]]:
    """Each 3x3 convolution in order: name, channels in, channels out, stride."""
    yield "stem", 3, 48, 2
    for index in range(2 * repeat):
        yield f"middle{index}", 48, 48, 1
    yield "head", 48, 64, 2


def weights(seed: int, repeat: int = 1) -> dict[str, Array]:
    """Every weight by name: convolutions [out, in, 3, 3], fc [10, 64], biases [out]."""
    state: dict[str, Array] = {}
    for name, channels, out, _ in convolutions(repeat):
        std = math.sqrt((1 if name == "stem" else AFTER_RELU) / (9 * channels))
        state[f"{name}.weight"] = draw(seed, f"{name}.weight", (out, channels, 3, 3), std, centre=True)
        state[f"{name}.bias"] = draw(seed, f"{name}.bias", (out,), 0.1)
    # Pooled features differ little from each other; this spreads the outputs to about 1.
    state["fc.weight"] = draw(seed, "fc.weight", (CLASSES, 64), 1.0, centre=True)
    state["fc.bias"] = draw(seed, "fc.bias", (CLASSES,), 0.1)
    return state


def write_onnx(path: str, seed: int, repeat: int = 1) -> None:
    """Write the model: "x" float32 [b, 3, 64, 64] to "y" float32 [b, 10]."""
    graph = Graph("tinyconv")
    for name, value in weights(seed, repeat).items():
        graph.constant(name, value)
    x = "x"
    for name, _, _, stride in convolutions(repeat):
        inputs = (x, f"{name}.weight", f"{name}.bias")
        x = graph.node("Conv", name, *inputs, kernel_shape=[3, 3], strides=[stride] * 2, pads=[1, 1, 1, 1])
        x = graph.node("Relu", f"{name}.relu", x)
    x = graph.node("Flatten", "flatten", graph.node("GlobalAveragePool", "avgpool", x))
    graph.node("Gemm", "fc", x, "fc.weight", "fc.bias", output="y", transB=1)
    graph.write(
        path, {"x": (TensorProto.FLOAT, ["b", 3, 64, 64])}, {"y": (TensorProto.FLOAT, ["b", CLASSES])}
    )


def torch_module(seed: int, repeat: int = 1) -> torch.nn.Module:
    """The same network in PyTorch: float [b, 3, 64, 64] to [b, 10]."""
    from torch import nn

    network = nn.Sequential()
    for name, channels, out, stride in convolutions(repeat):
        network.add_module(name, nn.Conv2d(channels, out, 3, stride, padding=1))
        network.add_module(f"{name}_relu", nn.ReLU(inplace=True))
    network.add_module("avgpool", nn.AdaptiveAvgPool2d(1))
    network.add_module("flatten", nn.Flatten())
    network.add_module("fc", nn.Linear(64, CLASSES))
    return load(network, weights(seed, repeat))
