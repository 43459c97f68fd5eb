"""One case in full, for a renderer with room: launches, numbers, engine, differences, error output."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from perfgate.records import Failed, Measured, Unchanged
from perfgate.report import format as fmt
from perfgate.report.strip import Strip, strip
from perfgate.report.view import column, middle

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from perfgate.records import CaseResult, EngineFacts, Launch

LAUNCHES = 40
DIFFERENCES = 60
_PERCENTILES = (50, 90, 95, 99)
_METRICS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("throughput_qps", "throughput", fmt.rate),
    ("load_ns", "load", fmt.duration),
    ("first_inference_ns", "first inference", fmt.duration),
    ("peak_memory_bytes", "peak memory", fmt.size),
)


@dataclass(frozen=True)
class Detail:
    """What a case's own section shows. `launches` are rows of (number, baseline, head, samples, note)."""

    facts: tuple[tuple[str, str], ...]
    strip: Strip | None
    launches: tuple[tuple[str, str, str, str, str], ...]
    launches_hidden: int
    numbers: tuple[tuple[str, str, str], ...]
    differences: tuple[tuple[str, str, str], ...]
    differences_hidden: int
    error: str


def case_detail(result: CaseResult) -> Detail:
    """Everything that there is to say of one case."""
    launches = result.outcome.launches if isinstance(result.outcome, Measured) else ()
    rows = _launch_rows(result, launches)
    differences = () if result.judgement is None else result.judgement.differences
    base, head = column(result, "base", "latency_ns"), column(result, "head", "latency_ns")
    return Detail(
        facts=_facts(result),
        strip=strip(base[:1000], head[:1000], result.case.tolerance),
        launches=rows[:LAUNCHES],
        launches_hidden=max(0, len(rows) - LAUNCHES),
        numbers=_numbers(result, launches),
        differences=tuple(
            (fmt.line(d.field), fmt.line(d.base) or "(absent)", fmt.line(d.head) or "(absent)")
            for d in differences[:DIFFERENCES]
        ),
        differences_hidden=max(0, len(differences) - DIFFERENCES),
        error=fmt.tail(result.outcome.stderr_tail) if isinstance(result.outcome, Failed) else "",
    )


def _launch_rows(
    result: CaseResult, launches: Sequence[Launch]
) -> tuple[tuple[str, str, str, str, str], ...]:
    """Baseline and head side by side by launch number; the two of a row have nothing else in common."""
    base = column(result, "base", "latency_ns")
    # The head column of a confirmed case holds other launches than the outcome: then show the column.
    judged = column(result, "head", "latency_ns")
    own = len(judged) == sum(not launch.invalid for launch in launches)
    head: list[tuple[str, str, str]]
    if own:
        head = [(fmt.duration(x.median_ns), str(len(x.samples_ns)), fmt.line(x.invalid)) for x in launches]
    else:
        head = [(fmt.duration(value), "", "") for value in judged]
    rows = []
    for index in range(max(len(base), len(head))):
        left = fmt.duration(base[index]) if index < len(base) else ""
        right = head[index] if index < len(head) else ("", "", "")
        rows.append((str(index + 1), left, *right))
    return tuple(rows)


def _numbers(result: CaseResult, launches: Sequence[Launch]) -> tuple[tuple[str, str, str], ...]:
    """Rows of (metric, baseline, head), each the median over launches."""
    rows: list[tuple[str, float | None, float | None, Callable[[float], str]]] = []
    measured = _percentiles([launch for launch in launches if not launch.invalid])
    stored = {50: "latency_ns", 99: "p99_ns"}
    for q in _PERCENTILES:
        name = stored.get(q, "")
        base = middle(column(result, "base", name)) if name else None
        head = middle(column(result, "head", name)) if name else None
        head = measured.get(q) if head is None else head
        rows.append((f"p{q}", base, head, fmt.duration))
    for metric, label, show in _METRICS:
        base, head = middle(column(result, "base", metric)), middle(column(result, "head", metric))
        rows.append((label, base, head, show))
    return tuple(
        (label, fmt.NOTHING if base is None else show(base), fmt.NOTHING if head is None else show(head))
        for label, base, head, show in rows
        if base is not None or head is not None
    )


def _percentiles(launches: Sequence[Launch]) -> dict[int, float]:
    """The median over launches of each nearest-rank percentile; every launch is sorted once."""
    ordered = [sorted(launch.samples_ns) for launch in launches]
    if not ordered:
        return {}
    return {
        q: statistics.median(data[max(0, math.ceil(q / 100 * len(data)) - 1)] for data in ordered)
        for q in _PERCENTILES
    }


def _facts(result: CaseResult) -> tuple[tuple[str, str], ...]:
    case = result.case
    shape = ", ".join(f"{fmt.line(name, 60)} = {size}" for name, size in sorted(case.shape.items()))
    facts = [
        ("Backend", f"{fmt.line(case.backend)}, {case.precision}"),
        ("Shape", shape),
        ("Mode", str(case.mode)),
        ("Tolerance", f"ignore {fmt.share(case.tolerance.ignore)}, catch {fmt.share(case.tolerance.catch)}"),
        (
            "SLO",
            "" if case.slo.engine_p99_ms is None else f"engine p99 at most {case.slo.engine_p99_ms:g} ms",
        ),
        ("Source", fmt.line(case.source)),
    ]
    if isinstance(result.outcome, Measured):
        facts.append(("Screen", _screen(result.outcome.screen)))
        if result.outcome.engine is not None:
            facts += _engine(result.outcome.engine)
    if isinstance(result.outcome, Unchanged):
        facts.append(("Timing", "not timed: same case digest and environment as the baseline"))
    return tuple((name, value) for name, value in facts if value)


def _screen(launches: Sequence[Launch]) -> str:
    """Earlier launches that made the case a suspect; they are shown and not judged again."""
    if not launches:
        return ""
    medians = [launch.median_ns for launch in launches]
    spread = f"{fmt.duration(min(medians))} to {fmt.duration(max(medians))}"
    return f"{len(launches)} earlier launches, {spread}, not judged again"


def _engine(engine: EngineFacts) -> list[tuple[str, str]]:
    shares = sorted(engine.precision_share.items(), key=lambda item: (-item[1], item[0]))
    return [
        ("Engine", f"{fmt.size(engine.engine_bytes)}, {engine.digest[:12]}"),
        ("Build", "from the cache" if engine.cached else fmt.duration(engine.build_ns)),
        ("Layers", str(engine.layers) if engine.layers else ""),
        ("Precision", ", ".join(f"{fmt.line(name, 40)} {fmt.share(part)}" for name, part in shares[:20])),
        ("Device memory", "" if engine.device_memory_bytes is None else fmt.size(engine.device_memory_bytes)),
        ("Timing cache", "" if engine.timing_cache_bytes is None else fmt.size(engine.timing_cache_bytes)),
        ("Notes", fmt.line("; ".join(engine.notes), 600)),
    ]
