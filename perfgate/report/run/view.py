"""A `RunResult` as display-ready rows: words, formatted numbers and an order. Pure, shared by renderers."""

from __future__ import annotations

import math
import statistics
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from perfgate.records import CaseResult, Failed, Measured, NotRun, RunResult, Unchanged, Verdict
from perfgate.report import format as fmt
from perfgate.report.i18n import N_, gettext
from perfgate.report.phrases import Untranslated, translate

_NOTE = N_(
    "Medians are the median of the launches' medians, p99 is the median of the launches' p99. "
    "The change is head against baseline as the gate estimated it from all launches, with its interval."
)


@dataclass(frozen=True)
class Tag:
    """A verdict as a word, a shape and a tone, so that colour never says it alone."""

    word: str
    symbol: str
    ascii: str
    tone: str
    severity: int
    quiet: bool = False

    @property
    def label(self) -> str:
        """The word in the reader's language."""
        return gettext(self.word)


# Worst first, in the order in which the gate picks the verdict of a run.
_TAGS = (
    Tag(N_("REGRESSION"), "✗", "x", "red", 0),
    Tag(N_("ERROR"), "!", "!", "red", 1),
    Tag(N_("MISSING"), "∅", "0", "red", 2),
    Tag(N_("INCONCLUSIVE"), "?", "?", "amber", 3),
    Tag(N_("INCOMPARABLE"), "≠", "#", "amber", 4),
    Tag(N_("INVALID"), "≁", "~", "amber", 5),
    Tag(N_("NEW"), "+", "+", "blue", 6),
    Tag(N_("WAIVED"), "◇", "w", "amber", 7),
    Tag(N_("IMPROVEMENT"), "★", "*", "green", 8),
    Tag(N_("NOT JUDGED"), "○", "o", "grey", 9),
    Tag(N_("PASS"), "✓", "v", "green", 10, quiet=True),
    Tag(N_("UNCHANGED"), "=", "=", "grey", 11, quiet=True),
    Tag(N_("NOT RUN"), "–", "-", "grey", 12, quiet=True),
)
_BY_WORD = {tag.word: tag for tag in _TAGS}
NOT_JUDGED = _BY_WORD["NOT JUDGED"]
NOT_RUN = _BY_WORD[Verdict.NOT_RUN.value]


@dataclass(frozen=True)
class Row:
    """One case, ready to show. `number` is its place in `RunResult.cases`."""

    number: int
    tag: Tag
    case: str
    head: str
    base: str
    change: str
    range: str
    interval: str
    p99: str
    reason: str
    order: tuple[str, str, str, str] = ("", "", "", "")
    """What a script sorts by: head and baseline median and p99 in nanoseconds, the change as a ratio."""


@dataclass(frozen=True)
class Group:
    """Cases that were not run for one and the same reason."""

    reason: str
    cases: tuple[str, ...]


@dataclass(frozen=True)
class RunView:
    """A run, ready to show. `rows` are ordered worst first and leave out `not_run`."""

    tag: Tag
    sentence: str
    worst: str
    worst_number: int | None
    counts: tuple[tuple[Tag, int], ...]
    steps: tuple[tuple[tuple[bool, str], ...], ...]
    facts: tuple[tuple[str, str], ...]
    rows: tuple[Row, ...]
    not_run: tuple[Group, ...]
    policy: tuple[tuple[str, str, str], ...] = ()
    note: str = ""

    @property
    def loud(self) -> tuple[Row, ...]:
        """The rows that a reader has to see."""
        return tuple(row for row in self.rows if not row.tag.quiet)

    @property
    def tags(self) -> tuple[Tag, ...]:
        """The verdicts among the rows, worst first."""
        return tuple(dict.fromkeys(row.tag for row in self.rows))

    @property
    def quiet(self) -> tuple[Row, ...]:
        """The rows of cases where nothing happened."""
        return tuple(row for row in self.rows if row.tag.quiet)


