"""A `BusinessCase` as words and formatted numbers, shared by its renderers. Computes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from perfgate.report import format as fmt
from perfgate.report.i18n import gettext as _, language
from perfgate.report.value import wording as words
from perfgate.report.value.notes import assumptions, warnings
from perfgate.report.value.paragraph import paragraph
from perfgate.value.business import BusinessCase, Capacity, Figures, Line


@dataclass(frozen=True)
class CaseRow:
    """One metric: both stacks' cells, the change in words, and whether it is better (a word and a tone)."""

    name: str
    original: str
    tensorrt: str
    change: str = ""
    verdict: str = ""
    tone: str = ""


@dataclass(frozen=True)
class SmallTable:
    """A table of words under a heading; the first column names its rows."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class CaseView:
    """The page, ready to show."""

    title: str
    heading: str
    subtitle: str
    original: str
    tensorrt: str
    paragraph: str
    warnings: tuple[str, ...]
    rows: tuple[CaseRow, ...]
    tables: tuple[SmallTable, ...]
    assumptions: tuple[str, ...]
    made: str

    @property
    def grid(self) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
        """The table's heads and its rows of cells."""
        rows = [(row.name, row.original, row.tensorrt, row.change, row.verdict) for row in self.rows]
        return (_("Metric"), self.original, self.tensorrt, _("Change"), ""), rows


def case_view(case: BusinessCase) -> CaseView:
    """Everything that a renderer shows, in the language being spoken."""
    title, name = fmt.line(case.title), words.stack_name(case.tensorrt)
    return CaseView(
        title=title,
        heading=_("What does %(name)s buy for %(title)s?") % {"name": name, "title": title},
        subtitle=_("%(device)s; original against %(name)s") % {"device": fmt.line(case.device), "name": name},
        original=_head(case.original),
        tensorrt=_head(case.tensorrt),
        paragraph=paragraph(case),
        warnings=tuple(warnings(case)),
        rows=(*(_row(line, case) for line in case.lines), *_savings(case)),
        tables=tuple(table for table in (_promises(case), _stages(case)) if table.rows),
        assumptions=assumptions(case),
        made=fmt.line(case.made, 60),
    )


def _head(side: Figures) -> str:
    """A stack's name over its column, marked where nobody measured it."""
    name = fmt.line(" ".join(part for part in (side.label, side.precision.upper()) if part))
    marks = {"given": _("given, not measured"), "stored": _("stored baseline"), "measured": ""}
    mark = marks[side.source]
    return f"{name} ({mark})" if mark else name


def _row(line: Line, case: BusinessCase) -> CaseRow:
    return CaseRow(
        name=_(words.NAMES[line.metric]),
        original=_cell(line.metric, case.original, line.original, case),
        tensorrt=_cell(line.metric, case.tensorrt, line.tensorrt, case),
        change=words.direction(line),
        verdict=words.verdict(line),
        tone={"better": "green", "worse": "red"}.get(line.outcome, ""),
    )


def _cell(metric: str, side: Figures, value: float | None, case: BusinessCase) -> str:
    if metric == "capacity_per_s":
        return _capacity(side.capacity)
    if value is None:
        return fmt.NOTHING
    if metric in ("latency_ms", "p99_ms"):
        return _at_batch(words.milliseconds(value), side.latency_batch, side)
    if metric in ("queries_per_s", "items_per_s"):
        return _at_batch(words.per_second(value), side.throughput_batch, side)
    if metric == "memory_gb":
        return _at_batch(words.gigabytes(value), side.throughput_batch, side)
    if metric == "deploy_hours":
        text = words.hours(value)
        return _("%(value)s, given") % {"value": text} if side.deploy_given else text
    if metric == "instances":
        return _instances(side)
    return words.money(value, case.terms.currency)


def _at_batch(text: str, batch: int, side: Figures) -> str:
    if side.source == "given":
        return text
    return _("%(value)s (batch %(batch)s)") % {"value": text, "batch": batch}


def _instances(side: Figures) -> str:
    found = side.fleet
    if found is None:
        return fmt.NOTHING
    if found.gpus_per_instance == 1:
        return words.count(found.instances)
    return _("%(instances)s (%(gpus)s GPUs needed, %(each)s in an instance)") % {
        "instances": words.count(found.instances),
        "gpus": words.count(found.gpus),
        "each": found.gpus_per_instance,
    }


def _capacity(capacity: Capacity | None) -> str:
    if capacity is None:
        return fmt.NOTHING
    if not capacity.met:
        return _("cannot meet %(limit)s on this GPU") % {"limit": words.milliseconds(capacity.limit_ms)}
    if capacity.source == "given":
        return _("%(value)s, given") % {"value": words.per_second(capacity.per_s)}
    return _("%(value)s simulated [%(low)s to %(high)s]; offline bound %(bound)s") % {
        "value": words.per_second(capacity.per_s),
        "low": words.count(capacity.low),
        "high": words.count(capacity.high),
        "bound": words.per_second(capacity.offline_per_s),
    }


