"""What was measured: launches and their metrics, telemetry, the engine, and the machine that they ran on."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Annotated, Final, Literal

from msgspec import Meta

from perfgate.errors import CaseError
from perfgate.records.base import (
    Count,
    Facts,
    MetricColumns,
    Name,
    Packed,
    Positive,
    Record,
    Series,
    Sha256,
    Share,
    Text,
)
from perfgate.records.case import Mode

Tf32 = Literal["on", "off", "convolutions only", "matrix products only"]


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
    `enqueue`). `wall_ns` spans all samples. `load_ns` is all that comes before the first inference is asked
    for, of which `deserialisation_ns` is the engine's own. `first_inference_ns` is the first execution, which
    in a CUDA graph's mode is run while loading. `peak_memory_bytes` is the process's peak resident set on a
    CPU and the device-wide growth on a GPU; 0 where it is not known, which is never judged.
    """

    samples_ns: Annotated[tuple[Positive, ...], Meta(min_length=1, max_length=1_000_000)]
    wall_ns: Positive
    load_ns: Count
    first_inference_ns: Count
    deserialisation_ns: Count | None = None
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


class TimingKeys(Record):
    """A timing cache's entries: `loaded` were there before the build, which `added` those it missed and
    `changed` the tactic (by its hash) of others."""

    loaded: Count
    added: Count
    changed: Count


class EngineFacts(Record, kw_only=True):
    """What is known of the engine that was measured. `onnx_digest` is the graph that it was built for.
    `layers` counts layers or nodes after optimisation; `precision_share` is the share of layers by element
    type, as realised (of weights, where a note says that the runtime tells no more). `timing_cache_bytes` is
    the timing cache's size after the build, `timing_cache_loaded_bytes` what of it was there before, and
    `timing_cache_keys` its entries (None before TensorRT 10.8, which lists none). `layer_record` is the
    engine's layers as zlib-compressed JSON in base64; `unmet` says which asked-for precision was not
    realised. `tf32` says which FP32 products may round to TF32; None where it is unknown, and where FP16 was
    asked for."""

    digest: Sha256
    onnx_digest: str = ""
    engine_bytes: Count
    build_ns: Count = 0
    cached: bool = False
    layers: Count = 0
    precision_share: dict[Name, Share] = {}
    device_memory_bytes: Count | None = None
    timing_cache_bytes: Count | None = None
    timing_cache_loaded_bytes: Count | None = None
    timing_cache_keys: TimingKeys | None = None
    timing_cache_digest: str = ""
    layer_record: Packed = ""
    unmet: Text = ""
    tf32: Tf32 | None = None
    notes: tuple[Text, ...] = ()


class Measured(Record, tag="measured"):
    """Launches to judge. `screen` holds earlier ones that made the case a suspect: shown, judged no more.
    `mode` is the mode that was really measured, where the case's default one could not be. `base_launches`
    are base's own, taken in turn with `launches`; `shown` are launches of either side that lay far outside,
    were measured again and did not recur, or that were invalid."""

    engine: EngineFacts | None
    launches: Annotated[tuple[Launch, ...], Meta(min_length=1, max_length=1000)]
    screen: Annotated[tuple[Launch, ...], Meta(max_length=1000)] = ()
    mode: Mode | None = None
    base_launches: Annotated[tuple[Launch, ...], Meta(max_length=1000)] = ()
    shown: Annotated[tuple[Launch, ...], Meta(max_length=1000)] = ()


class Unchanged(Record, tag="unchanged"):
    """Nothing to time: in the baseline's own environment the case digest is the same (`digest`), or the
    engine that was built is the same bytes and is used alike (`engine`)."""

    evidence: Literal["digest", "engine"] = "digest"


class NotRun(Record, tag="not-run"):
    """Listed on purpose as not run here; a skip is a value with a reason."""

    reason: Text


Stage = Literal["model", "build", "launch", "capture", "interrupted", "missing"]


class Failed(Record, tag="failed"):
    """The case's own fault. `stage` is where it broke; `capture` is a network that no CUDA graph can hold,
    and `interrupted` nobody's fault but the hand's that ended the run."""

    stage: Stage
    reason: Text
    stderr_tail: Text = ""

    @classmethod
    def by(cls, stage: Stage, error: CaseError) -> Failed:
        """What a room reported by raising."""
        return cls(stage=stage, reason=error.reason, stderr_tail=error.stderr_tail)


Outcome = Measured | Unchanged | NotRun | Failed


# With fewer samples than this the 99th percentile of a launch rests on ten or less: shown, not judged.
P99_MIN_SAMPLES: Final = 1001
_ABSURD = 1 << 62
# Facts of the engine, the same in every launch.
ENGINE_COLUMNS = ("engine_bytes", "device_memory_bytes", "build_ns")


def columns(launches: Sequence[Launch], engine: EngineFacts | None = None) -> MetricColumns:
    """The metrics of some launches, as columns of equal length. `latency_ns` is a launch's median; what is
    known of the engine stands in every row."""
    found: MetricColumns = {
        "latency_ns": tuple(round(launch.median_ns) for launch in launches),
        "p99_ns": tuple(launch.percentile_ns(99) for launch in launches),
        "samples": tuple(len(launch.samples_ns) for launch in launches),
        "load_ns": tuple(launch.load_ns for launch in launches),
        "first_inference_ns": tuple(launch.first_inference_ns for launch in launches),
        "peak_memory_bytes": tuple(launch.peak_memory_bytes for launch in launches),
        "throughput_qps": tuple(
            round(len(launch.samples_ns) / launch.wall_ns * 1e9, 3) for launch in launches
        ),
    }
    if engine:
        known = {
            "engine_bytes": engine.engine_bytes,
            "device_memory_bytes": engine.device_memory_bytes,
            "build_ns": None if engine.cached else engine.build_ns or None,
        }
        found |= {name: (value,) * len(launches) for name, value in known.items() if value is not None}
    return found


def metrics_fault(metrics: MetricColumns) -> str | None:
    """Why stored columns cannot be judged against, or None."""
    lengths = {len(values) for values in metrics.values()}
    if len(lengths) != 1 or 0 in lengths or "latency_ns" not in metrics:
        return "needs latency_ns, and metrics of one equal length"
    if any(not 0 <= value < _ABSURD for values in metrics.values() for value in values):
        return "has a number that no measurement has"
    return None if min(metrics["latency_ns"]) >= 1 else "has a latency_ns below one nanosecond"
