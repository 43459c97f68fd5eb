"""A `StackTable` as words and formatted numbers, shared by its renderers. Computes nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from perfgate.report import format as fmt
from perfgate.report.i18n import N_, gettext as _, ngettext
from perfgate.report.value import wording as words
from perfgate.value.table import Line, NotCompared, Row, Stack, StackTable

HEADS = (
    N_("model"), N_("stack"), N_("mode"), N_("median"), N_("against the original"), "p99", N_("queries"),
    N_("items"), N_("memory"),
)  # fmt: skip
NOTES = (
    N_(
        "Latency is that of one request, each stack in its own mode: on a GPU with the copies from and to "
        "the host, on a CPU the call itself."
    ),
    N_(
        "Median and p99 are medians over launches. The span in brackets runs from the least to the greatest "
        "that the launch medians allow; it is no confidence interval."
    ),
    N_(
        "Queries and items (queries times batch) are a second. Memory is what the process added to the "
        "device's memory in use on a GPU, and its peak resident set on a CPU."
    ),
)
_FEW = N_("~ : a launch took fewer than 1,001 samples, so this p99 rests on ten of them or less.")
_STORED = N_("Numbers marked 'stored' are those of the baseline that the case is unchanged from.")
_TF32 = N_(
    "TF32 multiplies FP32 numbers with 10 bits of their mantissa, which is faster: where stacks differ in "
    "it, that is part of the ratio."
)
_P99_MIN_SAMPLES = 1001


@dataclass(frozen=True)
class ValueRow:
    """One line of the table; `cells` are in the order of `HEADS`. `first` opens a model and shape."""

    cells: tuple[str, ...]
    first: bool
    original: bool


@dataclass(frozen=True)
class ValueView:
    """The table, ready to show. `refused` has a reason with its stack, and the cases that it is true of."""

    sentence: str
    stacks: tuple[str, ...]
    rows: tuple[ValueRow, ...]
    refused: tuple[tuple[str, tuple[str, ...]], ...]
    notes: tuple[str, ...]


def value_view(table: StackTable) -> ValueView:
    """Everything that a renderer shows."""
    lines = [line for row in table.rows for line in row.lines]
    more = (
        (_FEW, any(line.samples < _P99_MIN_SAMPLES for line in lines)),
        (_STORED, any(line.stored for line in lines)),
        (_TF32, any(row.tf32_differs for row in table.rows)),
    )
    notes = (*(NOTES if lines else ()), *(note for note, holds in more if holds))
    return ValueView(
        sentence=_sentence(table),
        stacks=tuple(_stack(stack, first=stack is table.stacks[0]) for stack in table.stacks),
        rows=tuple(made for row in table.rows for made in _rows(row)),
        refused=_refused(table.not_compared),
        notes=tuple(_(note) for note in notes),
    )


def _sentence(table: StackTable) -> str:
    refused = len(table.not_compared)
    count = len(table.rows)
    first = ngettext("%(count)s case side by side", "%(count)s cases side by side", count) % {"count": count}
    if not count:
        first = _("Nothing can be compared")
    if not refused:
        return _("%(first)s.") % {"first": first}
    second = ngettext("%(count)s entry is not comparable", "%(count)s entries are not comparable", refused)
    return _("%(first)s; %(second)s.") % {"first": first, "second": second % {"count": refused}}


def _stack(stack: Stack, *, first: bool) -> str:
    parts = [
        _("%(stack)s on %(device)s") % {"stack": fmt.line(stack.label), "device": fmt.line(stack.device)}
    ]
    if first:
        parts.append(_("the original"))
    libraries = [f"{name} {version}" for name, version in sorted(stack.versions.items())]
    more = ", ".join(library for library in libraries if library not in stack.label)
    parts += [_("with %(libraries)s") % {"libraries": fmt.line(more)}] if more else []
    parts.append(_("measured %(when)s") % {"when": fmt.line(stack.created, 60)})
    if stack.differences:
        other = ", ".join(f"{d.field} {d.head} (original: {d.base})" for d in stack.differences)
        parts.append(_("differs in %(fields)s") % {"fields": fmt.line(other, 500)})
    return "; ".join(parts)


def _rows(row: Row) -> list[ValueRow]:
    title = _title(row.model, row.precision, row.shape)
    return [
        ValueRow(
            cells=(title if number == 0 else "", *_cells(line, original=number == 0, tf32=row.tf32_differs)),
            first=number == 0,
            original=number == 0,
        )
        for number, line in enumerate(row.lines)
    ]


def _cells(line: Line, *, original: bool, tf32: bool) -> tuple[str, ...]:
    few = "~" if line.samples < _P99_MIN_SAMPLES else ""
    speed = _("%(times)s × as fast [%(low)s to %(high)s]") % {
        "times": f"{line.speedup.value:.2f}",
        "low": f"{line.speedup.low:.2f}",
        "high": f"{line.speedup.high:.2f}",
    }
    against = _("original") if original else speed
    if tf32 and line.tf32:
        against = _("%(ratio)s, %(tf32)s") % {"ratio": against, "tf32": _(words.TF32[line.tf32])}
    return (
        fmt.line(line.stack) + (_(" (stored)") if line.stored else ""),
        str(line.mode),
        fmt.duration(line.latency_ns.value),
        against,
        few + fmt.duration(line.p99_ns),
        fmt.rate(line.throughput_qps),
        fmt.rate(line.items_per_s),
        fmt.NOTHING if line.memory_bytes is None else fmt.size(line.memory_bytes),
    )


def _title(model: str, precision: str, shape: Mapping[str, int]) -> str:
    sizes = "-".join(f"{name}{size}" for name, size in shape.items())
    return fmt.line("/".join(part for part in (model, precision, sizes) if part))


def _refused(entries: tuple[NotCompared, ...]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    groups: dict[str, list[str]] = defaultdict(list)
    for entry in entries:
        case = entry.case_id or _title(entry.model, entry.precision, entry.shape)
        groups[f"{fmt.line(entry.stack)}: {fmt.line(entry.reason, 400)}"].append(fmt.line(case))
    return tuple((reason, tuple(dict.fromkeys(cases))) for reason, cases in groups.items())
