"""BERT-base encoder: Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers", 2018
(arXiv 1810.04805).

Twelve post-norm layers, hidden size 768, 12 heads, feed-forward size 3072; no pooler and one segment.
Weights are seeded and untrained, and named as Hugging Face's `BertModel` names them. Layer
normalisation and GELU are written out, because TensorRT 8.5 parses no single operator for them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from _graph import Graph, draw, load
from onnx import TensorProto

if TYPE_CHECKING:
    import torch
    from _graph import Array

LAYERS, HIDDEN, HEADS, INNER, VOCABULARY, POSITIONS = 12, 768, 12, 3072, 30522, 512
# 1e-12 as published is zero in FP16.
EPSILON = 1e-5
# Added to the score of a padded token: finite in FP16, and zero after the softmax all the same.
MASKED = -1e4
# What a branch adds to the residual stream, scaled by depth as in GPT-2: unscaled, untrained attention
# averages all tokens into one and the output hardly depends on the input.
BRANCH_GAIN = 1 / math.sqrt(2 * LAYERS)


def weights(seed: int, layers: int = LAYERS) -> dict[str, Array]:
    """Every weight by Hugging Face's name: embeddings [n, 768], linear layers [out, in], norms [768]."""
    state: dict[str, Array] = {}

    def add(name: str, shape: tuple[int, ...], std: float, mean: float = 0.0) -> None:
        state[name] = draw(seed, name, shape, std, mean=mean)

    def norm(name: str) -> None:
        add(f"{name}.weight", (HIDDEN,), 0.1, mean=1.0)
        add(f"{name}.bias", (HIDDEN,), 0.1)

    def linear(name: str, size: int, out: int, gain: float = 1.0) -> None:
        # Keeps variance at 1, so that attention is neither flat nor saturated.
        add(f"{name}.weight", (out, size), gain / math.sqrt(size))
        add(f"{name}.bias", (out,), 0.1)

    for name, rows in (("word", VOCABULARY), ("position", POSITIONS), ("token_type", 2)):
        add(f"embeddings.{name}_embeddings.weight", (rows, HIDDEN), 1.0)
    norm("embeddings.LayerNorm")
    for layer in (f"encoder.layer.{index}" for index in range(layers)):
        for part in ("query", "key", "value"):
            linear(f"{layer}.attention.self.{part}", HIDDEN, HIDDEN)
        linear(f"{layer}.attention.output.dense", HIDDEN, HIDDEN, BRANCH_GAIN)
        norm(f"{layer}.attention.output.LayerNorm")
        linear(f"{layer}.intermediate.dense", HIDDEN, INNER)
        linear(f"{layer}.output.dense", INNER, HIDDEN, BRANCH_GAIN)
        norm(f"{layer}.output.LayerNorm")
    return state


