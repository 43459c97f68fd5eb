"""The trend of a case as display-ready records and words; shared by the terminal and the site. Pure."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from perfgate.report import format as fmt
from perfgate.report.format import quantity as quantity
from perfgate.report.i18n import gettext
from perfgate.report.run.view import verdict_tag as verdict_tag

BLOCKS, ASCII_BLOCKS = "▁▂▃▄▅▆▇█", "_.-:=+*#"
_PROMOTIONS = 5  # the newest
_NEARLY_FLAT = 0.01  # a sparkline spans at least this share of its level, or noise would look like news
_HIGHER_IS_BETTER = ("throughput_qps",)


@dataclass(frozen=True)
class Night:
    """One run of the case. `values` holds one value a launch, `value` their geometric mean."""

    run: str
    created: str
    commit: str
    verdict: str
    environment: str
    toolchain: str
    value: float
    values: tuple[float, ...]
    promoted: bool

    @property
    def low(self) -> float:
        """The lowest launch."""
        return min((*self.values, self.value))

    @property
    def high(self) -> float:
        """The highest launch."""
        return max((*self.values, self.value))

    @property
    def day(self) -> str:
        """The date alone."""
        return fmt.line(self.created[:10], 10)


@dataclass(frozen=True)
class Change:
    """The level moved at `nights[index]`; `by_environment` is nobody's commit."""

    index: int
    created: str
    ratio: float
    low: float
    high: float
    by_environment: bool
    commits: tuple[str, str]


@dataclass(frozen=True)
class Event:
    """The environment's key changed at `nights[index]`; `what` says in which fields, where that is known."""

    index: int
    created: str
    what: str


@dataclass(frozen=True)
class CaseTrend:
    """One case on one device, oldest night first; every value is finite and positive."""

    case: str
    device: str
    metric: str
    nights: tuple[Night, ...]
    changes: tuple[Change, ...] = ()
    events: tuple[Event, ...] = ()

    @property
    def model(self) -> str:
        """The first part of the case's id."""
        return self.case.partition("/")[0]

    @property
    def last(self) -> Night:
        """The newest night."""
        return self.nights[-1]


def short(commit: str) -> str:
    """A commit's short id, as text that is safe to show."""
    return fmt.line(commit[:12], 12) or gettext("no commit")


def moved(change: Change, metric: str) -> str:
    """A change in words: "2.0 % slower", for other metrics "2.0 % more"."""
    words = fmt.change(change.ratio) if metric.endswith("_ns") else _more(change.ratio)
    return (
        gettext("%(change)s with a new environment") % {"change": words} if change.by_environment else words
    )


def _more(ratio: float) -> str:
    words = gettext("%(share)s more") if ratio > 1 else gettext("%(share)s less")
    return words % {"share": fmt.percentage(f"{abs(ratio - 1) * 100:.3g}")}


def tone(change: Change, metric: str) -> str:
    """Red for worse, green for better, amber for what no commit did."""
    if change.by_environment:
        return "amber"
    return "red" if (change.ratio > 1) is (metric not in _HIGHER_IS_BETTER) else "green"


def blame(change: Change) -> str:
    """Where to look: the commits between the last night before and the first night after."""
    before, after = (short(commit) for commit in change.commits)
    if change.by_environment:
        words = gettext("last %(before)s in the old environment, first %(after)s in the new one")
    elif change.commits[0] == change.commits[1]:
        words = gettext("%(after)s on both sides: not a commit, look at the machine")
    else:
        words = gettext("after %(before)s, up to %(after)s")
    return words % {"before": before, "after": after}


def interval(change: Change) -> str:
    """The 95 % interval of a change."""
    bounds = fmt.between(fmt.percent(change.low), fmt.percent(change.high))
    return gettext("%(confidence)s interval %(bounds)s") % {
        "confidence": fmt.percentage("95"),
        "bounds": bounds,
    }


def thinned(values: Sequence[float], limit: int) -> list[float]:
    """At most `limit` values: the geometric mean of each bucket of neighbours."""
    count = min(limit, len(values))
    edges = [round(index * len(values) / count) for index in range(count + 1)] if count else []
    buckets = [values[low:high] for low, high in itertools.pairwise(edges)]
    return [statistics.geometric_mean(bucket) for bucket in buckets]


def sparkline(values: Sequence[float], width: int = 48, *, ascii_only: bool = False) -> str:
    """The series as blocks of eight heights."""
    blocks = ASCII_BLOCKS if ascii_only else BLOCKS
    kept = thinned(values, width)
    if not kept:
        return ""
    low, high = span(kept)
    scale = 8 / ((high - low) or 1.0)
    return "".join(blocks[min(7, int(scale * (value - low)))] for value in kept)


def span(values: Sequence[float]) -> tuple[float, float]:
    """The range to draw, never so narrow that noise fills it."""
    low, high = min(values), max(values)
    missing = max(0.0, high * _NEARLY_FLAT - (high - low)) / 2
    return low - missing, high + missing


def terminal(trends: Sequence[CaseTrend], *, ascii_only: bool = False) -> str:
    """Each case with its sparkline, last value, changes in words and environment events."""
    blocks = [_block(trend, ascii_only) for trend in trends]
    text = "\n\n".join("\n".join(lines) for lines in blocks) or "No night is stored for this selection."
    return text.translate(_PLAIN) if ascii_only else text


_PLAIN = {ord("—"): "-", ord("−"): "-", ord("×"): "x", ord("µ"): "u", ord("…"): "...", ord("·"): "-"}


def _block(trend: CaseTrend, ascii_only: bool) -> list[str]:
    last, metric = trend.last, trend.metric
    line = sparkline([night.value for night in trend.nights], ascii_only=ascii_only)
    first = trend.nights[0].day
    nights = "1 run" if len(trend.nights) == 1 else f"{len(trend.nights)} runs"
    lines = [
        f"{fmt.line(trend.case)}  on {fmt.line(trend.device)}",
        f"  {line}  {quantity(last.value, metric)}  {fmt.line(metric)}",
        f"  {nights}, {first} to {last.day}; last verdict {verdict_tag(last.verdict).word}",
    ]
    for change in trend.changes:
        lines.append(f"  {trend.nights[change.index].day}  {moved(change, metric)} ({interval(change)})")
        lines.append(f"              {blame(change)}")
    if not trend.changes:
        lines.append("  no change of level")
    promoted = [night.day for night in trend.nights if night.promoted]
    lines += [f"  promoted: {', '.join(promoted[-_PROMOTIONS:])}"] if promoted else []
    lines += [f"  {trend.nights[one.index].day}  environment: {fmt.line(one.what)}" for one in trend.events]
    return lines
