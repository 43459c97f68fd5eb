"""One case in full, for a renderer with room: launches, numbers, engine, differences, error output."""

from __future__ import annotations

import itertools
import math
import shlex
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from perfgate.records import (
    CaseResult,
    EngineFacts,
    Failed,
    Launch,
    Measured,
    RunResult,
    Tolerance,
    Unchanged,
)
from perfgate.records.trend import Trend
from perfgate.report import format as fmt
from perfgate.report.i18n import N_, gettext
from perfgate.report.phrases import translate
from perfgate.report.run import evidence
from perfgate.report.run.strip_plot import Strip, strip
from perfgate.report.run.view import absent, column, middle
from perfgate.report.trend.section import Past, past

LAUNCHES = 40
DIFFERENCES = 60
_PERCENTILES = (50, 90, 95, 99)
_METRICS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("throughput_qps", N_("throughput"), fmt.rate),
    ("load_ns", N_("load"), fmt.duration),
    ("deserialisation_ns", N_("of which deserialisation"), fmt.duration),
    ("first_inference_ns", N_("first inference"), fmt.duration),
    ("peak_memory_bytes", N_("peak memory"), fmt.size),
)


_BRIEF = (_METRICS[0], _METRICS[-1])


@dataclass(frozen=True)
class Detail:
    """What a case's own section shows. `launches` are rows of (number, baseline, head, samples, note)."""

    brief: bool
    facts: tuple[tuple[str, str], ...]
    strip: Strip | None
    launches: tuple[tuple[str, str, str, str, str], ...]
    launches_hidden: int
    numbers: tuple[tuple[str, str, str], ...]
    differences: tuple[tuple[str, str, str], ...]
    differences_hidden: int
    error: str
    metrics: tuple[evidence.Metric, ...]
    confirmation: tuple[tuple[str, str], ...]
    explanation: evidence.Why | None
    accuracy: evidence.Answers | None
    telemetry: tuple[tuple[str, str], ...]
    commands: tuple[str, ...]
    past: Past | None = None


def case_detail(
    run: RunResult, result: CaseResult, *, trend: Trend | None = None, brief: bool = False
) -> Detail:
    """Everything that there is to say of one case; `brief` leaves the launches to the plot and the JSON."""
    launches = result.outcome.launches if isinstance(result.outcome, Measured) else ()
    numbers = _numbers(result, launches, brief)
    rows = () if brief else _launch_rows(result, launches)
    judged = result.judgement
    differences = () if judged is None else judged.differences
    base, head = column(result, "base", "latency_ns"), column(result, "head", "latency_ns")
    return Detail(
        brief=brief,
        facts=(*_facts(result, brief), *(_sides(numbers) if brief else ())),
        strip=strip(base[:1000], head[:1000], _tolerance(result), None if judged is None else judged.ratio),
        launches=rows[:LAUNCHES],
        launches_hidden=max(0, len(rows) - LAUNCHES),
        numbers=() if brief else numbers,
        differences=tuple(
            (fmt.line(d.field), fmt.line(d.base) or absent(), fmt.line(d.head) or absent())
            for d in differences[:DIFFERENCES]
        ),
        differences_hidden=max(0, len(differences) - DIFFERENCES),
        error=fmt.tail(result.outcome.stderr_tail) if isinstance(result.outcome, Failed) else "",
        metrics=() if judged is None else evidence.metrics(judged.metrics),
        confirmation=(
            ()
            if judged is None or judged.confirmation is None
            else evidence.confirmation(judged.confirmation)
        ),
        explanation=None if result.explanation is None else evidence.why(result.explanation),
        accuracy=None if result.accuracy is None else evidence.answers(result.accuracy),
        telemetry=() if brief else evidence.watched(launches),
        commands=_commands(run, result),
        past=None if trend is None else past(trend),
    )


def _commands(result: RunResult, case: CaseResult) -> tuple[str, ...]:
    """How to see it again: the tree that was measured, and this case alone."""
    tree = result.commit.sha and not result.commit.dirty
    checkout = (f"git switch --detach {result.commit.sha}",) if tree else ()
    return (*checkout, f"perfgate run -k {shlex.quote(fmt.line(case.case.id))} --remeasure")


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
        head = [
            (fmt.duration(x.median_ns), str(len(x.samples_ns)), translate(fmt.line(x.invalid)))
            for x in launches
        ]
    else:
        head = [(fmt.duration(value), "", "") for value in judged]
    return tuple(
        (str(number), "" if left is None else fmt.duration(left), *(right or ("", "", "")))
        for number, (left, right) in enumerate(itertools.zip_longest(base, head), start=1)
    )


