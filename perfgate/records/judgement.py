"""What the gate says of a case, the evidence for it, and why a case became slower."""

from __future__ import annotations

import enum
from typing import Annotated, Literal

from msgspec import Meta

from perfgate.records.base import Count, MetricColumns, Name, Record, Share, Text
from perfgate.records.case import Recipe, Tolerance
from perfgate.records.launch import Difference, EngineFacts


class Verdict(str, enum.Enum):
    """What perfgate says of a case. `exit_code` is what the case alone makes the run exit with."""

    PASS = "PASS"  # noqa: S105
    UNCHANGED = "UNCHANGED"
    IMPROVEMENT = "IMPROVEMENT"
    NEW = "NEW"
    WAIVED = "WAIVED"
    REGRESSION = "REGRESSION"
    MISSING = "MISSING"
    INCONCLUSIVE = "INCONCLUSIVE"
    ERROR = "ERROR"
    INVALID = "INVALID"
    INCOMPARABLE = "INCOMPARABLE"
    NOT_RUN = "NOT RUN"

    @property
    def exit_code(self) -> int:
        if self in _RED:
            return 1
        return 3 if self in _INFRASTRUCTURE else 0


_RED = {Verdict.REGRESSION, Verdict.MISSING, Verdict.INCONCLUSIVE, Verdict.ERROR}

_INFRASTRUCTURE = {Verdict.INVALID, Verdict.INCOMPARABLE}


class Interval(Record):
    """An estimate with a two-sided interval, as a ratio head / base."""

    estimate: float
    low: float
    high: float
    confidence: Share


class MetricJudgement(Record):
    """One metric beside latency, judged in its own direction. `base` and `head` are medians over launches, in
    the metric's own unit; an `advisory` one is shown and fails nothing."""

    metric: Name
    verdict: Verdict
    reason: Text
    ratio: Interval | None = None
    base: float | None = None
    head: float | None = None
    advisory: bool = False


class Confirmation(Record):
    """The paired confirmation of a suspect: fresh launches of base and head in turn on one device.

    `log_likelihood` is the sequential test's last value; `needed` how many more launches a side an undecided
    one would take; `gpu_ns` device time spent on it.
    """

    base_launches: Count
    head_launches: Count
    decided: bool
    log_likelihood: float | None = None
    needed: Count = 0
    gpu_ns: Count = 0
    base_commit: Text = ""
    notes: tuple[Text, ...] = ()


class Judgement(Record):
    """The verdict on a case and the evidence for it. `base` and `head` hold one value a launch by metric
    (`latency_ns` is the median of a launch's samples). `code` is a short reason that a machine can read, such
    as `already-on-base` or `clock/power`. `tolerance` is what it was held by, where that is wider than the
    case's own."""

    verdict: Verdict
    reason: Text
    code: Text = ""
    ratio: Interval | None = None
    tolerance: Tolerance | None = None
    base: MetricColumns = {}
    head: MetricColumns = {}
    differences: tuple[Difference, ...] = ()
    metrics: tuple[MetricJudgement, ...] = ()
    confirmation: Confirmation | None = None


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
