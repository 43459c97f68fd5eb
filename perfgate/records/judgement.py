"""What the gate says of a case, and the evidence for it."""

from __future__ import annotations

import enum

from perfgate.records.base import Count, MetricColumns, Name, Record, Share, Text
from perfgate.records.case import Tolerance
from perfgate.records.launch import Difference


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
