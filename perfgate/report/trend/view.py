"""The trend of a case as display-ready records and words; shared by the terminal and the site. Pure."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from perfgate.records.trend import LevelChange, Point, Trend
from perfgate.report import format as fmt
from perfgate.report.format import quantity as quantity
from perfgate.report.i18n import gettext
from perfgate.report.run.view import verdict_tag as verdict_tag

T = TypeVar("T")
BLOCKS, ASCII_BLOCKS = "▁▂▃▄▅▆▇█", "_.-:=+*#"
_PROMOTIONS = 5  # the newest
_NEARLY_FLAT = 0.01  # a sparkline spans at least this share of its level, or noise would look like news
_HIGHER_IS_BETTER = ("throughput_qps",)


@dataclass(frozen=True)
class Move:
    """A change of level in words; `day` is that of the first run at the new level."""

    day: str
    words: str
    interval: str
    blame: str
    tone: str


def day(point: Point) -> str:
    """A point's date alone, as text that is safe to show."""
    return fmt.line(point.created[:10], 10)


def moves(trend: Trend, newest: int | None = None) -> list[Move]:
    """The changes of level in words, oldest first: all of them, or the `newest`."""
    return [
        Move(
            day=day(trend.points[one.index]),
            words=moved(one, trend.metric),
            interval=fmt.interval(one.ratio),
            blame=blame(one),
            tone=tone(one, trend.metric),
        )
        for one in trend.changes[-newest if newest else None :]
    ]


def short(commit: str) -> str:
    """A commit's short id, as text that is safe to show."""
    return fmt.line(commit[:12], 12) or gettext("no commit")


def moved(change: LevelChange, metric: str) -> str:
    """A change in words: "2.0 % slower", for other metrics "2.0 % more"."""
    words = (fmt.change if metric.endswith("_ns") else fmt.more)(change.ratio.estimate)
    if change.cause == "commit":
        return words
    return gettext("%(change)s with a new environment") % {"change": words}


def tone(change: LevelChange, metric: str) -> str:
    """Red for worse, green for better, amber for what no commit did."""
    if change.cause == "environment":
        return "amber"
    return "red" if (change.ratio.estimate > 1) is (metric not in _HIGHER_IS_BETTER) else "green"


def blame(change: LevelChange) -> str:
    """Where to look: the commits between the last night before and the first night after."""
    before, after = (short(commit) for commit in change.commits)
    if change.cause == "environment":
        words = gettext("last %(before)s in the old environment, first %(after)s in the new one")
    elif change.commits[0] == change.commits[1]:
        words = gettext("%(after)s on both sides: not a commit, look at the machine")
    else:
        words = gettext("after %(before)s, up to %(after)s")
    return words % {"before": before, "after": after}


def buckets(values: Sequence[T], limit: int) -> list[Sequence[T]]:
    """Neighbours taken together, so that at most `limit` buckets are left."""
    count = min(limit, len(values))
    edges = [round(index * len(values) / count) for index in range(count + 1)] if count else []
    return [values[low:high] for low, high in itertools.pairwise(edges)]


def thinned(values: Sequence[float], limit: int) -> list[float]:
    """At most `limit` values: the geometric mean of each bucket of neighbours."""
    return [statistics.geometric_mean(bucket) for bucket in buckets(values, limit)]


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


def terminal(trends: Sequence[Trend], *, ascii_only: bool = False) -> str:
    """Each case with its sparkline, last value, changes in words and environment events."""
    blocks = [_block(trend, ascii_only) for trend in trends]
    text = "\n\n".join("\n".join(lines) for lines in blocks) or "No night is stored for this selection."
    return text.translate(_PLAIN) if ascii_only else text


_PLAIN = {ord("—"): "-", ord("−"): "-", ord("×"): "x", ord("µ"): "u", ord("…"): "...", ord("·"): "-"}


def _block(trend: Trend, ascii_only: bool) -> list[str]:
    points, last, metric = trend.points, trend.points[-1], trend.metric
    line = sparkline([point.value for point in points], ascii_only=ascii_only)
    runs = "1 run" if len(points) == 1 else f"{len(points)} runs"
    lines = [
        f"{fmt.line(trend.case)}  on {fmt.line(trend.device)}",
        f"  {line}  {quantity(last.value, metric)}  {fmt.line(metric)}",
        f"  {runs}, {day(points[0])} to {day(last)}; last verdict {verdict_tag(last.verdict).word}",
    ]
    for move in moves(trend):
        lines.append(f"  {move.day}  {move.words} ({move.interval})")
        lines.append(f"              {move.blame}")
    if not trend.changes:
        lines.append("  no change of level")
    promoted = [day(point) for point in points if point.promoted]
    lines += [f"  promoted: {', '.join(promoted[-_PROMOTIONS:])}"] if promoted else []
    lines += [f"  {day(points[one.index])}  environment: {fmt.line(one.what)}" for one in trend.events]
    return lines
