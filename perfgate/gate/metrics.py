"""From launches to metrics: one value a launch, because the launch is the unit of replication."""

from __future__ import annotations

from collections.abc import Sequence

from perfgate.records import Launch, MetricColumns

# With fewer samples than this the 99th percentile of a launch rests on ten or less: shown, not judged.
P99_MIN_SAMPLES = 1001
_ABSURD = 1 << 62


def columns(launches: Sequence[Launch]) -> MetricColumns:
    """The metrics of some launches, as columns of equal length. `latency_ns` is a launch's median."""
    return {
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


def metrics_fault(metrics: MetricColumns) -> str | None:
    """Why stored columns cannot be judged against, or None."""
    lengths = {len(values) for values in metrics.values()}
    if len(lengths) != 1 or 0 in lengths or "latency_ns" not in metrics:
        return "needs latency_ns, and metrics of one equal length"
    if any(not 0 <= value < _ABSURD for values in metrics.values() for value in values):
        return "has a number that no measurement has"
    return None if min(metrics["latency_ns"]) >= 1 else "has a latency_ns below one nanosecond"
