"""The evidence beside a verdict: further metrics, confirmation, explanation, accuracy, telemetry."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from perfgate.records import (
    Accuracy,
    Agreement,
    Confirmation,
    Explanation,
    GraphChange,
    Launch,
    LayerChange,
    MetricJudgement,
    OutputAccuracy,
    Telemetry,
)
from perfgate.report import format as fmt
from perfgate.report.i18n import N_, gettext, ngettext
from perfgate.report.phrases import translate
from perfgate.report.run.view import Tag, absent, verdict_tag

LISTED = 40  # of anything; the JSON holds all of it
_LABELS = {
    "latency_ns": N_("latency"),
    "p99_ns": N_("p99"),
    "throughput_qps": N_("throughput"),
    "load_ns": N_("load"),
    "first_inference_ns": N_("first inference"),
    "peak_memory_bytes": N_("peak memory"),
    "device_memory_bytes": N_("device memory"),
    "engine_bytes": N_("engine size"),
    "build_ns": N_("build time"),
    "accuracy": N_("accuracy"),
    "service_p99_ms": N_("p99 with queueing"),
}
_CAUSES = {
    "un-fused": N_("Layers came apart"),
    "new-layers": N_("New layers"),
    "changed-layers": N_("Changed layers"),
    "kernel": N_("Other kernels"),
    "precision": N_("Another precision"),
    "reformat": N_("Reformatting"),
    "build": N_("Build luck"),
    "clock/power": N_("Clock or power"),
    "environment": N_("Environment"),
    "not-explained": N_("Not explained"),
    "nothing-changed": N_("Nothing changed"),
}
_LAYERS = {
    "appeared": N_("appeared"),
    "vanished": N_("vanished"),
    "un-fused": N_("came apart"),
    "fused": N_("fused"),
    "kernel": N_("other kernel"),
    "precision": N_("other precision"),
    "reformat": N_("reformat"),
    "slower": N_("slower"),
    "faster": N_("faster"),
}
_GRAPH = {
    "added": N_("added"),
    "removed": N_("removed"),
    "rewired": N_("rewired"),
    "attribute": N_("attribute"),
    "shape": N_("shape"),
    "initializer": N_("weights"),
    "opset": N_("opset"),
    "output": N_("output"),
}


@dataclass(frozen=True)
class Metric:
    """A metric beside latency, judged in its own direction."""

    label: str
    tag: Tag
    base: str
    head: str
    change: str
    range: str
    reason: str
    advisory: bool


@dataclass(frozen=True)
class Why:
    """An explanation: the cause in a sentence, and tables of what carries it."""

    kind: str
    cause: str
    facts: tuple[tuple[str, str], ...]
    layers: tuple[tuple[str, str, str, str, str, str, str], ...]
    layers_hidden: int
    graph: tuple[tuple[str, str, str], ...]
    graph_hidden: int
    differences: tuple[tuple[str, str, str], ...]
    differences_hidden: int
    unseen: tuple[str, ...]


@dataclass(frozen=True)
class Answers:
    """A case's outputs against the reference's. `outputs` are rows in the order of `ACCURACY_HEADS`."""

    reference: str
    failures: tuple[str, ...]
    task: tuple[str, str, str, str] | None
    outputs: tuple[tuple[str, str, str, str, str, str, str, str], ...]
    hidden: int
    notes: tuple[str, ...]


def metrics(judged: Iterable[MetricJudgement]) -> tuple[Metric, ...]:
    """The metrics beside latency, worst first."""
    rows = sorted(judged, key=lambda one: (verdict_tag(one.verdict.value).severity, one.metric))
    return tuple(_metric(one) for one in rows[:LISTED])


def _metric(one: MetricJudgement) -> Metric:
    ratio = one.ratio
    move = fmt.change if one.metric.endswith("_ns") else fmt.more
    return Metric(
        label=_word(_LABELS, one.metric),
        tag=verdict_tag(one.verdict.value),
        base=fmt.quantity(one.base, one.metric),
        head=fmt.quantity(one.head, one.metric),
        change=fmt.NOTHING if ratio is None else move(ratio.estimate),
        range="" if ratio is None else fmt.bounds(ratio),
        reason=translate(fmt.line(one.reason)),
        advisory=one.advisory,
    )


def _word(words: dict[str, str], kind: str) -> str:
    """A kind in the reader's words; one that is newer than these words is shown as it is."""
    return gettext(words[kind]) if kind in words else fmt.line(kind, 60)