def run_view(result: RunResult) -> RunView:
    """Everything of a run that more than one renderer shows."""
    ordered = sorted(enumerate(result.cases), key=_order)
    rows = tuple(_row(number, case) for number, case in ordered if case_tag(case) is not NOT_RUN)
    worst = _worst([pair for pair in ordered if case_tag(pair[1]) is not NOT_RUN])
    summary = result.summary
    return RunView(
        tag=NOT_JUDGED if summary is None else _BY_WORD[summary.verdict.value],
        sentence=_unjudged(result)
        if summary is None
        else _sentence(fmt.line(summary.sentence, 1_000), result),
        worst="" if worst is None else worst[1],
        worst_number=None if worst is None else worst[0],
        counts=_counts(result),
        steps=() if summary is None else tuple(_step(fmt.line(text, 500)) for text in summary.next_steps),
        facts=_facts(result),
        rows=rows,
        not_run=_not_run([case for _, case in ordered]),
        policy=tuple(
            (fmt.line(one.where), fmt.line(one.base) or absent(), fmt.line(one.head) or absent())
            for one in result.policy_changes
        ),
        note=gettext(_NOTE),
    )


def verdict_tag(word: str) -> Tag:
    """The tag of a verdict by its word; a word that we do not know is shown as it is."""
    if not word:
        return NOT_JUDGED
    return _BY_WORD.get(word) or Tag(fmt.line(word, 40), "·", ".", "grey", 99)


def absent() -> str:
    """What stands where a side has nothing."""
    return gettext("(absent)")


def _sentence(text: str, result: RunResult) -> str:
    """The gate's sentence; in another language, where no phrase says it, one made of the counts."""
    shown = translate(text)
    if shown is text or not isinstance(shown, Untranslated):
        return shown
    total = sum(case_tag(case) is not NOT_RUN for case in result.cases)
    each = gettext("%(count)s %(verdict)s")
    counts = gettext(", ").join(
        each % {"count": count, "verdict": tag.label} for tag, count in _counts(result)
    )
    return gettext("%(total)s cases: %(counts)s.") % {"total": total, "counts": counts} if counts else shown


def _step(text: str) -> tuple[tuple[bool, str], ...]:
    return tuple((code, part if code else translate(part)) for code, part in fmt.spans(text))


def case_tag(case: CaseResult) -> Tag:
    """The verdict to show. An unjudged case still shows that it failed or was not run."""
    if case.judgement is not None:
        return _BY_WORD[case.judgement.verdict.value]
    if isinstance(case.outcome, NotRun):
        return NOT_RUN
    if isinstance(case.outcome, Failed):
        return _BY_WORD["MISSING" if case.outcome.stage == "missing" else "ERROR"]
    return NOT_JUDGED


def column(case: CaseResult, side: str, metric: str) -> tuple[float, ...]:
    """One value a launch, as judged; of a case that was not judged, from its valid launches."""
    if case.judgement is not None:
        columns = case.judgement.head if side == "head" else case.judgement.base
        if columns.get(metric):
            return tuple(float(value) for value in columns[metric] if abs(value) <= sys.float_info.max)
    if side == "head" and isinstance(case.outcome, Measured):
        launches = [launch for launch in case.outcome.launches if not launch.invalid]
        if metric == "latency_ns":
            return tuple(launch.median_ns for launch in launches)
        if metric == "p99_ns":
            return tuple(launch.percentile_ns(99) for launch in launches)
        if metric in ("load_ns", "deserialisation_ns", "first_inference_ns", "peak_memory_bytes"):
            found = [getattr(launch, metric) for launch in launches]
            return tuple(value for value in found if value is not None)
    return ()


def middle(values: Sequence[float]) -> float | None:
    """The median, or nothing of nothing."""
    return statistics.median(values) if values else None


def _estimate(case: CaseResult) -> float:
    ratio = None if case.judgement is None else case.judgement.ratio
    return 1.0 if ratio is None or not math.isfinite(ratio.estimate) else ratio.estimate


def _order(pair: tuple[int, CaseResult]) -> tuple[int, float, str, int]:
    number, case = pair
    return (case_tag(case).severity, -_estimate(case), case.case.id, number)


