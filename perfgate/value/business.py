"""The business case as frozen records: what a manager decides by, with all that it takes for granted."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from perfgate.records import Count, Name, Positive, Record, Text, Tf32
from perfgate.value.assumptions import CaseTerms
from perfgate.value.table import StackTable

BUSINESS_SCHEMA: Literal["perfgate-trt/business/v1"] = "perfgate-trt/business/v1"

Source = Literal["measured", "stored", "given"]


class Point(Record):
    """P99 in milliseconds at a load, queueing included."""

    per_s: float
    p99_ms: float


class Capacity(Record, kw_only=True):
    """Requests a second that one GPU sustains within the limit: simulated, or given by somebody.

    `low` and `high` are the seeds' 5th and 95th percentile. 0 says that the limit is not met at any load.
    `offline_per_s` is the bound: full batches back to back. `padded_below` is the least batch measured.
    """

    limit_ms: float
    per_s: float
    low: float
    high: float
    offline_per_s: float
    source: Literal["simulated", "given"]
    largest_batch: Positive = 1
    measured_batches: tuple[Positive, ...] = ()
    seeds: Count = 0
    curve: tuple[Point, ...] = ()

    @property
    def met(self) -> bool:
        return self.per_s > 0


class Fleet(Record, kw_only=True):
    """Machines for the peak, and what they cost in the case's currency. `gpus` are needed,
    `instances` are bought, the spare ones among them. `free_share` is the capacity of the working ones over
    the peak, minus 1."""

    gpus: Positive
    instances: Positive
    gpus_per_instance: Positive
    instance_month: float
    per_month: float
    per_year: float
    per_million: float | None = None
    free_share: float


class StageTime(Record):
    """A stage of deploying, in seconds on either stack; None where nobody timed it. `unknown` are the stacks
    that have it from a cache which did not keep its time, `given` a stage timed by a person."""

    name: Name
    original_s: float | None = None
    tensorrt_s: float | None = None
    given: bool = False
    unknown: tuple[Literal["original", "tensorrt"], ...] = ()


class Figures(Record, kw_only=True):
    """One stack in numbers. Latency is at `latency_batch`, throughput and memory at `throughput_batch`.
    `tf32` says which FP32 products may round to TF32 (None: unknown).
    `instance_month` is what one instance costs a month. A deployment's hours are timed by perfgate unless
    `deploy_given`."""

    label: Name
    precision: str
    tf32: Tf32 | None = None
    mode: str = ""
    source: Source
    latency_ms: float
    p99_ms: float
    latency_batch: Positive = 1
    queries_per_s: float
    items_per_s: float
    throughput_batch: Positive = 1
    memory_gb: float | None = None
    instance_month: float | None = None
    gpus_per_instance: Positive = 1
    capacity: Capacity | None = None
    fleet: Fleet | None = None
    deploy_hours: float | None = None
    deploy_given: bool = False


Outcome = Literal["better", "worse", "same", ""]


class Line(Record, kw_only=True):
    """One metric, its unit in its name. `ratio` is TensorRT over the original, None where it says nothing."""

    metric: Name
    original: float | None = None
    tensorrt: float | None = None
    ratio: float | None = None
    outcome: Outcome = ""


class Promise(Record, kw_only=True):
    """A service's verdict under load: `service_p99_ms` is met up to `per_s` requests a second. `asked_per_s`
    is the load that its spec names (`service_qps`), and `kept` whether the limit is met there."""

    stack: Name
    model: Name
    precision: str
    limit_ms: float
    per_s: float
    low: float
    high: float
    asked_per_s: float | None = None

    @property
    def kept(self) -> bool | None:
        return None if self.asked_per_s is None else self.per_s >= self.asked_per_s


class Swing(Record, kw_only=True):
    """What both cost a month when the load or the price is `factor` times the assumed one."""

    what: Literal["load", "price"]
    factor: float
    original: float
    tensorrt: float

    @property
    def saving(self) -> float:
        return self.original - self.tensorrt


class BusinessCase(Record, kw_only=True):
    """The original against TensorRT on one model. `saving_month` is in the case's currency; `payback_months`
    the effort over it, None where there is no effort given or nothing saved."""

    schema: Literal["perfgate-trt/business/v1"]
    made: Name
    title: Text
    device: Name
    model: str = ""
    terms: CaseTerms
    peak_per_s: float | None = None
    peak_from_bill: bool = False
    original: Figures
    tensorrt: Figures
    lines: Annotated[tuple[Line, ...], Meta(max_length=100)]
    saving_month: float | None = None
    saving_year: float | None = None
    payback_months: float | None = None
    stages: tuple[StageTime, ...] = ()
    promises: tuple[Promise, ...] = ()
    swings: tuple[Swing, ...] = ()
    stacks: StackTable | None = None
