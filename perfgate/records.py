"""The vocabulary: frozen records and enums that every room of perfgate speaks.

Units are in the names: `_ns` nanoseconds, `_bytes` bytes; a ratio is head over base, so above 1 is
slower or bigger. The published JSON Schemas are made from these types (`perfgate schema`).
Defaults are omitted when written, so a new optional field changes no digest of an old record.
"""

from __future__ import annotations

import enum
import hashlib
import math
import statistics
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**_):
        """For type checkers only: options of `Record` hold for its subclasses."""
        return lambda kind: kind


RESULTS_SCHEMA: Final = "perfgate-trt/results/v1"
BASELINE_SCHEMA: Final = "perfgate-trt/baseline/v1"

Name = Annotated[str, Meta(min_length=1, max_length=300)]
Text = Annotated[str, Meta(max_length=20_000)]
Packed = Annotated[str, Meta(max_length=2_000_000)]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Meta(ge=0, lt=1 << 62)]
Positive = Annotated[int, Meta(gt=0, lt=1 << 62)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Series = Annotated[tuple[Count, ...], Meta(max_length=1_000_000)]
Facts = Annotated[dict[Name, Text], Meta(max_length=500)]
Precision = Literal["fp32", "fp16", "int8", "int8+fp16"]


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of all records: immutable, named fields only, unknown fields refused on reading."""


def digest(record: object) -> str:
    """SHA-256 (hex) of the canonical JSON of a record: sorted keys, no spaces, defaults omitted."""
    return hashlib.sha256(msgspec.json.encode(record, order="sorted")).hexdigest()


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


class Direction(str, enum.Enum):
    """Which way a metric is worse; a property of the metric, never guessed from its name."""

    LOWER_IS_BETTER = "lower-is-better"
    HIGHER_IS_BETTER = "higher-is-better"


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
    part of the address but not of a case's identity: see `model_digest`.
    """

    backend: Name
    onnx_digest: Sha256
    precision: Precision
    typing: Literal["weak", "strong"] = "strong"
    profile: dict[Name, Dimension] = {}
    plugins: tuple[Text, ...] = ()
    options: dict[Name, str | int | float | bool] = {}
    versions: Facts = {}
    device: Text = ""
    timing_cache_digest: str = ""

    def model_digest(self) -> str:
        """The digest without the timing cache: a promoted cache does not make another model."""
        return digest(msgspec.structs.replace(self, timing_cache_digest=""))


class Tolerance(Record):
    """`ignore`: an alarm at or below this slowdown is false. `catch`: a PASS at or above it is a miss.

    Both are relative (0.02 is 2 %). Between them either answer is allowed.
    """

    ignore: Annotated[float, Meta(gt=0, lt=10)]
    catch: Annotated[float, Meta(gt=0, lt=10)]


class Slo(Record):
    """Absolute promises, judged even when nothing was measured anew. `engine_p99_ms` is closed loop: one
    query at a time."""

    engine_p99_ms: Annotated[float, Meta(gt=0)] | None = None


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
    slo: Slo = Slo()
    source: Text = ""

    @property
    def items(self) -> int:
        """Items in one query: the batch dimension's value, else 1."""
        return self.shape.get("b", self.shape.get("batch", 1))


class Environment(Record):
    """`key` must match for two measurements to be compared; `noted` is shown where it differs.

    `device` and `toolchain` name the baseline's folders.
    """

    device: Name
    toolchain: Name
    key: Facts
    noted: Facts = {}


class Difference(Record):
    """One field that differs between two environments or recipes."""

    field: Name
    base: Text
    head: Text


class Telemetry(Record):
    """What the device did during a launch. A field that could not be read is absent, and
    `unavailable` says why. Clocks in MHz, power in mW, energy in mJ, temperature in degrees Celsius;
    `violations_ns` is the time slowed by a policy, `unexplained_bytes` device memory in use before the
    launch that no process of ours explains, `foreign_cpu` the share of our processors that others used."""

    sm_clock_mhz: Series = ()
    memory_clock_mhz: Series = ()
    power_mw: Series = ()
    temperature_c: Series = ()
    energy_mj: Count | None = None
    violations_ns: dict[Name, Count] = {}
    ecc_errors: Count | None = None
    peak_used_bytes: Count = 0
    unexplained_bytes: Count = 0
    slowdowns: tuple[Name, ...] = ()
    foreign_pids: tuple[Count, ...] = ()
    foreign_cpu: Share | None = None
    unavailable: Facts = {}


class Launch(Record):
    """One fresh process that loaded the engine, warmed up and took samples: the unit of replication.

    `samples_ns` are what the case's mode defines as latency. `other_ns` are series beside it (such as
    `enqueue`). `wall_ns` spans all samples. `peak_memory_bytes` is the process's peak resident set on a
    CPU and the device-wide growth on a GPU.
    """

    samples_ns: Annotated[tuple[Positive, ...], Meta(min_length=1, max_length=1_000_000)]
    wall_ns: Positive
    load_ns: Count
    first_inference_ns: Count
    peak_memory_bytes: Count = 0
    other_ns: dict[Name, Series] = {}
    telemetry: Telemetry | None = None
    invalid: Text = ""

    @property
    def median_ns(self) -> float:
        return statistics.median(self.samples_ns)

    def percentile_ns(self, q: float) -> int:
        """The nearest-rank percentile, q in (0, 100]: sorted[ceil(q/100 * n) - 1]."""
        ordered = sorted(self.samples_ns)
        return ordered[max(0, math.ceil(q / 100 * len(ordered)) - 1)]


class EngineFacts(Record):
    """What is known of the engine that was measured. `layers` counts layers or nodes after
    optimisation; `precision_share` is the share of layers by element type, as realised (of weights, where
    a note says that the runtime tells no more). `layer_record` is the engine's layers as zlib-compressed
    JSON in base64; `unmet` says which asked-for precision was not realised."""

    digest: Sha256
    engine_bytes: Count
    build_ns: Count = 0
    cached: bool = False
    layers: Count = 0
    precision_share: dict[Name, Share] = {}
    device_memory_bytes: Count | None = None
    timing_cache_bytes: Count | None = None
    timing_cache_digest: str = ""
    layer_record: Packed = ""
    unmet: Text = ""
    notes: tuple[Text, ...] = ()


class Measured(Record, tag="measured"):
    """Launches to judge. `screen` holds earlier ones that made the case a suspect: shown, judged no more.
    `mode` is the mode that was really measured, where the case's default one could not be."""

    engine: EngineFacts | None
    launches: Annotated[tuple[Launch, ...], Meta(min_length=1, max_length=1000)]
    screen: Annotated[tuple[Launch, ...], Meta(max_length=1000)] = ()
    mode: Mode | None = None


class Unchanged(Record, tag="unchanged"):
    """Nothing to time: in the baseline's own environment the case digest is the same (`digest`), or the
    engine that was built is the same bytes and is used alike (`engine`)."""

    evidence: Literal["digest", "engine"] = "digest"


class NotRun(Record, tag="not-run"):
    """Listed on purpose as not run here; a skip is a value with a reason."""

    reason: Text


class Failed(Record, tag="failed"):
    """The case's own fault. `stage` is where it broke; `capture` is a network that no CUDA graph can hold,
    and `interrupted` nobody's fault but the hand's that ended the run."""

    stage: Literal["model", "build", "launch", "capture", "interrupted", "missing"]
    reason: Text
    stderr_tail: Text = ""


Outcome = Measured | Unchanged | NotRun | Failed

MetricColumns = Annotated[
    dict[Name, Annotated[tuple[float | int, ...], Meta(max_length=10_000)]], Meta(max_length=100)
]


class Interval(Record):
    """An estimate with a two-sided interval, as a ratio head / base."""

    estimate: float
    low: float
    high: float
    confidence: Share


class Judgement(Record):
    """The verdict on a case and the evidence for it. `base` and `head` hold one value a launch by metric
    (`latency_ns` is the median of a launch's samples)."""

    verdict: Verdict
    reason: Text
    ratio: Interval | None = None
    base: MetricColumns = {}
    head: MetricColumns = {}
    differences: tuple[Difference, ...] = ()


class CaseResult(Record):
    """A case, what became of it, and what the gate says of that."""

    case: Case
    outcome: Outcome
    case_digest: str = ""
    usage_digest: str = ""
    recipe: Recipe | None = None
    source_digest: str = ""
    judgement: Judgement | None = None


class Commit(Record):
    """The commit measured; `sha` is empty outside a git repository."""

    sha: Annotated[str, Meta(pattern=r"^([0-9a-f]{40}|[0-9a-f]{64}|)$")] = ""
    dirty: bool = False
    subject: Text = ""


class Summary(Record):
    """The run in a sentence: what a reader sees first. `next_steps` are commands or advice."""

    verdict: Verdict
    exit_code: Annotated[int, Meta(ge=0, le=3)]
    sentence: Text
    counts: dict[Name, Count] = {}
    next_steps: tuple[Text, ...] = ()


class RunResult(Record, kw_only=True):
    """One run: everything that was measured and judged; all reports render this and nothing else."""

    schema: Literal["perfgate-trt/results/v1"]
    run_id: Name
    created: Name
    perfgate: Name
    commit: Commit = Commit()
    environment: Environment
    protocol: Protocol
    cases: Annotated[tuple[CaseResult, ...], Meta(max_length=20_000)] = ()
    summary: Summary | None = None


class BaselineCase(Record, kw_only=True):
    """A promoted case: one value a launch by metric, with the identity that they belong to.

    `timing_cache` is the SHA-256 of the cache file beside the baseline that its engine was built with.
    """

    case_digest: Sha256
    usage_digest: str = ""
    onnx_digest: str = ""
    source_digest: str = ""
    engine_digest: str = ""
    mode: Mode = Mode()
    timing_cache: str = ""
    environment: Name
    metrics: MetricColumns
    promoted: Name
    commit: str = ""
    reason: Text


class Baseline(Record, kw_only=True):
    """The promoted cases of one model on one device and toolchain:
    `baselines/<device>/<toolchain>/<model>.json`. `environments` are referred to by digest."""

    schema: Literal["perfgate-trt/baseline/v1"]
    model: Name
    environments: dict[Name, Environment]
    cases: Annotated[dict[Name, BaselineCase], Meta(max_length=5_000)]


def to_builtins(record: object) -> Any:
    """A record as plain dictionaries, lists and scalars, for a renderer or a JSON writer."""
    return msgspec.to_builtins(record)
