"""A whole run, its shards and legs, the baselines that runs are promoted to, and precisions side by side."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta

from perfgate.records.base import Count, MetricColumns, Name, Positive, Precision, Record, Sha256, Text
from perfgate.records.case import Accuracy, Case, Mode, Protocol, Recipe
from perfgate.records.judgement import Explanation, Judgement, Verdict
from perfgate.records.launch import Environment, Outcome
from perfgate.records.manifest import Manifest


class Scope(Record):
    """Share `shard` of `shards` of the cases in `plan`, on the leg `leg`: a runner's label, mostly."""

    leg: Name
    plan: Annotated[tuple[Name, ...], Meta(max_length=20_000)]
    shard: Annotated[int, Meta(ge=1, le=1_000)] = 1
    shards: Annotated[int, Meta(ge=1, le=1_000)] = 1


StageName = Literal["export", "conversion", "calibration", "reference"]


class Stages(Record):
    """Nanoseconds by the wall clock, each where the work was really done; a stage whose product came from a
    cache (`cached`) keeps what it took when it was made, and is in `unknown` where that was not kept.
    None, and not `unknown`, is a stage that this case has not.

    `export_ns`: the model script wrote the ONNX file. `conversion_ns`: that graph became the precision's.
    `calibration_ns`: of it, reading the calibration data, running the network on it, and placing the scales.
    `reference_ns`: the reference answered. `verification_ns`: the engine answered and was held against it.
    The build is `EngineFacts.build_ns`, loads and first inferences are each launch's own.
    """

    export_ns: Count | None = None
    conversion_ns: Count | None = None
    calibration_ns: Count | None = None
    reference_ns: Count | None = None
    verification_ns: Count | None = None
    cached: Annotated[tuple[StageName, ...], Meta(max_length=10)] = ()
    unknown: Annotated[tuple[StageName, ...], Meta(max_length=10)] = ()


RESULTS_SCHEMA: Final = "perfgate-trt/results/v1"

BASELINE_SCHEMA: Final = "perfgate-trt/baseline/v1"


class CaseResult(Record):
    """A case, what became of it, and what the gate says of that."""

    case: Case
    outcome: Outcome
    case_digest: str = ""
    usage_digest: str = ""
    recipe: Recipe | None = None
    source_digest: str = ""
    file_digest: str = ""
    judgement: Judgement | None = None
    accuracy: Accuracy | None = None
    explanation: Explanation | None = None
    stages: Stages | None = None


class PolicyChange(Record):
    """What a change would alter in its own judge; in force after the merge. `where` is a file and key."""

    where: Text
    base: Text
    head: Text


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
    """One run: everything that was measured and judged; all reports render this and nothing else.

    `base` is the commit that the change starts from; `policy_changes` is what it alters in its judge.
    `base_environment` is there where base was built and launched beside head, with a toolchain of its own;
    `scope` where the run is a shard of a larger one. `manifests` say what the scripts of each model
    read. `probe_ns` is how long it took to load the backend's
    library, find its device and take the environment's fingerprint."""

    schema: Literal["perfgate-trt/results/v1"]
    run_id: Name
    created: Name
    perfgate: Name
    commit: Commit = Commit()
    environment: Environment
    protocol: Protocol
    base: Commit = Commit()
    base_environment: Environment | None = None
    policy_changes: Annotated[tuple[PolicyChange, ...], Meta(max_length=1_000)] = ()
    cases: Annotated[tuple[CaseResult, ...], Meta(max_length=20_000)] = ()
    manifests: Annotated[dict[Name, tuple[Manifest, ...]], Meta(max_length=20_000)] = {}
    summary: Summary | None = None
    scope: Scope | None = None
    probe_ns: Count = 0


class BaselineRun(Record):
    """One of several runs that were promoted together; its launches follow those of the runs before it."""

    run_id: Name
    created: Name
    launches: Positive
    commit: str = ""


class BaselineCase(Record, kw_only=True):
    """A promoted case: one value a launch by metric, with the identity that they belong to.

    `timing_cache` is the SHA-256 of the cache file beside the baseline that its engine was built with.
    `runs` groups the launches; without it all are of one run.
    """

    case_digest: Sha256
    usage_digest: str = ""
    onnx_digest: str = ""
    file_digest: str = ""
    source_digest: str = ""
    engine_digest: str = ""
    mode: Mode = Mode()
    timing_cache: str = ""
    environment: Name
    metrics: MetricColumns
    runs: Annotated[tuple[BaselineRun, ...], Meta(max_length=1_000)] = ()
    promoted: Name
    commit: str = ""
    reason: Text
    accuracy: Accuracy | None = None


class Baseline(Record, kw_only=True):
    """The promoted cases of one model on one device and toolchain:
    `baselines/<device>/<toolchain>/<model>.json`. `environments` are referred to by digest;
    `manifests` are of the scripts that made the model and its calibration data."""

    schema: Literal["perfgate-trt/baseline/v1"]
    model: Name
    environments: dict[Name, Environment]
    cases: Annotated[dict[Name, BaselineCase], Meta(max_length=5_000)]
    manifests: Annotated[tuple[Manifest, ...], Meta(max_length=100)] = ()


class Leg(Record):
    """All shards of one leg as one run, or why there is none. A leg with a fault is never green."""

    name: Name
    result: RunResult | None = None
    faults: Annotated[tuple[Text, ...], Meta(max_length=1_000)] = ()

    @property
    def exit_code(self) -> int:
        """1 is the commit's fault and wins; what is missing or does not fit is the infrastructure's."""
        summary = self.result.summary if self.result else None
        if summary is not None and summary.exit_code == 1:
            return 1
        return 3 if self.faults or summary is None else summary.exit_code


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
