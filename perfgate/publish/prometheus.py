"""A result as Prometheus metrics: a text file for the node exporter, a push, or an exporter of its own.

Base units, as Prometheus wants them: seconds and bytes. Every series of a case has the same labels.
"""

from __future__ import annotations

import math
import statistics
import threading
import urllib.error
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest, push_to_gateway, start_http_server
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from perfgate.errors import InfrastructureError, PerfgateError, UsageError
from perfgate.publish.alerts import moment
from perfgate.records import CaseResult, Launch, Measured, RunResult, Unchanged, Verdict
from perfgate.util.files import write_bytes
from perfgate.util.http import split_url

LABELS: Final = ("model", "case", "precision", "shape", "backend", "device", "toolchain")
RUN_LABELS: Final = ("device", "toolchain")
PUSH_TIMEOUT_S: Final = 10.0
# Five a decade, from 10 µs to 10 s: the same for every case and for ever, so that series can be added up.
_STEPS: Final = (1, 1.6, 2.5, 4, 6.3)
BUCKETS_S: Final = (*(float(f"{step}e{decade}") for decade in range(-5, 1) for step in _STEPS), 10.0)

_CASE_GAUGES: Final = {
    "perfgate_latency_seconds": "Median of the launches' median latencies.",
    "perfgate_p99_latency_seconds": "Median of the launches' 99th percentiles, of any number of samples.",
    "perfgate_throughput_queries_per_second": "Median of the launches' throughputs.",
    "perfgate_launch_samples": "Samples of the launch that has the fewest; a p99 needs 1001.",
    "perfgate_device_memory_bytes": "Device memory that the engine asks for.",
    "perfgate_engine_size_bytes": "Size of the engine file.",
    "perfgate_build_seconds": "Time to build the engine; absent where it came from the cache.",
    "perfgate_ratio": "Latency of head over base, as the gate estimated it; above 1 is slower.",
    "perfgate_tolerance_catch_ratio": "Slowdown that the gate has to catch, as a share.",
    "perfgate_slo_p99_latency_seconds": "Promised closed-loop 99th percentile.",
    "perfgate_throttled_launches": "Launches during which the device was slowed down, for whatever reason.",
}


def registry(run: RunResult) -> CollectorRegistry:
    """A registry of its own that holds this run and nothing of this process."""
    made = CollectorRegistry()
    made.register(_Fixed(run))
    return made


def textfile(run: RunResult, path: Path) -> None:
    """Write the run for the node exporter's textfile collector, which must never see half a file."""
    write_bytes(path, generate_latest(registry(run)))


