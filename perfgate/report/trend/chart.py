"""Where the lines go: the history of a case on a time axis, and the small line of an index row."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from perfgate.records.trend import Point, Trend
from perfgate.report.i18n import gettext
from perfgate.report.run.strip_plot import ticks
from perfgate.report.trend.view import buckets, day, moves, quantity, span, thinned
from perfgate.util.times import instant

LEFT, RIGHT, TOP, BOTTOM, WIDTH, HEIGHT = 78.0, 880.0, 26.0, 246.0, 896, 290
COLUMNS = 400  # a screen shows no more
MARKS = 200
SPARK_WIDTH, SPARK_HEIGHT, SPARK_COLUMNS = 120.0, 28.0, 60


@dataclass(frozen=True)
class Mark:
    """A vertical line with its tone and what it says on hover and to a screen reader."""

    x: str
    tone: str
    label: str


@dataclass(frozen=True)
class Chart:
    """A drawing in user units of a `WIDTH` x `HEIGHT` box."""

    band: str
    line: str
    dots: str
    promotions: str
    changes: tuple[Mark, ...]
    events: tuple[Mark, ...]
    rows: tuple[tuple[str, str], ...]
    columns: tuple[tuple[str, str], ...]
    description: str


def chart(trend: Trend) -> Chart:
    """The band of launches, the line of geometric means, and what happened when."""
    points, metric = trend.points, trend.metric
    places = _places(points)
    low, high = span([edge for point in points for edge in (point.low, point.high)])
    pad = (high - low) * 0.06 or 1.0
    low, high = low - pad, high + pad

    def x(place: float) -> float:
        return LEFT + (RIGHT - LEFT) * place

    def y(value: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * (value - low) / (high - low)

    columns = _columns(points, places)
    upper = [f"{x(at):.1f} {y(top):.1f}" for at, _, _, top in columns]
    lower = [f"{x(at):.1f} {y(bottom):.1f}" for at, _, bottom, _ in reversed(columns)]
    middle = [f"{x(at):.1f} {y(value):.1f}" for at, value, _, _ in columns]
    return Chart(
        band="M" + "L".join([*upper, *lower]) + "z",
        line="M" + "L".join(middle),
        dots="".join(f"M{point}h0" for point in middle) if len(columns) <= 120 else "",
        promotions="".join(
            f"M{x(place):.1f} {BOTTOM:.1f}l4 7h-8z"
            for place, point in zip(places, points, strict=True)
            if point.promoted
        ),
        changes=tuple(
            Mark(f"{x(places[one.index]):.1f}", move.tone, f"{move.day}: {move.words}")
            for one, move in zip(trend.changes[-MARKS:], moves(trend, MARKS), strict=True)
        ),
        events=tuple(
            Mark(f"{x(places[one.index]):.1f}", "grey", f"{day(points[one.index])}: new environment")
            for one in trend.events[-MARKS:]
        ),
        rows=tuple((f"{y(value):.1f}", quantity(value, metric)) for value in ticks(low, high, 5)),
        columns=tuple((f"{x(place):.1f}", label) for place, label in _dates(points, places)),
        description=description(trend),
    )


def spark_path(values: Sequence[float]) -> str:
    """The path of a small line in a `SPARK_WIDTH` x `SPARK_HEIGHT` box."""
    kept = thinned(values, SPARK_COLUMNS)
    if len(kept) == 1:
        kept *= 2
    low, high = span(kept)
    step = (SPARK_WIDTH - 4) / (len(kept) - 1)
    height = SPARK_HEIGHT - 6
    points = (
        f"{2 + index * step:.1f} {3 + height * (high - value) / ((high - low) or 1.0):.1f}"
        for index, value in enumerate(kept)
    )
    return "M" + "L".join(points)


def _times(points: Sequence[Point]) -> list[float] | None:
    try:
        times = [instant(point.created).timestamp() for point in points]
    except ValueError:
        return None
    # A clock that went back would draw the line backwards: then the order of the runs is the axis.
    return times if times == sorted(times) and times[-1] > times[0] else None


def _places(points: Sequence[Point]) -> list[float]:
    """Each point's place from 0 to 1: by time, so that missing nights leave a gap, else by order."""
    times = _times(points)
    if times is None:
        return [index / max(1, len(points) - 1) for index in range(len(points))]
    return [(moment - times[0]) / (times[-1] - times[0]) for moment in times]


def _columns(points: Sequence[Point], places: Sequence[float]) -> list[tuple[float, float, float, float]]:
    """(place, geometric mean, lowest, highest): at most `COLUMNS`, neighbours taken together."""
    return [
        (
            math.fsum(where) / len(where),
            statistics.geometric_mean(point.value for point in bucket),
            min(point.low for point in bucket),
            max(point.high for point in bucket),
        )
        for bucket, where in zip(buckets(points, COLUMNS), buckets(places, COLUMNS), strict=True)
    ]


def _dates(points: Sequence[Point], places: Sequence[float]) -> list[tuple[float, str]]:
    """Five places along the axis with their dates."""
    times = _times(points)
    if times is None:
        shown = sorted({round(index * (len(points) - 1) / 4) for index in range(5)})
        return [(places[index], day(points[index])) for index in shown]
    start, step_s = datetime.fromtimestamp(times[0], timezone.utc), (times[-1] - times[0]) / 4
    return [(index / 4, f"{start + timedelta(seconds=index * step_s):%Y-%m-%d}") for index in range(5)]


def description(trend: Trend) -> str:
    """The trend in words: from when to when, from what to what, and how it moved."""
    points, metric = trend.points, trend.metric
    first, last = points[0], points[-1]
    words = gettext("%(count)s runs from %(first)s to %(last)s: from %(low)s to %(high)s.")
    values = {"low": quantity(first.value, metric), "high": quantity(last.value, metric)}
    parts = [words % {"count": len(points), "first": day(first), "last": day(last), **values}]
    parts += [f"{move.day}: {move.words}." for move in moves(trend, 10)]
    if trend.events:
        parts.append(gettext("The environment changed %(count)s times.") % {"count": len(trend.events)})
    return " ".join(parts)
