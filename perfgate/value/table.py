"""What a comparison of stacks says: frozen records, ready to be rendered."""

from __future__ import annotations

from typing import Literal

from perfgate.records import Count, Difference, Facts, Mode, Name, Positive, Precision, Record, Text, Tf32

STACKS_SCHEMA: Literal["perfgate-trt/stacks/v1"] = "perfgate-trt/stacks/v1"


class Stack(Record, kw_only=True):
    """One way to run models, as one results file measured it. `differences` are what its environment has
    unlike the original's, apart from the libraries that make it another stack."""

    label: Name
    run_id: Name
    created: Name
    device: Name
    versions: Facts = {}
    differences: tuple[Difference, ...] = ()


class Range(Record):
    """A value with the least and the greatest that the launches allow. This is the span of what was seen,
    not a confidence interval: it says nothing of launches that were not made."""

    value: float
    low: float
    high: float


class Line(Record, kw_only=True):
    """One stack's numbers on one model, precision and shape, in one mode.

    Times are nanoseconds: a median over launches of each launch's median, or of its 99th percentile.
    `samples` is the fewest that a launch took; a p99 from fewer than 1,001 rests on ten samples or less.
    Throughput is samples over the wall's time, in queries and in items (queries x batch) a second.
    `memory_bytes` is the device-wide growth on a GPU and the peak resident set on a CPU, as the median over
    launches; None where it was not measured. `speedup` is the original's latency over this one's: above 1
    is faster. Its span is the original's least launch median over this one's greatest, and the reverse.
    `stored` says that the numbers are those of the baseline that an unchanged case stands for, `tf32` which
    FP32 products may have been rounded to TF32 (None: unknown).
    """

    stack: Name
    case_id: Name
    mode: Mode
    launches: Count
    samples: Count
    latency_ns: Range
    p99_ns: float
    throughput_qps: float
    items_per_s: float
    memory_bytes: float | None = None
    speedup: Range
    stored: bool = False
    tf32: Tf32 | None = None


class Row(Record):
    """One model, precision and shape; `lines` has the original's reference first, then the others."""

    model: Name
    precision: Precision
    shape: dict[Name, Positive]
    items: Positive
    lines: tuple[Line, ...]

    @property
    def tf32_differs(self) -> bool:
        """Whether the stacks are known to treat TF32 unlike each other."""
        return len({line.tf32 for line in self.lines if line.tf32}) > 1


class NotCompared(Record, kw_only=True):
    """A case that was not set beside the original's, and why. `case_id` is empty where there is none."""

    stack: Name
    model: Name
    precision: Precision
    shape: dict[Name, Positive]
    case_id: str = ""
    reason: Text


class StackTable(Record, kw_only=True):
    """Stacks side by side, the original first. Every case of every file is in `rows` or `not_compared`."""

    schema: Literal["perfgate-trt/stacks/v1"]
    stacks: tuple[Stack, ...]
    rows: tuple[Row, ...] = ()
    not_compared: tuple[NotCompared, ...] = ()