def _row(number: int, case: CaseResult) -> Row:
    ratio = None if case.judgement is None else case.judgement.ratio
    stored = isinstance(case.outcome, Unchanged)
    head = middle(column(case, "head", "latency_ns"))
    base = middle(column(case, "base", "latency_ns"))
    p99 = middle(column(case, "head", "p99_ns") or (column(case, "base", "p99_ns") if stored else ()))
    return Row(
        number=number,
        tag=case_tag(case),
        case=fmt.line(case.case.id),
        head=gettext("not timed") if stored and head is None else fmt.duration(head),
        base=fmt.duration(base),
        change=fmt.NOTHING if ratio is None else fmt.change(ratio.estimate),
        range="" if ratio is None else fmt.bounds(ratio),
        interval="" if ratio is None else fmt.interval(ratio),
        p99=fmt.duration(p99),
        reason=translate(fmt.line(_reason(case), 400)),
        order=(_key(head), _key(base), _key(None if ratio is None else ratio.estimate), _key(p99)),
    )


def _key(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:.6g}"


def _reason(case: CaseResult) -> str:
    reason = "" if case.judgement is None else case.judgement.reason
    if isinstance(case.outcome, NotRun):
        return case.outcome.reason or reason
    if isinstance(case.outcome, Failed):
        own = f"{case.outcome.stage}: {case.outcome.reason}"
        return own if not reason or case.outcome.reason in reason else f"{reason} — {own}"
    return reason


def _worst(ordered: Sequence[tuple[int, CaseResult]]) -> tuple[int, str] | None:
    """The worst change of the gravest verdict that has one; nothing where nothing is slower."""
    rated = [
        pair for pair in ordered if pair[1].judgement is not None and pair[1].judgement.ratio is not None
    ]
    if not rated:
        return None
    grave = [pair for pair in rated if case_tag(pair[1]).severity == 0]
    number, case = max(grave or rated, key=lambda pair: _estimate(pair[1]))
    if _estimate(case) <= 1:
        return None
    return number, f"{fmt.line(case.case.id)}: {fmt.change(_estimate(case))}"


def _counts(result: RunResult) -> tuple[tuple[Tag, int], ...]:
    """Counts by verdict without zeros. A word that we do not know is shown, not lost."""
    stored = result.summary.counts if result.summary is not None else {}
    counts = stored or Counter(case_tag(case).word for case in result.cases)
    known = [(tag, counts[tag.word]) for tag in _TAGS if counts.get(tag.word)]
    unknown = [word for word in sorted(counts) if word not in _BY_WORD and counts[word]]
    return (*known, *((verdict_tag(word), counts[word]) for word in unknown))


def _unjudged(result: RunResult) -> str:
    measured = sum(isinstance(case.outcome, Measured) for case in result.cases)
    return gettext("Measured %(count)s of %(total)s cases; nothing was compared, so nothing is judged.") % {
        "count": measured,
        "total": len(result.cases),
    }


def _not_run(cases: Sequence[CaseResult]) -> tuple[Group, ...]:
    groups: dict[str, list[str]] = defaultdict(list)
    for case in cases:
        if case_tag(case) is NOT_RUN:
            groups[fmt.line(_reason(case))].append(fmt.line(case.case.id))
    return tuple(
        Group(translate(reason) or gettext("no reason given"), tuple(ids)) for reason, ids in groups.items()
    )


def _facts(result: RunResult) -> tuple[tuple[str, str], ...]:
    """What was compared, where and with what."""
    versions = {
        f"{fmt.line(name, 60)} {fmt.line(version, 60)}"
        for case in result.cases
        if case.recipe is not None
        for name, version in case.recipe.versions.items()
    }
    image = result.environment.key.get("image", "")
    facts = (
        (N_("Commit"), fmt.commit(result.commit)),
        (N_("Base"), fmt.commit(result.base) if result.base.sha else ""),
        (N_("Device"), fmt.line(result.environment.device)),
        (N_("Toolchain"), fmt.line(result.environment.toolchain)),
        (N_("Image"), fmt.line(image)),
        (N_("Libraries"), fmt.line(", ".join(sorted(versions)), 600)),
        (N_("Protocol"), fmt.protocol(result.protocol)),
        (N_("Measured"), fmt.line(result.created)),
        (N_("Run"), fmt.line(result.run_id)),
        ("perfgate", fmt.line(result.perfgate)),
        (N_("Exit status"), "" if result.summary is None else str(result.summary.exit_code)),
    )
    return tuple((gettext(name), value) for name, value in facts if value)