def _numbers(result: CaseResult, launches: Sequence[Launch], brief: bool) -> tuple[tuple[str, str, str], ...]:
    """Rows of (metric, baseline, head), each the median over launches."""
    rows: list[tuple[str, float | None, float | None, Callable[[float], str]]] = []
    own = result.outcome.base_launches if isinstance(result.outcome, Measured) else ()
    measured, of_base = ({}, {}) if brief else (_percentiles(launches), _percentiles(own))
    stored = {50: "latency_ns", 99: "p99_ns"}
    for q in _PERCENTILES:
        name = stored.get(q, "")
        base = middle(column(result, "base", name)) if name else None
        head = middle(column(result, "head", name)) if name else None
        head = measured.get(q) if head is None else head
        base = of_base.get(q) if base is None else base
        rows.append((f"p{q}", base, head, fmt.duration))
    for metric, label, show in _BRIEF if brief else _METRICS:
        base, head = middle(column(result, "base", metric)), middle(column(result, "head", metric))
        rows.append((gettext(label), base or None, head or None, show))  # 0: it was not measured
    return tuple(
        (label, fmt.NOTHING if base is None else show(base), fmt.NOTHING if head is None else show(head))
        for label, base, head, show in rows
        if base is not None or head is not None
    )


def _sides(numbers: Sequence[tuple[str, str, str]]) -> list[tuple[str, str]]:
    """Numbers as facts, without the percentiles, which the table of all cases has."""
    return [(label, f"{base} → {head}") for label, base, head in numbers if label not in ("p50", "p99")]


def _percentiles(launches: Sequence[Launch]) -> dict[int, float]:
    """The median over valid launches of each nearest-rank percentile; every launch is sorted once."""
    ordered = [sorted(launch.samples_ns) for launch in launches if not launch.invalid]
    if not ordered:
        return {}
    return {
        q: statistics.median(data[max(0, math.ceil(q / 100 * len(data)) - 1)] for data in ordered)
        for q in _PERCENTILES
    }


def _tolerance(result: CaseResult) -> Tolerance:
    """What the verdict was held by: the case's own, or what build luck made of it."""
    wider = result.judgement.tolerance if result.judgement else None
    return wider or result.case.tolerance


def _facts(result: CaseResult, brief: bool) -> tuple[tuple[str, str], ...]:
    case = result.case
    shape = ", ".join(f"{fmt.line(name, 60)} = {size}" for name, size in sorted(case.shape.items()))
    held = _tolerance(result)
    tolerance = {"ignore": fmt.share(held.ignore), "catch": fmt.share(held.catch)}
    limit = case.slo.engine_p99_ms
    facts = [
        (N_("Backend"), f"{fmt.line(case.backend)}, {case.precision}"),
        (N_("Shape"), shape),
        (N_("Mode"), _mode(result)),
        (N_("Tolerance"), gettext("ignore %(ignore)s, catch %(catch)s") % tolerance),
        (
            N_("SLO"),
            "" if limit is None else gettext("engine p99 at most %(limit)s ms") % {"limit": f"{limit:g}"},
        ),
        (N_("Source"), fmt.line(case.source)),
    ]
    if isinstance(result.outcome, Measured):
        facts.append((N_("Screen"), _screen(result.outcome.screen)))
        if result.outcome.engine is not None:
            facts += _engine(result.outcome.engine)[: -1 if brief else None]
    if isinstance(result.outcome, Unchanged):
        facts.append((N_("Timing"), gettext(_UNCHANGED.get(result.outcome.evidence, ""))))
    return tuple((gettext(name), value) for name, value in facts if value)


_UNCHANGED = {
    "digest": N_("not timed: same case digest and environment as the baseline"),
    "engine": N_("not timed: the engine is the baseline's, byte for byte"),
}


def _mode(result: CaseResult) -> str:
    measured = result.outcome.mode if isinstance(result.outcome, Measured) else None
    return str(measured or result.case.mode)


def _screen(launches: Sequence[Launch]) -> str:
    """Earlier launches that made the case a suspect; they are shown and not judged again."""
    if not launches:
        return ""
    medians = [launch.median_ns for launch in launches]
    spread = fmt.between(fmt.duration(min(medians)), fmt.duration(max(medians)))
    words = gettext("%(count)s earlier launches, %(range)s, not judged again")
    return words % {"count": len(launches), "range": spread}


def _engine(engine: EngineFacts) -> list[tuple[str, str]]:
    shares = sorted(engine.precision_share.items(), key=lambda item: (-item[1], item[0]))
    return [
        (N_("Engine"), f"{fmt.size(engine.engine_bytes)}, {engine.digest[:12]}"),
        (N_("Build"), gettext("from the cache") if engine.cached else fmt.duration(engine.build_ns)),
        (N_("Layers"), str(engine.layers) if engine.layers else ""),
        (N_("Precision"), ", ".join(f"{fmt.line(name, 40)} {fmt.share(part)}" for name, part in shares[:20])),
        (N_("Not realised"), fmt.line(engine.unmet)),
        (
            N_("Device memory"),
            "" if engine.device_memory_bytes is None else fmt.size(engine.device_memory_bytes),
        ),
        (
            N_("Timing cache"),
            "" if engine.timing_cache_bytes is None else fmt.size(engine.timing_cache_bytes),
        ),
        (N_("Notes"), fmt.line("; ".join(note[:2_000] for note in engine.notes[:20]), 600)),
    ]
