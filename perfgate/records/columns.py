"""How launches become metrics: columns with one value a launch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from perfgate.records.base import MetricColumns
from perfgate.records.launch import EngineFacts, Launch

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