def confirmation(one: Confirmation) -> tuple[tuple[str, str], ...]:
    """The paired confirmation as facts."""
    facts = [
        (N_("Fresh launches, base"), str(one.base_launches)),
        (N_("Fresh launches, head"), str(one.head_launches)),
        (N_("Outcome"), gettext("decided") if one.decided else gettext("undecided")),
        (N_("Log-likelihood ratio"), "" if one.log_likelihood is None else _number(one.log_likelihood)),
        (N_("More launches a side that it would take"), str(one.needed) if one.needed else ""),
        (N_("Device time"), fmt.duration(one.gpu_ns) if one.gpu_ns else ""),
        (N_("Base commit"), fmt.line(one.base_commit, 60)),
        (N_("Notes"), _joined([translate(fmt.line(note)) for note in one.notes])),
    ]
    return tuple((gettext(name), value) for name, value in facts if value)


def why(one: Explanation) -> Why:
    """The explanation, ready to show."""
    layers = sorted(one.layers, key=lambda layer: -(layer.share or 0.0))
    return Why(
        kind=_word(_CAUSES, one.kind),
        cause=translate(fmt.line(one.cause, 1_000)),
        facts=_totals(one),
        layers=tuple(_layer(layer) for layer in layers[:LISTED]),
        layers_hidden=max(0, len(layers) - LISTED),
        graph=tuple(_graph(change) for change in one.graph[:LISTED]),
        graph_hidden=max(0, len(one.graph) - LISTED),
        differences=tuple(
            (fmt.line(d.field), fmt.line(d.base) or absent(), fmt.line(d.head) or absent())
            for d in one.differences[:LISTED]
        ),
        differences_hidden=max(0, len(one.differences) - LISTED),
        unseen=tuple(translate(fmt.line(text)) for text in one.unseen[:LISTED]),
    )


def _totals(one: Explanation) -> tuple[tuple[str, str], ...]:
    facts = (
        (N_("Judged launches"), _sides(one.gated_base_ns, one.gated_head_ns)),
        (N_("Profiled launches"), _sides(one.profiled_base_ns, one.profiled_head_ns)),
        (N_("State that all layers share"), "" if one.state_ratio is None else fmt.percent(one.state_ratio)),
        (N_("Not explained"), "" if one.unexplained_ns is None else fmt.duration(one.unexplained_ns)),
        (N_("Layers matched"), "" if one.matched_share is None else fmt.share(one.matched_share)),
    )
    return tuple((gettext(name), value) for name, value in facts if value)


def _sides(base_ns: float | None, head_ns: float | None) -> str:
    if base_ns is None and head_ns is None:
        return ""
    return f"{fmt.duration(base_ns)} → {fmt.duration(head_ns)}"


def _layer(one: LayerChange) -> tuple[str, str, str, str, str, str, str]:
    share = fmt.NOTHING if one.share is None or not math.isfinite(one.share) else fmt.share(one.share)
    return (
        _word(_LAYERS, one.kind),
        _joined(one.base_layers) or absent(),
        _joined(one.head_layers) or absent(),
        fmt.duration(one.base_ns),
        fmt.duration(one.head_ns),
        share,
        translate(fmt.line(one.detail)),
    )


def _graph(one: GraphChange) -> tuple[str, str, str]:
    return _word(_GRAPH, one.kind), fmt.line(one.node), translate(fmt.line(one.what))


def answers(one: Accuracy) -> Answers:
    """The accuracy record, ready to show."""
    task = one.task
    return Answers(
        reference=fmt.line(one.reference),
        failures=tuple(translate(fmt.line(text)) for text in one.failures[:LISTED]),
        task=None
        if task is None
        else (
            fmt.line(task.name, 60),
            _number(task.reference),
            _number(task.head),
            ngettext("1 sample", "%(count)s samples", task.samples) % {"count": task.samples},
        ),
        outputs=tuple(_output(output) for output in one.outputs[:LISTED]),
        hidden=max(0, len(one.outputs) - LISTED),
        notes=tuple(translate(fmt.line(text)) for text in one.notes[:LISTED]),
    )


