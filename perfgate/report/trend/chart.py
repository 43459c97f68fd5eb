"""Where the lines go: the history of a case on a time axis, and the small line of an index row."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from perfgate.report.i18n import gettext
from perfgate.report.trend.view import CaseTrend, Night, moved, quantity, span, thinned, tone

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


def chart(trend: CaseTrend) -> Chart:
    """The band of launches, the line of geometric means, and what happened when."""
    nights, metric = trend.nights, trend.metric
    places = _places(nights)
    low, high = span([edge for night in nights for edge in (night.low, night.high)])
    pad = (high - low) * 0.06 or 1.0
    low, high = low - pad, high + pad

    def x(place: float) -> float:
        return LEFT + (RIGHT - LEFT) * place

    def y(value: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * (value - low) / (high - low)

    columns = _columns(nights, places)
    upper = [f"{x(at):.1f} {y(top):.1f}" for at, _, _, top in columns]
    lower = [f"{x(at):.1f} {y(bottom):.1f}" for at, _, bottom, _ in reversed(columns)]
    middle = [f"{x(at):.1f} {y(value):.1f}" for at, value, _, _ in columns]
    return Chart(
        band="M" + "L".join([*upper, *lower]) + "z",
        line="M" + "L".join(middle),
        dots="".join(f"M{point}h0" for point in middle) if len(columns) <= 120 else "",
        promotions="".join(
            f"M{x(place):.1f} {BOTTOM:.1f}l4 7h-8z"
            for place, night in list(zip(places, nights, strict=True))
            if night.promoted
        ),
        changes=tuple(
            Mark(
                x=f"{x(places[one.index]):.1f}",
                tone=tone(one, metric),
                label=f"{nights[one.index].day}: {moved(one, metric)}",
            )
            for one in trend.changes[-MARKS:]
        ),
        events=tuple(
            Mark(f"{x(places[one.index]):.1f}", "grey", f"{nights[one.index].day}: new environment")
            for one in trend.events[-MARKS:]
        ),
        rows=tuple((f"{y(value):.1f}", quantity(value, metric)) for value in _ticks(low, high)),
        columns=tuple((f"{x(place):.1f}", label) for place, label in _dates(nights, places)),
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


def _times(nights: Sequence[Night]) -> list[float] | None:
    try:
        moments = [datetime.fromisoformat(night.created.replace("Z", "+00:00")) for night in nights]
        times = [moment.replace(tzinfo=moment.tzinfo or timezone.utc).timestamp() for moment in moments]
    except (ValueError, OverflowError):
        return None
    # A clock that went back would draw the line backwards: then the order of the runs is the axis.
    return times if times == sorted(times) and times[-1] > times[0] else None


def _places(nights: Sequence[Night]) -> list[float]:
    """Each night's place from 0 to 1: by time, so that missing nights leave a gap, else by order."""
    times = _times(nights)
    if times is None:
        return [index / max(1, len(nights) - 1) for index in range(len(nights))]
    return [(moment - times[0]) / (times[-1] - times[0]) for moment in times]


def _columns(nights: Sequence[Night], places: Sequence[float]) -> list[tuple[float, float, float, float]]:
    """(place, geometric mean, lowest, highest): at most `COLUMNS`, neighbours taken together."""
    count = min(COLUMNS, len(nights))
    edges = [round(index * len(nights) / count) for index in range(count + 1)]
    found = []
    for first, stop in itertools.pairwise(edges):
        bucket = nights[first:stop]
        mean = statistics.geometric_mean(night.value for night in bucket)
        place = math.fsum(places[first:stop]) / len(bucket)
        found.append((place, mean, min(night.low for night in bucket), max(night.high for night in bucket)))
    return found


def _ticks(low: float, high: float) -> list[float]:
    """Four to eight round values."""
    rough = (high - low) / 5
    unit: float = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
    first = math.ceil(low / step)
    return [index * step for index in range(first, math.floor(high / step) + 1)][:12]


def _dates(nights: Sequence[Night], places: Sequence[float]) -> list[tuple[float, str]]:
    """Five places along the axis with their dates."""
    times = _times(nights)
    if times is None:
        shown = sorted({round(index * (len(nights) - 1) / 4) for index in range(5)})
        return [(places[index], nights[index].day) for index in shown]
    shares = [index / 4 for index in range(5)]
    label: Callable[[float], str] = lambda share: _day(times[0] + share * (times[-1] - times[0]))  # noqa: E731
    return [(share, label(share)) for share in shares]


def _day(moment: float) -> str:
    return f"{datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=moment):%Y-%m-%d}"


def description(trend: CaseTrend) -> str:
    """The trend in words: from when to when, from what to what, and how it moved."""
    nights, metric = trend.nights, trend.metric
    first, last = nights[0], nights[-1]
    words = gettext("%(count)s runs from %(first)s to %(last)s: from %(low)s to %(high)s.")
    values = {"low": quantity(first.value, metric), "high": quantity(last.value, metric)}
    parts = [words % {"count": len(nights), "first": first.day, "last": last.day, **values}]
    parts += [f"{nights[one.index].day}: {moved(one, metric)}." for one in trend.changes[-10:]]
    if trend.events:
        parts.append(gettext("The environment changed %(count)s times.") % {"count": len(trend.events)})
    return " ".join(parts)