def push(run: RunResult, url: str, *, job: str = "perfgate", timeout_s: float = PUSH_TIMEOUT_S) -> None:
    """Replace what the Pushgateway holds of this job and device. Raises `InfrastructureError`.

    The toolchain is no part of the group: after an upgrade the old one's verdicts must go.
    """
    host = check_gateway(url)
    fault = None
    try:
        group = {"device": run.environment.device}
        push_to_gateway(url, job=job, registry=registry(run), grouping_key=group, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        fault = f"HTTP {error.code}"
        error.close()
    except (OSError, HTTPException, ValueError) as error:
        cause = getattr(error, "reason", error)
        late = isinstance(cause, TimeoutError)
        fault = f"no answer within {timeout_s:g} s" if late else f"no connection ({type(cause).__name__})"
    if fault is not None:
        raise InfrastructureError(f"nothing was pushed: {fault}", where=f"Pushgateway at {host}")


def check_gateway(url: str) -> str:
    """The host of a Pushgateway's URL. Raises `UsageError`, which never shows the URL."""
    parts = split_url(url)
    if (
        parts is None
        or parts.scheme not in ("http", "https")
        or parts.username
        or parts.query
        or parts.fragment
    ):
        raise UsageError(
            "is not the URL of a Pushgateway",
            where="--pushgateway",
            fix="http(s)://HOST:9091, without a user, a password or a query",
        )
    return f"{parts.hostname}{'' if parts.port is None else f':{parts.port}'}"


class _Fixed(Collector):
    def __init__(self, run: RunResult) -> None:
        self._run = run

    def collect(self) -> Iterator[Metric]:
        return families(self._run)


class Exporter(Collector):
    """Serves the metrics of a results file over HTTP, and reads it again when it changes.

    They are those of the last run that could be read; `perfgate_results_readable` is 0 while the file cannot.
    """

    def __init__(self, path: Path, read: Callable[[Path], RunResult], *, warn: Callable[[str], None]) -> None:
        self._path, self._read, self._warn = path, read, warn
        self._lock = threading.Lock()
        self._seen: tuple[int, int, int] | None = (-1, -1, -1)
        self._metrics: list[Metric] = []
        self._readable = False

    def serve(self, port: int, address: str, stop: threading.Event, ready: Callable[[int], None]) -> None:
        """Serve until `stop` is set; `ready` gets the port. Raises `InfrastructureError`."""
        served = CollectorRegistry()
        served.register(self)
        try:
            server, thread = start_http_server(port, addr=address, registry=served)
        except (OSError, OverflowError) as error:
            raise InfrastructureError(
                f"cannot listen: {error}", where=f"{address}:{port}", fix="choose another --port or --address"
            ) from error
        try:
            ready(server.server_port)
            # A wait without an end would not let some platforms run the signal's handler.
            while not stop.wait(1.0):
                pass
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            self._refresh()
            metrics, readable = self._metrics, self._readable
        yield GaugeMetricFamily(
            "perfgate_results_readable", "1 where the results file could be read.", value=float(readable)
        )
        yield from metrics

    def _refresh(self) -> None:
        try:
            status = self._path.stat()
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        except OSError:
            stamp = None
        if stamp is not None and stamp == self._seen:
            return
        was, self._seen = self._seen, stamp
        try:
            self._metrics = list(families(self._read(self._path)))
            self._readable = True
        except PerfgateError as error:
            if was != stamp:  # once for each state of the file, not once a scrape
                self._warn(str(error))
            self._readable = False


def families(run: RunResult) -> Iterator[Metric]:
    """Every metric of a run."""
    yield from _run_families(run)
    gauges = {name: GaugeMetricFamily(name, text, labels=LABELS) for name, text in _CASE_GAUGES.items()}
    verdicts = GaugeMetricFamily(
        "perfgate_verdict",
        "1 for the verdict that the case has, 0 for the others.",
        labels=(*LABELS, "verdict"),
    )
    samples = HistogramMetricFamily(
        "perfgate_sample_latency_seconds", "All samples of the judged launches.", labels=LABELS
    )
    for result in run.cases:
        labels = _labels(run, result)
        for name, value in _values(result).items():
            gauges[name].add_metric(labels, value)
        if result.judgement is not None:
            for verdict in Verdict:
                mine = float(verdict is result.judgement.verdict)
                verdicts.add_metric([*labels, verdict.value], mine)
        if isinstance(result.outcome, Measured):
            buckets, total = _histogram(result.outcome.launches)
            samples.add_metric(labels, buckets, total)
    yield from (*gauges.values(), verdicts, samples)


def _run_families(run: RunResult) -> Iterator[Metric]:
    labels = [run.environment.device, run.environment.toolchain]
    created = moment(run.created)
    if created is not None:
        stamp = GaugeMetricFamily("perfgate_run_timestamp_seconds", "When the run began.", labels=RUN_LABELS)
        stamp.add_metric(labels, created.timestamp())
        yield stamp
    if run.summary is not None:
        code = GaugeMetricFamily("perfgate_run_exit_code", "What the run exited with.", labels=RUN_LABELS)
        code.add_metric(labels, run.summary.exit_code)
        yield code
    info = GaugeMetricFamily(
        "perfgate_info", "Always 1; what ran.", labels=(*RUN_LABELS, "version", "commit", "run_id")
    )
    info.add_metric([*labels, run.perfgate, run.commit.sha, run.run_id], 1.0)
    yield info


def _labels(run: RunResult, result: CaseResult) -> list[str]:
    case = result.case
    shape = ",".join(f"{name}={size}" for name, size in sorted(case.shape.items()))
    where = run.environment
    return [case.model, case.id, case.precision, shape, case.backend, where.device, where.toolchain]


def _values(result: CaseResult) -> dict[str, float]:
    values: dict[str, float] = {"perfgate_tolerance_catch_ratio": result.case.tolerance.catch}
    if result.case.slo.engine_p99_ms is not None:
        values["perfgate_slo_p99_latency_seconds"] = result.case.slo.engine_p99_ms / 1e3
    if result.judgement is not None and result.judgement.ratio is not None:
        values["perfgate_ratio"] = result.judgement.ratio.estimate
    if isinstance(result.outcome, Measured):
        values |= _measured(result.outcome)
    elif isinstance(result.outcome, Unchanged) and result.judgement is not None:
        # Nothing was timed because the stored numbers hold: they are the case's numbers, without a gap.
        values |= _stored(result.judgement.head or result.judgement.base)
    return {name: value for name, value in values.items() if math.isfinite(value)}


def _measured(outcome: Measured) -> dict[str, float]:
    launches, engine = outcome.launches, outcome.engine
    slowed = sum(1 for one in launches if one.telemetry is not None and one.telemetry.slowdowns)
    values = {
        "perfgate_latency_seconds": statistics.median(one.median_ns for one in launches) / 1e9,
        "perfgate_p99_latency_seconds": statistics.median(one.percentile_ns(99) for one in launches) / 1e9,
        "perfgate_throughput_queries_per_second": statistics.median(
            len(one.samples_ns) / one.wall_ns * 1e9 for one in launches
        ),
        "perfgate_launch_samples": float(min(len(one.samples_ns) for one in launches)),
        "perfgate_throttled_launches": float(slowed),
    }
    if engine is not None:
        values["perfgate_engine_size_bytes"] = float(engine.engine_bytes)
        if engine.device_memory_bytes is not None:
            values["perfgate_device_memory_bytes"] = float(engine.device_memory_bytes)
        if engine.build_ns and not engine.cached:
            values["perfgate_build_seconds"] = engine.build_ns / 1e9
    return values


def _stored(metrics: Mapping[str, Sequence[float]]) -> dict[str, float]:
    wanted = {
        "latency_ns": ("perfgate_latency_seconds", 1e-9),
        "p99_ns": ("perfgate_p99_latency_seconds", 1e-9),
        "throughput_qps": ("perfgate_throughput_queries_per_second", 1.0),
    }
    values = {
        name: statistics.median(metrics[key]) * unit
        for key, (name, unit) in wanted.items()
        if metrics.get(key)
    }
    if metrics.get("samples"):
        values["perfgate_launch_samples"] = float(min(metrics["samples"]))
    return values


def _histogram(launches: Sequence[Launch]) -> tuple[list[tuple[str, float]], float]:
    """Cumulative counts by upper bound, and the sum in seconds."""
    bounds_ns = [round(bound * 1e9) for bound in BUCKETS_S]
    counts = [0] * (len(bounds_ns) + 1)
    total_ns = 0
    for launch in launches:
        for sample in launch.samples_ns:
            counts[bisect_left(bounds_ns, sample)] += 1
            total_ns += sample
    buckets, so_far = [], 0
    for bound, count in zip((*(f"{bound:g}" for bound in BUCKETS_S), "+Inf"), counts, strict=True):
        so_far += count
        buckets.append((bound, float(so_far)))
    return buckets, total_ns / 1e9