def _savings(case: BusinessCase) -> tuple[CaseRow, ...]:
    """What is saved, and when the effort is paid back."""
    saving, year, effort = case.saving_month, case.saving_year, case.terms.inputs.effort
    if saving is None or year is None:
        return ()
    tone = "green" if saving > 0 else "red" if saving < 0 else ""
    verdict = {"green": _("✓ better"), "red": _("✗ worse")}.get(tone, "=")
    month, full = (_("Saving a month"), saving), (_("Saving a year"), year)
    rows = [
        CaseRow(name, fmt.NOTHING, words.money(value, case.terms.currency), "", verdict, tone)
        for name, value in (month, full)
    ]
    if effort.engineer_days is not None and effort.day_rate is not None:
        months = case.payback_months
        text = _("never: nothing is saved") if months is None else words.months(months)
        rows.append(CaseRow(_("Payback"), fmt.NOTHING, text))
    return tuple(rows)


def _promises(case: BusinessCase) -> SmallTable:
    rows = []
    for one in case.promises:
        name = fmt.line("/".join(part for part in (one.model, one.precision) if part))
        limit = f"service_p99_ms = {one.limit_ms:g}"
        rates = {
            "rate": words.per_second(one.per_s),
            "low": words.count(one.low),
            "high": words.count(one.high),
        }
        met = (
            _("met up to %(rate)s [%(low)s to %(high)s]") if one.per_s > 0 else _("cannot be met on this GPU")
        )
        kept = met % rates
        if one.asked_per_s is not None:
            word = _("✓ kept at %(rate)s") if one.kept else _("✗ broken at %(rate)s")
            kept = f"{word % {'rate': words.per_second(one.asked_per_s)}}; {kept}"
        rows.append((name, fmt.line(one.stack), limit, kept))
    heads = (_("Case"), _("Stack"), _("Limit"), _("Verdict, simulated"))
    return SmallTable(_("The promise under load"), heads, tuple(rows))


def _stages(case: BusinessCase) -> SmallTable:
    def cell(seconds: float | None, given: bool, unknown: bool) -> str:
        if seconds is None:
            return _("not known") if unknown else fmt.NOTHING
        text = words.hours(seconds / 3600)
        return _("%(value)s, given") % {"value": text} if given else text

    rows = tuple(
        (
            _(words.STAGES[stage.name]) if stage.name in words.STAGES else fmt.line(stage.name),
            cell(stage.original_s, stage.given, "original" in stage.unknown),
            cell(stage.tensorrt_s, stage.given, "tensorrt" in stage.unknown),
        )
        for stage in case.stages
    )
    heads = (_("Stage"), fmt.line(case.original.label), fmt.line(case.tensorrt.label))
    return SmallTable(_("Time to deploy, stage by stage"), heads, rows, _stages_note(case))


def _stages_note(case: BusinessCase) -> str:
    """What the seconds are, and what is not among them."""
    notes = (
        (
            True,
            _(
                "Medians that perfgate timed. What a cache held keeps the time that it took when it was "
                "made; of two builds, the cold one counts in the time to deploy."
            ),
        ),
        (
            any(stage.given for stage in case.stages),
            _("Stages marked as given are somebody's own figure, and are not counted in it."),
        ),
        (
            any(stage.unknown for stage in case.stages),
            _("Not known: an earlier perfgate filled the cache and kept no time."),
        ),
        (
            all(stage.name != "installation" for stage in case.stages),
            _("Installing software is not timed."),
        ),
    )
    return ("" if language() == "zh-CN" else " ").join(text for holds, text in notes if holds)


def swing_table(case: BusinessCase, what: str) -> SmallTable:
    """What the sensitivity chart draws, as numbers."""
    currency = case.terms.currency
    rows = tuple(
        (
            f"{one.factor:g} ×",
            words.money(one.original, currency),
            words.money(one.tensorrt, currency),
            words.money(one.original - one.tensorrt, currency),
        )
        for one in case.swings
        if one.what == what
    )
    first = _("Load") if what == "load" else _("Price")
    title = _("If the load is another") if what == "load" else _("If the price is another")
    heads = (first, fmt.line(case.original.label), fmt.line(case.tensorrt.label), _("Saving a month"))
    return SmallTable(title, heads, rows)


def curve_table(case: BusinessCase) -> SmallTable:
    """What the capacity chart draws, as numbers."""
    rows = tuple(
        (fmt.line(side.label), words.per_second(point.per_s), words.milliseconds(point.p99_ms))
        for side in (case.original, case.tensorrt)
        if side.capacity
        for point in side.capacity.curve
    )
    return SmallTable(_("P99 as the load grows"), (_("Stack"), _("Load"), _("P99, simulated")), rows)
