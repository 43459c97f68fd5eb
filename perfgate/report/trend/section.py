"""A case's history inside the report of a run: a small line, and what moved, in words."""

from __future__ import annotations

from dataclasses import dataclass

from perfgate.report import format as fmt
from perfgate.report.i18n import gettext
from perfgate.report.phrases import translate
from perfgate.report.trend import view as view
from perfgate.report.trend.chart import SPARK_HEIGHT, SPARK_WIDTH, description, spark_path
from perfgate.report.trend.view import CaseTrend

CHANGES, EVENTS = 5, 3  # the newest; the site of trends has all


@dataclass(frozen=True)
class Past:
    """A trend, ready to show. `changes` are rows of (day, tone, words, where to look), newest first."""

    spark: str
    box: str
    description: str
    changes: tuple[tuple[str, str, str, str], ...]
    events: tuple[tuple[str, str], ...]


def past(trend: CaseTrend) -> Past:
    """The newest changes of a case, and its line."""
    nights = trend.nights
    return Past(
        spark=spark_path([night.value for night in nights]),
        box=f"0 0 {SPARK_WIDTH:g} {SPARK_HEIGHT:g}",
        description=description(trend),
        changes=tuple(
            (
                nights[one.index].day,
                view.tone(one, trend.metric),
                view.moved(one, trend.metric),
                gettext("%(blame)s; %(interval)s")
                % {"blame": view.blame(one), "interval": view.interval(one)},
            )
            for one in reversed(trend.changes[-CHANGES:])
        ),
        events=tuple(
            (nights[event.index].day, translate(fmt.line(event.what)))
            for event in reversed(trend.events[-EVENTS:])
        ),
    )
