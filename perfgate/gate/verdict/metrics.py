"""What is judged beside latency: other metrics, and absolute promises (SLOs)."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

import msgspec

from perfgate.gate.statistics.noise import Spread, interval, side_variance
from perfgate.gate.statistics.sequential import ALPHA, LEAST_LAUNCHES
from perfgate.gate.verdict.evidence import Evidence, ServiceLatency
from perfgate.records import (
    P99_MIN_SAMPLES,
    Case,
    Direction,
    Floor,
    Interval,
    Judgement,
    MetricColumns,
    MetricJudgement,
    Record,
    Verdict,
)

# Units by the end of a metric's name, the largest first.
_UNITS = (
    ("_ns", "s", 1e9),
    ("_ns", "ms", 1e6),
    ("_ns", "µs", 1e3),
    ("_ns", "ns", 1),
    ("_bytes", "MiB", 1 << 20),
    ("_bytes", "KiB", 1 << 10),
    ("_qps", "queries/s", 1),
)
_LOWER, _HIGHER = Direction.LOWER_IS_BETTER, Direction.HIGHER_IS_BETTER


class Metric(Record):
    """How one metric is judged. Red needs both: worse by more than `floor.relative` with certainty, and by
    more than `floor.absolute` in the metric's own unit. A `timed` one has a launch's luck and a run's in it;
    the others repeat exactly. An `advisory` one is shown and fails nothing."""

    direction: Direction
    floor: Floor
    timed: bool = False
    advisory: bool = False


# Each floor's reason beside it. Of the two that repeat exactly, device memory is handed out in 2 MiB pages.
METRICS: dict[str, Metric] = {
    # The latency's own luck is in it, and the latency is judged already: this is for streams side by side.
    "throughput_qps": Metric(direction=_HIGHER, floor=Floor(relative=0.02, absolute=0.0), timed=True),
    # An interrupt of the host takes some 10 µs; a tail rests on one sample in a hundred.
    "p99_ns": Metric(direction=_LOWER, floor=Floor(relative=0.05, absolute=10_000), timed=True),
    # A runtime's arenas and a host's page cache make a process 5 % larger without anybody's doing.
    "peak_memory_bytes": Metric(direction=_LOWER, floor=Floor(relative=0.05, absolute=16 << 20)),
    # Other tactics for the same layers move an engine by a few per cent.
    "engine_bytes": Metric(direction=_LOWER, floor=Floor(relative=0.10, absolute=1 << 20)),
    "device_memory_bytes": Metric(direction=_LOWER, floor=Floor(relative=0.10, absolute=4 << 20)),
    # Builds share the machine with whatever compiles beside them: told, never failed.
    "build_ns": Metric(direction=_LOWER, floor=Floor(relative=0.50, absolute=10_000_000_000), advisory=True),
}


def judge_metrics(
    base: MetricColumns,
    head: MetricColumns,
    spread: Spread,
    *,
    fresh: bool,
    floors: Mapping[str, Floor] | None = None,
    more: float = 0.0,
) -> tuple[MetricJudgement, ...]:
    """Every metric that both sides have, each in its own direction. `fresh` says that both sides were
    launched in turn just now, so that no run or machine lies between them; `floors` are the case's own, and
    `more` is what the luck of a build adds to the relative floor of a time."""
    found = []
    spread = msgspec.structs.replace(spread, run_cv=0.0) if fresh else spread
    for name, metric in METRICS.items():
        sides = tuple(_worth(name, columns) for columns in (base, head))
        # Where launches of both sides take turns, a time needs as many as a verdict on latency does.
        few = fresh and metric.timed and min(len(side) for side in sides) < LEAST_LAUNCHES
        if sides[0] and sides[1] and not few:
            floor = (floors or {}).get(name, metric.floor)
            if metric.timed:
                floor = Floor(relative=floor.relative + more, absolute=floor.absolute)
            found.append(_judge(name, metric, floor, sides, spread))
    return tuple(found)


def _worth(name: str, columns: MetricColumns) -> tuple[float, ...]:
    """A metric's values where they can be judged: positive, and a tail from enough samples a launch."""
    values = tuple(float(value) for value in columns.get(name, ()))
    if name == "p99_ns" and min(columns.get("samples", (0,)), default=0) < P99_MIN_SAMPLES:
        return ()
    return values if values and min(values) > 0 else ()


