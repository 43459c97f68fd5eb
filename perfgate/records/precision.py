"""All precisions of one model side by side, for whoever must choose one."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta

from perfgate.records.accuracy import Accuracy
from perfgate.records.base import Count, Name, Precision, Record, Text
from perfgate.records.judgement import Verdict

PRECISION_SCHEMA: Final = "perfgate-trt/precision/v1"


class LayerLoss(Record):
    """One layer's output against FP32's: SQNR in decibels, 400 where nothing differs."""

    node: Name
    operator: Name
    sqnr_db: float


class PrecisionRow(Record, kw_only=True):
    """One precision. Numbers are medians over launches, None where the case gave none; `layers` are those
    that lose most, the worst first."""

    precision: Precision
    case: Name
    verdict: Verdict
    reason: Text = ""
    latency_ns: float | None = None
    engine_bytes: Count | None = None
    memory_bytes: float | None = None
    accuracy: Accuracy | None = None
    layers: Annotated[tuple[LayerLoss, ...], Meta(max_length=1_000)] = ()


class PrecisionTable(Record, kw_only=True):
    """The rows, and what they were measured on."""

    schema: Literal["perfgate-trt/precision/v1"]
    model: Name
    backend: Name
    device: Name
    rows: Annotated[tuple[PrecisionRow, ...], Meta(max_length=10)] = ()
