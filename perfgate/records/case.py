"""What is measured: a case, its recipe, mode and protocol; and how right its answers must be."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from perfgate.records.base import Count, Facts, Name, Positive, Precision, Record, Sha256, Share, Text, digest


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


class Mode(Record):
    """How an inference is driven and what its time includes; never compared across.

    `drive` is `call` (a blocking API call: ONNX Runtime, PyTorch), `enqueue` (onto a CUDA stream) or
    `graph` (replay of a captured CUDA graph). `transfers` says whether copies from and to the host
    are inside the time; `wait` is how the host waits for the device.
    """

    drive: Literal["call", "enqueue", "graph"] = "call"
    transfers: bool = False
    streams: Annotated[int, Meta(ge=1, le=64)] = 1
    wait: Literal["block", "spin"] = "block"

    def __str__(self) -> str:
        parts = [self.drive, "transfers" if self.transfers else "no transfers", self.wait]
        return ", ".join([*parts, f"{self.streams} streams"] if self.streams > 1 else parts)


class Protocol(Record):
    """How a launch is measured: warm up for `warmup_ns` (at least once), then take samples until both
    `duration_ns` and `min_samples` are reached, never more than `max_samples`. On a CPU a launch is invalid
    when others used more than `foreign_cpu_limit` of the processors meanwhile."""

    launches: Annotated[int, Meta(ge=1, le=1000)] = 5
    warmup_ns: Count = 200_000_000
    duration_ns: Count = 1_000_000_000
    min_samples: Annotated[int, Meta(ge=1, le=1_000_000)] = 5
    max_samples: Annotated[int, Meta(ge=1, le=1_000_000)] = 20_000
    timeout_s: Annotated[int, Meta(ge=1, le=86_400)] = 300
    foreign_cpu_limit: Share = 0.15


class Tensor(Record):
    """One input or output with its concrete shape (elements) and its ONNX element type in lower case."""

    name: Name
    dtype: Name
    shape: tuple[Count, ...]


class InputData(Record):
    """How one input is filled. `integers` draws from [low, high), `uniform` from [low, high),
    `normal` with `mean` and `std`; `file` is an `.npy` beside the spec, known by its digest."""

    generate: Literal["normal", "uniform", "integers", "constant", "file"] = "normal"
    seed: Count = 0
    low: float = 0.0
    high: float = 1.0
    mean: float = 0.0
    std: float = 1.0
    value: float = 0.0
    file: Text = ""
    file_digest: str = ""


class Dimension(Record):
    """The profile of one named dynamic dimension."""

    min: Positive
    opt: Positive
    max: Positive


class Recipe(Record):
    """Everything that decides an engine's bytes; its digest addresses the engine cache.

    `versions` are the libraries that build, `device` the machine built on. `timing_cache_digest` is
    part of the address but not of a case's identity: see `model_digest`. `onnx_digest` is the graph
    digest of the FP32 model; `precision_digest` is of everything that turns it into the case's precision;
    `draw` numbers builds of one recipe, which may choose other tactics each time.
    """

    backend: Name
    onnx_digest: Sha256
    precision: Precision
    precision_digest: str = ""
    typing: Literal["weak", "strong"] = "strong"
    profile: dict[Name, Dimension] = {}
    plugins: tuple[Text, ...] = ()
    options: dict[Name, str | int | float | bool] = {}
    versions: Facts = {}
    device: Text = ""
    timing_cache_digest: str = ""
    draw: Count = 0

    def model_digest(self) -> str:
        """The digest without the timing cache and the draw: they do not make another model."""
        return digest(msgspec.structs.replace(self, timing_cache_digest="", draw=0))


class Tolerance(Record):
    """`ignore`: an alarm at or below this slowdown is false. `catch`: a PASS at or above it is a miss.

    Both are relative (0.02 is 2 %). Between them either answer is allowed.
    """

    ignore: Annotated[float, Meta(gt=0, lt=10)]
    catch: Annotated[float, Meta(gt=0, lt=10)]


class Floor(Record):
    """What a metric beside latency must be worse by to be red: `relative` (0.05 is 5 %) and `absolute`, in
    the metric's own unit, both at once."""

    relative: Annotated[float, Meta(ge=0, lt=10)]
    absolute: Annotated[float, Meta(ge=0, lt=1e18)] = 0.0


class Slo(Record):
    """Absolute promises, judged even when nothing was measured anew, and never mixed. `engine_p99_ms` is
    closed loop: one query at a time. `service_p99_ms` is open loop: queueing included, under `service_qps`
    queries a second."""

    engine_p99_ms: Annotated[float, Meta(gt=0)] | None = None
    service_p99_ms: Annotated[float, Meta(gt=0)] | None = None
    service_qps: Annotated[float, Meta(gt=0)] | None = None


class RebuildPolicy(Record):
    """How build luck is dealt with, where an engine was built without a timing cache that knew it all.

    `builds` independent builds a side at most, a number fixed beforehand: one fresh build of five ran 17 %
    slower on an H200, so six slow ones in a row are bad luck once in 15,600 times (0.2^6), under the one in
    5,000 that the gate allows itself; five are not. `pick` is `best` where the engine that is gated is the
    one that is deployed, and `any` where the deployment builds its own.
    """

    builds: Annotated[int, Meta(ge=1, le=20)] = 6
    pick: Literal["best", "any"] = "best"


class Case(Record, kw_only=True):
    """One model x backend x precision x inputs x measured shape x mode."""

    id: Name
    model: Name
    backend: Name
    precision: Precision
    shape: dict[Name, Positive] = {}
    mode: Mode = Mode()
    inputs: dict[Name, InputData] = {}
    tolerance: Tolerance
    floors: dict[Name, Floor] = {}
    slo: Slo = Slo()
    accuracy: AccuracyLimits = AccuracyLimits()
    draws: RebuildPolicy = RebuildPolicy()
    source: Text = ""

    @property
    def items(self) -> int:
        """Items in one query: the batch dimension's value, else 1."""
        return self.shape.get("b", self.shape.get("batch", 1))