def _judge(
    name: str, metric: Metric, floor: Floor, sides: tuple[tuple[float, ...], ...], spread: Spread
) -> MetricJudgement:
    base, head = (statistics.median(side) for side in sides)
    ratio = _interval(sides, spread) if metric.timed else None
    sign = 1 if metric.direction is _LOWER else -1
    limit = math.log1p(floor.relative)
    # In the metric's bad direction: what is certain of the change, and what is certain of the gain.
    ends = [sign * math.log(end) for end in ((ratio.low, ratio.high) if ratio else (head / base,) * 2)]
    beyond = abs(head - base) > floor.absolute
    verdict = Verdict.PASS
    if beyond and min(ends) > limit:
        verdict = Verdict.REGRESSION
    elif beyond and max(ends) < -limit:
        verdict = Verdict.IMPROVEMENT
    share = (head / base - 1) * 100
    return MetricJudgement(
        metric=name,
        verdict=verdict,
        reason=f"{share:+.1f} %; {metric.direction.value}, floor {_floor(name, floor)}",
        ratio=ratio,
        base=base,
        head=head,
        advisory=metric.advisory,
    )


def _floor(name: str, floor: Floor) -> str:
    """Both halves of a floor, the absolute one in a unit that fits the metric; one of nothing is left out."""
    words = f"{floor.relative * 100:.3g} %"
    if not floor.absolute:
        return words
    for ending, unit, size in _UNITS:
        if name.endswith(ending) and floor.absolute >= size:
            return f"{words} and {floor.absolute / size:.4g} {unit}"
    return f"{words} and {floor.absolute:.4g}"


def _interval(sides: Sequence[Sequence[float]], spread: Spread) -> Interval:
    """Head / base at the gate's own certainty: several metrics a case must not cry wolf more often."""
    logs = [[math.log(value) for value in side] for side in sides]
    variance, dof = side_variance(logs, spread.launch_cv, spread.launch_dof)
    means = [math.fsum(side) / len(side) for side in logs]
    se2 = variance * (1 / len(logs[0]) + 1 / len(logs[1])) + 2 * spread.run_cv**2
    return interval(means[1] - means[0], math.sqrt(se2), dof, 1 - 2 * ALPHA)


def judge_slos(case: Case, judgement: Judgement, evidence: Evidence) -> Judgement:
    """A broken promise is a REGRESSION, whatever the baseline says; a verdict that is red or infrastructure's
    already keeps its own reason."""
    if judgement.verdict.exit_code:
        return judgement
    judgement = _engine_p99(case.slo.engine_p99_ms, judgement)
    return _service_p99(case, judgement, evidence.service)


def _engine_p99(limit_ms: float | None, judgement: Judgement) -> Judgement:
    """Closed loop: one query at a time, as the launches were taken."""
    seen = judgement.head or judgement.base
    if limit_ms is None or "p99_ns" not in seen:
        return judgement
    if min(seen["samples"], default=0) < P99_MIN_SAMPLES:
        return _noted(judgement, f"p99 not judged: a launch has fewer than {P99_MIN_SAMPLES} samples")
    p99_ms = statistics.median(seen["p99_ns"]) / 1e6
    if p99_ms <= limit_ms:
        return judgement
    broken = f"p99 is {p99_ms:.4g} ms, above the promise engine_p99_ms = {limit_ms:g}"
    return _broken(judgement, broken, "slo/engine_p99_ms")


def _service_p99(case: Case, judgement: Judgement, tail: ServiceLatency | None) -> Judgement:
    """Open loop, queueing included, at `service_qps`: a closed loop's tail says nothing of it."""
    limit_ms, qps = case.slo.service_p99_ms, case.slo.service_qps
    if limit_ms is None:
        return judgement
    if tail is None or tail.why or qps is None:
        why = tail.why if tail else "no launches to simulate"
        return _noted(judgement, f"service_p99_ms not judged: {why if qps else 'it names no load'}")
    verdict = Verdict.REGRESSION
    if tail.p99_ms is None:
        text = f"{qps:g} queries/s cannot be served: one lane serves {tail.capacity_qps:.4g}"
    else:
        verdict = Verdict.PASS if tail.p99_ms <= limit_ms else Verdict.REGRESSION
        seen = f"simulated p99 with queueing at {qps:g} queries/s is {tail.p99_ms:.4g} ms"
        text = f"{seen}, promised are service_p99_ms = {limit_ms:g}"
    found = MetricJudgement(metric="service_p99_ms", verdict=verdict, reason=text, head=tail.p99_ms)
    judgement = msgspec.structs.replace(judgement, metrics=(*judgement.metrics, found))
    if verdict is Verdict.PASS or judgement.verdict.exit_code:
        return judgement
    return _broken(judgement, text, "slo/service_p99_ms")


def _noted(judgement: Judgement, note: str) -> Judgement:
    return msgspec.structs.replace(judgement, reason=f"{judgement.reason}; {note}")


def _broken(judgement: Judgement, reason: str, code: str) -> Judgement:
    return msgspec.structs.replace(judgement, verdict=Verdict.REGRESSION, reason=reason, code=code)
