"""Why a case became slower: layers, graph, environment and recipe, base against head."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from perfgate.records.base import Record, Share, Text
from perfgate.records.case import Recipe
from perfgate.records.launch import Difference, EngineFacts

Cause = Literal[
    "un-fused",
    "new-layers",
    "changed-layers",
    "kernel",
    "precision",
    "reformat",
    "build",
    "clock/power",
    "environment",
    "not-explained",
    "nothing-changed",
]


class LayerChange(Record):
    """A group of layers that is not the same on both sides. Times are nanoseconds of profiled loads, the
    state that all layers share removed; None where the group is not there. `share` is the part of the
    slowdown that it explains, None where nothing slowed down."""

    kind: Literal[
        "appeared", "vanished", "un-fused", "fused", "kernel", "precision", "reformat", "slower", "faster"
    ]
    base_layers: tuple[Text, ...] = ()
    head_layers: tuple[Text, ...] = ()
    onnx_nodes: tuple[Text, ...] = ()
    base_ns: float | None = None
    head_ns: float | None = None
    spread_ns: float = 0.0
    share: float | None = None
    detail: Text = ""


class GraphChange(Record):
    """One difference between two ONNX graphs; `what` is a sentence that names the node or tensor."""

    kind: Literal["added", "removed", "rewired", "attribute", "shape", "initializer", "opset", "output"]
    node: Text
    what: Text


class Explanation(Record):
    """Evidence beside a verdict. `cause` is one sentence that the evidence carries. Profiled totals are
    those of profiled loads, gated ones those of the launches that were judged: shown apart, never scaled.
    `base_engine` and `base_recipe` are what head was held against, for a bundle that runs elsewhere."""

    kind: Cause
    cause: Text
    state_ratio: float | None = None
    profiled_base_ns: float | None = None
    profiled_head_ns: float | None = None
    gated_base_ns: float | None = None
    gated_head_ns: float | None = None
    unexplained_ns: float | None = None
    matched_share: Share | None = None
    layers: Annotated[tuple[LayerChange, ...], Meta(max_length=10_000)] = ()
    graph: Annotated[tuple[GraphChange, ...], Meta(max_length=10_000)] = ()
    differences: Annotated[tuple[Difference, ...], Meta(max_length=1_000)] = ()
    unseen: Annotated[tuple[Text, ...], Meta(max_length=1_000)] = ()
    base_engine: EngineFacts | None = None
    base_recipe: Recipe | None = None