class _Encoder(Graph):
    """An ONNX graph with the encoder's building blocks. Tensors are named after the block that makes them."""

    def __init__(self, state: dict[str, Array]) -> None:
        super().__init__("bert-base")
        self.state = state

    def number(self, name: str, value: float) -> str:
        return self.constant(name, np.array(value, np.float32))

    def integers(self, name: str, *values: int) -> str:
        return self.constant(name, np.array(values, np.int64))

    def norm(self, name: str, x: str, output: str = "") -> str:
        weight, bias = (self.constant(part, self.state[part]) for part in (f"{name}.weight", f"{name}.bias"))
        mean = self.node("ReduceMean", f"{name}.mean", x, axes=[-1], keepdims=1)
        x = self.node("Sub", f"{name}.centred", x, mean)
        square = self.node("Mul", f"{name}.square", x, x)
        variance = self.node("ReduceMean", f"{name}.variance", square, axes=[-1], keepdims=1)
        shifted = self.node("Add", f"{name}.shifted", variance, self.number("epsilon", EPSILON))
        x = self.node("Div", f"{name}.normal", x, self.node("Sqrt", f"{name}.deviation", shifted))
        return self.node("Add", name, self.node("Mul", f"{name}.scaled", x, weight), bias, output=output)

    def linear(self, name: str, x: str) -> str:
        weight = self.constant(f"{name}.weight", self.state[f"{name}.weight"].T)
        bias = self.constant(f"{name}.bias", self.state[f"{name}.bias"])
        return self.node("Add", name, self.node("MatMul", f"{name}.matmul", x, weight), bias)

    def gelu(self, name: str, x: str) -> str:
        scaled = self.node("Div", f"{name}.scaled", x, self.number("sqrt2", math.sqrt(2)))
        erf = self.node("Add", f"{name}.erf1", self.node("Erf", f"{name}.erf", scaled), self.number("one", 1))
        product = self.node("Mul", f"{name}.product", x, erf)
        return self.node("Mul", name, product, self.number("half", 0.5))

    def embeddings(self) -> str:
        """Word + position + segment 0: [b, s, 768]."""
        words, positions, segments = (
            self.state[f"embeddings.{kind}_embeddings.weight"] for kind in ("word", "position", "token_type")
        )
        table = self.constant("embeddings.word_embeddings.weight", words)
        x = self.node("Gather", "embeddings.word_embeddings", table, "input_ids")
        # Slice, not Shape's own start and end: those are younger than the oldest parser that we support.
        shape = self.node("Shape", "shape", "input_ids")
        zero, one, two = (self.integers(f"[{value}]", value) for value in (0, 1, 2))
        length = self.node("Slice", "length", shape, one, two, zero)
        table = self.constant("embeddings.position_embeddings.weight", positions)
        position = self.node("Slice", "embeddings.position_embeddings", table, zero, length, zero)
        x = self.node("Add", "embeddings.add_position", x, position)
        segment = self.constant("embeddings.token_type_embeddings.weight", segments[0])
        x = self.node("Add", "embeddings.add_token_type", x, segment)
        return self.norm("embeddings.LayerNorm", x)

    def mask(self) -> str:
        """What is added to the scores: [b, 1, 1, s], 0 for a token and MASKED for padding."""
        kept = self.node("Cast", "mask.kept", "attention_mask", to=TensorProto.FLOAT)
        padded = self.node("Sub", "mask.padded", self.number("one", 1), kept)
        scaled = self.node("Mul", "mask.scaled", padded, self.number("masked", MASKED))
        return self.node("Unsqueeze", "mask", scaled, self.integers("[1, 2]", 1, 2))

    def attention(self, name: str, x: str, mask: str) -> str:
        split = self.integers("split_heads", 0, 0, HEADS, HIDDEN // HEADS)

        def heads(part: str, perm: list[int]) -> str:
            y = self.node("Reshape", f"{name}.{part}.split", self.linear(f"{name}.{part}", x), split)
            return self.node("Transpose", f"{name}.{part}.heads", y, perm=perm)

        query, value = heads("query", [0, 2, 1, 3]), heads("value", [0, 2, 1, 3])
        scores = self.node("MatMul", f"{name}.scores", query, heads("key", [0, 2, 3, 1]))
        scale = self.number("sqrt_head", math.sqrt(HIDDEN // HEADS))
        scores = self.node("Div", f"{name}.scaled_scores", scores, scale)
        scores = self.node("Add", f"{name}.masked_scores", scores, mask)
        shares = self.node("Softmax", f"{name}.softmax", scores, axis=-1)
        context = self.node("MatMul", f"{name}.context", shares, value)
        context = self.node("Transpose", f"{name}.context.tokens", context, perm=[0, 2, 1, 3])
        return self.node("Reshape", name, context, self.integers("merge_heads", 0, 0, HIDDEN))


def write_onnx(path: str, seed: int, layers: int = LAYERS) -> None:
    """Write the model: "input_ids" and "attention_mask" int32 [b, s] to "last_hidden_state" [b, s, 768]."""
    graph = _Encoder(weights(seed, layers))
    x, mask = graph.embeddings(), graph.mask()
    for index in range(layers):
        layer = f"encoder.layer.{index}"
        y = graph.attention(f"{layer}.attention.self", x, mask)
        y = graph.linear(f"{layer}.attention.output.dense", y)
        x = graph.node("Add", f"{layer}.attention.output.residual", y, x)
        x = graph.norm(f"{layer}.attention.output.LayerNorm", x)
        y = graph.gelu(f"{layer}.intermediate.gelu", graph.linear(f"{layer}.intermediate.dense", x))
        x = graph.node("Add", f"{layer}.output.residual", graph.linear(f"{layer}.output.dense", y), x)
        last = "last_hidden_state" if index == layers - 1 else ""
        x = graph.norm(f"{layer}.output.LayerNorm", x, output=last)
    inputs = {name: (TensorProto.INT32, ["b", "s"]) for name in ("input_ids", "attention_mask")}
    graph.write(path, inputs, {"last_hidden_state": (TensorProto.FLOAT, ["b", "s", HIDDEN])})


def torch_module(seed: int, layers: int = LAYERS) -> torch.nn.Module:
    """The same network in PyTorch, with its fused attention: two int [b, s] to [b, s, 768]."""
    import torch
    from torch import Tensor, nn

    def tree(**children: nn.Module) -> nn.ModuleDict:
        return nn.ModuleDict(children)

    def norm() -> nn.Module:
        return nn.LayerNorm(HIDDEN, EPSILON)

    class Layer(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            parts = {part: nn.Linear(HIDDEN, HIDDEN) for part in ("query", "key", "value")}
            output = tree(dense=nn.Linear(HIDDEN, HIDDEN), LayerNorm=norm())
            self.attention = nn.ModuleDict({"self": nn.ModuleDict(parts), "output": output})
            self.intermediate = tree(dense=nn.Linear(HIDDEN, INNER))
            self.output = tree(dense=nn.Linear(INNER, HIDDEN), LayerNorm=norm())

        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            query, key, value = (
                part(x).unflatten(-1, (HEADS, -1)).transpose(1, 2)
                for part in (self.attention["self"][name] for name in ("query", "key", "value"))
            )
            y = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
            output = self.attention["output"]
            x = output["LayerNorm"](output["dense"](y.transpose(1, 2).flatten(2)) + x)
            y = self.output["dense"](nn.functional.gelu(self.intermediate["dense"](x)))
            return self.output["LayerNorm"](y + x)

    class Bert(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.embeddings = tree(
                word_embeddings=nn.Embedding(VOCABULARY, HIDDEN),
                position_embeddings=nn.Embedding(POSITIONS, HIDDEN),
                token_type_embeddings=nn.Embedding(2, HIDDEN),
                LayerNorm=norm(),
            )
            self.encoder = tree(layer=nn.ModuleList(Layer() for _ in range(layers)))

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
            tables = self.embeddings
            positions = tables["position_embeddings"].weight[: input_ids.shape[1]]
            x = tables["word_embeddings"](input_ids) + positions + tables["token_type_embeddings"].weight[0]
            x = tables["LayerNorm"](x)
            mask = ((1 - attention_mask.to(x.dtype)) * MASKED)[:, None, None, :]
            for layer in self.encoder["layer"]:
                x = layer(x, mask)
            return x

    # Nothing is initialised at random first: every parameter is loaded.
    with torch.device("meta"):
        module = Bert()
    return load(module.to_empty(device="cpu"), weights(seed, layers))
