"""A case's history inside the report of a run: a small line, and what moved, in words."""

from __future__ import annotations

from dataclasses import dataclass

from perfgate.records.trend import Trend
from perfgate.report import format as fmt
from perfgate.report.phrases import translate
from perfgate.report.trend.chart import SPARK_HEIGHT, SPARK_WIDTH, description, spark_path
from perfgate.report.trend.view import Move, day, moves

CHANGES, EVENTS = 5, 3  # the newest; the site of trends has all


@dataclass(frozen=True)
class Past:
    """A trend, ready to show. The newest change and event come first."""

    spark: str
    box: str
    description: str
    changes: tuple[Move, ...]
    events: tuple[tuple[str, str], ...]


def past(trend: Trend) -> Past:
    """The newest changes of a case, and its line."""
    points = trend.points
    return Past(
        spark=spark_path([point.value for point in points]),
        box=f"0 0 {SPARK_WIDTH:g} {SPARK_HEIGHT:g}",
        description=description(trend),
        changes=tuple(reversed(moves(trend, CHANGES))),
        events=tuple(
            (day(points[event.index]), translate(fmt.line(event.what)))
            for event in reversed(trend.events[-EVENTS:])
        ),
    )
