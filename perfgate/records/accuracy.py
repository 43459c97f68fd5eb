"""Is the answer still right: a case's outputs held against a reference, before its speed counts."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from perfgate.records.base import Count, Name, Positive, Precision, Record, Share, Text


class AccuracyLimits(Record):
    """How right a case's answers must be. `sqnr_db` is by precision, and what it leaves open has a default.
    Errors, SQNR and cosine hold for every output. `top1` and `top5` are shares of agreement that must be
    proven at 95 %. The task metric may fall by the share `task_drop` of the reference's (and of the
    baseline's), the SQNR by `drift_db` below the baseline's."""

    sqnr_db: dict[Precision, Annotated[float, Meta(ge=0, le=400)]] = {}
    max_abs_error: Annotated[float, Meta(gt=0)] | None = None
    max_rel_error: Annotated[float, Meta(gt=0)] | None = None
    cosine: Annotated[float, Meta(gt=0, le=1)] | None = None
    top1: Share | None = None
    top5: Share | None = None
    task_drop: Share = 0.005
    drift_db: Annotated[float, Meta(gt=0, le=400)] = 3.0


class Agreement(Record):
    """How many of `total` answers are the reference's."""

    right: Count
    total: Positive


class OutputAccuracy(Record):
    """One output against the reference's. `sqnr_db` is 10 log10(sum r² / sum (r - h)²), None where both are
    equal; `cosine` is None where a side is all zeros. `nonfinite` counts NaN and infinities."""

    output: Name
    max_abs_error: float | None = None
    max_rel_error: float | None = None
    cosine: float | None = None
    sqnr_db: float | None = None
    top1: Agreement | None = None
    top5: Agreement | None = None
    nonfinite: Count = 0
    first_nonfinite: Text = ""


class TaskMetric(Record):
    """What the model is for, in one number that is better when higher, such as characters right."""

    name: Name
    reference: float
    head: float
    samples: Positive


class Accuracy(Record):
    """The proof that the answers are right; `failures` are the thresholds that are broken, in words, and
    `samples` counts the queries that were answered."""

    reference: Text
    samples: Count = 0
    outputs: Annotated[tuple[OutputAccuracy, ...], Meta(max_length=1_000)] = ()
    task: TaskMetric | None = None
    failures: Annotated[tuple[Text, ...], Meta(max_length=1_000)] = ()
    notes: Annotated[tuple[Text, ...], Meta(max_length=1_000)] = ()