def _output(one: OutputAccuracy) -> tuple[str, str, str, str, str, str, str, str]:
    nonfinite = str(one.nonfinite)
    if one.nonfinite and one.first_nonfinite:
        nonfinite = f"{nonfinite} ({fmt.line(one.first_nonfinite, 80)})"
    return (
        fmt.line(one.output, 80),
        _number(one.max_abs_error),
        _number(one.max_rel_error),
        fmt.NOTHING if one.cosine is None else f"{one.cosine:.6f}",
        gettext("equal") if one.sqnr_db is None else f"{one.sqnr_db:.1f} dB",
        _agreement(one.top1),
        _agreement(one.top5),
        nonfinite,
    )


def _agreement(one: Agreement | None) -> str:
    if one is None:
        return fmt.NOTHING
    return f"{one.right}/{one.total} ({fmt.share(one.right / one.total)})"


def watched(launches: Sequence[Launch]) -> tuple[tuple[str, str], ...]:
    """What the device did in all launches of a case; nothing where none was watched."""
    seen = [launch.telemetry for launch in launches if launch.telemetry is not None]
    if not seen:
        return ()
    series = (
        (N_("SM clock"), [x for one in seen for x in one.sm_clock_mhz], "MHz"),
        (N_("Memory clock"), [x for one in seen for x in one.memory_clock_mhz], "MHz"),
        (N_("Power"), [x / 1000 for one in seen for x in one.power_mw], "W"),
        (N_("Temperature"), [x for one in seen for x in one.temperature_c], "°C"),
    )
    rows = tuple((gettext(name), _spread(values, unit)) for name, values, unit in series if values)
    return (*rows, *_watched_facts(seen))


def _spread(values: Sequence[float], unit: str) -> str:
    least, middle, most = (f"{x:.4g}" for x in (min(values), statistics.median(values), max(values)))
    if least == most:
        return f"{middle} {unit}"
    words = gettext("median %(median)s, %(range)s")
    return words % {"median": f"{middle} {unit}", "range": fmt.between(least, f"{most} {unit}")}


def _watched_facts(seen: Sequence[Telemetry]) -> tuple[tuple[str, str], ...]:
    energy = [one.energy_mj for one in seen if one.energy_mj is not None]
    errors = [one.ecc_errors for one in seen if one.ecc_errors is not None]
    others = [one.foreign_cpu for one in seen if one.foreign_cpu is not None]
    pids = sorted({pid for one in seen for pid in one.foreign_pids})
    slowed = sum((Counter(one.violations_ns) for one in seen), Counter[str]())
    missing = {
        fmt.line(name, 60): fmt.line(why, 120) for one in seen for name, why in one.unavailable.items()
    }
    facts = (
        (N_("Energy"), f"{sum(energy) / 1000:.4g} J" if energy else ""),
        (
            N_("Slowdowns"),
            ", ".join(sorted({fmt.line(name, 60) for one in seen for name in one.slowdowns})[:20]),
        ),
        (
            N_("Time slowed"),
            ", ".join(f"{fmt.line(name, 60)} {fmt.duration(ns)}" for name, ns in sorted(slowed.items())),
        ),
        (N_("Other processes"), ", ".join(map(str, pids[:20]))),
        (N_("Processors used by others, at most"), fmt.share(max(others)) if others else ""),
        (N_("ECC errors"), str(sum(errors)) if sum(errors) else ""),
        (N_("Memory in use, at most"), _most(one.peak_used_bytes for one in seen)),
        (N_("Memory in use before, unexplained"), _most(one.unexplained_bytes for one in seen)),
        (N_("Not readable"), ", ".join(f"{name} ({why})" for name, why in sorted(missing.items())[:20])),
    )
    return tuple((gettext(name), value) for name, value in facts if value)


def _most(sizes: Iterable[int]) -> str:
    most = max(sizes)
    return fmt.size(most) if most else ""


def _joined(texts: Sequence[str]) -> str:
    more = f", … {len(texts) - LISTED}" if len(texts) > LISTED else ""
    return fmt.line(", ".join(fmt.line(text, 200) for text in texts[:LISTED]), 600) + more


def _number(value: float | None) -> str:
    return fmt.NOTHING if value is None or not math.isfinite(value) else f"{value:.4g}"
