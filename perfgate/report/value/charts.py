"""Two small charts of the business case: P99 as the load grows, and what a month costs as the load grows.

Lines are told apart by their dashes and by words at their ends, never by colour alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from perfgate.report import charts, format as fmt
from perfgate.report.charts import AXIS
from perfgate.report.i18n import gettext as _
from perfgate.report.value import wording as words
from perfgate.report.value.view import SmallTable, curve_table, swing_table
from perfgate.value.business import BusinessCase

_SIZE = (420, 170)


@dataclass(frozen=True)
class Chart:
    """A drawing with its title, description and the tables of its numbers. `body` is empty where
    vl-convert is not installed."""

    title: str
    description: str
    box: str
    body: str
    tables: tuple[SmallTable, ...]


def case_charts(case: BusinessCase) -> tuple[Chart, ...]:
    """The charts that the case has numbers for."""
    found = (_capacity(case), _cost(case))
    return tuple(chart for chart in found if chart is not None)


def _capacity(case: BusinessCase) -> Chart | None:
    capacity = case.tensorrt.capacity
    table = curve_table(case)
    if capacity is None or not table.rows:
        return None
    values = [
        {"x": point.per_s, "y": max(point.p99_ms, 1e-6), "stack": name}
        for name, side in (("original", case.original), ("tensorrt", case.tensorrt))
        if side.capacity
        for point in side.capacity.curve
    ]
    limit = words.milliseconds(capacity.limit_ms)
    rule = {
        "data": {"values": [{"y": capacity.limit_ms, "text": _("limit %(limit)s") % {"limit": limit}}]},
        "encoding": {"y": {"field": "y", "type": "quantitative"}},
        "layer": [
            {"mark": {"type": "rule", "color": "var(--red)", "strokeDash": [2, 3], "aria": False}},
            {
                "mark": {
                    "type": "text", "align": "right", "dx": -4, "dy": -6, "fontSize": 11, "x": _SIZE[0],
                    "color": "var(--red)", "aria": False,
                },
                "encoding": {"text": {"field": "text"}},
            },
        ],
    }  # fmt: skip
    axes = (
        {"title": _("requests a second"), "scale": {"nice": True}},
        {"title": _("P99, ms"), "scale": {"type": "log", "nice": True}},
    )
    box, body = _draw([*_lines(values, axes, words.stack_name(case.tensorrt)), rule])
    description = _("P99 with queueing against the load on one GPU: %(ends)s.") % {
        "ends": "; ".join(
            f"{fmt.line(side.label)} {words.milliseconds(side.capacity.curve[0].p99_ms)} → "
            f"{words.milliseconds(side.capacity.curve[-1].p99_ms)}"
            for side in (case.original, case.tensorrt)
            if side.capacity and side.capacity.curve
        )
    }
    return Chart(_("P99 as the load grows, simulated"), description, box, body, (table,))


def _cost(case: BusinessCase) -> Chart | None:
    if not case.swings or case.peak_per_s is None:
        return None
    values = [
        {"x": one.factor * case.peak_per_s, "y": getattr(one, name), "stack": name}
        for name in ("original", "tensorrt")
        for one in case.swings
        if one.what == "load"
    ]
    money = _("a month, %(currency)s") % {"currency": case.terms.currency}
    axes: tuple[dict[str, Any], ...] = (
        {"title": _("peak, requests a second"), "scale": {"nice": False}},
        {"title": money, "scale": {"zero": True}},
    )
    box, body = _draw(_lines(values, axes, words.stack_name(case.tensorrt)))
    tables = (swing_table(case, "load"), swing_table(case, "price"))
    description = _("Cost a month of both stacks at a quarter to four times the peak load.")
    return Chart(_("Cost a month as the load grows"), description, box, body, tables)


def _lines(values: list[dict[str, Any]], axes: tuple[dict[str, Any], ...], name: str) -> list[dict[str, Any]]:
    """A line a stack, its name at its last point."""
    names = {"original": _("original"), "tensorrt": name}
    across = {
        "field": "x",
        "type": "quantitative",
        "axis": {"grid": False, "tickCount": 5, "format": "~s"},
        **axes[0],
    }
    up = {"field": "y", "type": "quantitative", "axis": {"tickCount": 4, "format": "~s"}, **axes[1]}
    colour = {
        "field": "stack",
        "type": "nominal",
        "legend": None,
        "scale": {"domain": ["original", "tensorrt"], "range": ["var(--base-dot)", "var(--head-dot)"]},
    }
    furthest = max(one["x"] for one in values)
    ends = []
    for stack in dict.fromkeys(one["stack"] for one in values):
        last = max((one for one in values if one["stack"] == stack), key=lambda one: one["x"])
        # A line that ends early has its name to the right of its end, where there is room.
        side = "left" if last["x"] < furthest / 2 else "right"
        ends.append({**last, "name": names[stack], "side": side})
    dash = {
        "condition": {"test": "datum.stack === 'original'", "value": [6, 4]},
        "value": [1, 0],
    }
    return [
        {
            "data": {"values": values},
            "mark": {"type": "line", "point": True, "aria": False},
            "encoding": {
                "x": across,
                "y": up,
                "color": colour,
                "strokeDash": dash,
                "detail": {"field": "stack"},
            },
        },
        *(_names([one for one in ends if one["side"] == side], side, colour) for side in ("left", "right")),
    ]


def _names(ends: list[dict[str, Any]], side: str, colour: dict[str, Any]) -> dict[str, Any]:
    """The names at the ends of lines, on one side of them."""
    offset = {"dx": 8, "dy": 0} if side == "left" else {"dx": -6, "dy": -9}
    return {
        "data": {"values": ends},
        "mark": {"type": "text", "align": side, "fontSize": 12, "aria": False, **offset},
        "encoding": {
            "x": {"field": "x", "type": "quantitative"},
            "y": {"field": "y", "type": "quantitative"},
            "text": {"field": "name"},
            "color": colour,
        },
    }


def _draw(layers: list[dict[str, Any]]) -> tuple[str, str]:
    if not charts.available():
        return "", ""
    return charts.draw(
        {
            "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
            "width": _SIZE[0],
            "height": _SIZE[1],
            "background": None,
            "padding": 4,
            "layer": layers,
            "config": {"aria": False, "view": {"stroke": None}, "axis": AXIS},
        }
    )
