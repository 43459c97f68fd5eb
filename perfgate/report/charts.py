"""Rich charts: plain Vega-Lite dictionaries made into inline SVG by vl-convert, where that is installed.

The drawing takes its colours from the page's style sheet as CSS variables, so that it follows dark and light,
and carries no style of its own, which the page's policy would refuse. The words around it are the page's.
"""

from __future__ import annotations

import importlib.util
import math
import re
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from perfgate.records import CaseResult
from perfgate.report import format as fmt
from perfgate.report.i18n import N_, gettext
from perfgate.report.run.view import column, middle

CHARTS = 20  # the worst cases; the strip plot and the numbers of any other say enough
_BINS = 48
_SIZE = (560, 150)
_CUT = 0.995  # of the samples; the few beyond would squeeze the rest into one bar
_OPENING = re.compile(r"<svg [^>]*viewBox=\"(?P<box>[^\"]+)\"[^>]*>")
_NOISE = re.compile(
    r" (?:style|class|aria-\w+|role|pointer-events|font-weight|font-family|stroke-miterlimit|xmlns(?::\w+)?)"
    r'="[^"]*"|'
    r' (?:opacity|stroke-width)="1"'
)
_INVISIBLE = re.compile(r'<path [^>]*(?:display="none"|d="M0,0h0v0h0Z")[^>]*/>')
_VALUE = re.compile(r'="[^"]*"')
_LONG = re.compile(r"(\d\.\d\d)\d+")

# Every chart's axes follow the page's colours, in the dark and in print too.
AXIS = {
    "labelColor": "var(--soft)",
    "titleColor": "var(--soft)",
    "domainColor": "var(--line)",
    "tickColor": "var(--line)",
    "gridColor": "var(--line)",
    "titleFontWeight": "normal",
    "labelFontSize": 11,
    "titleFontSize": 11,
}


_AT = {"field": "at", "type": "quantitative"}
_COLOUR = {
    "field": "side",
    "type": "nominal",
    "legend": None,
    "scale": {"domain": ["base", "head"], "range": ["var(--base-dot)", "var(--head-dot)"]},
}
_RANGES = (
    N_("%(count)s samples from %(least)s to %(most)s"),
    N_("%(count)s of base from %(least)s to %(most)s"),
)


@dataclass(frozen=True)
class Drawing:
    """The inside of an `<svg>` with its `viewBox`; `beyond` is how many samples lie right of it, and `based`
    whether base's own are in it."""

    box: str
    body: str
    description: str
    beyond: int
    based: bool = False


def available() -> bool:
    """Whether charts can be drawn here."""
    return importlib.util.find_spec("vl_convert") is not None


def distribution(case: CaseResult, samples: Sequence[int], base: Sequence[int] = ()) -> Drawing | None:
    """How a case's samples of all launches lie, beside base's own where there are any, and beside the
    baseline's median where not. None without vl-convert."""
    if len(samples) < 2 or not available():
        return None
    ordered, other = sorted(samples), sorted(base)
    both = [ordered, other] if len(other) > 1 else [ordered]
    most = max(_end(one) for one in both)
    range_ = (min(one[0] for one in both), most)
    marks = _marks(case, ordered, most, other)
    described = ", ".join(f"{mark['label']} {fmt.duration(mark['ns'])}" for mark in marks)
    values = "; ".join(
        gettext(words) % {"count": len(one), "least": fmt.duration(one[0]), "most": fmt.duration(one[-1])}
        for one, words in zip(both, _RANGES, strict=False)
    )
    # The same bins on both sides, or their heights would say nothing.
    bins = min(_BINS, max(8, math.isqrt(min(map(len, both)))))
    steps = [_steps(one, range_, bins) for one in both]
    unit = next(one for one in reversed(fmt.TIME_UNITS) if most >= one[1] or one[1] == 1.0)
    box, body = draw(_plan(steps[0], steps[1] if len(both) > 1 else [], marks, unit))
    beyond = sum(x > most for one in both for x in one)
    return Drawing(box, body, f"{values}; {described}.", beyond, based=len(both) > 1)


def _end(ordered: Sequence[int]) -> int:
    """Where a side's samples are cut off."""
    return ordered[min(len(ordered) - 1, math.ceil(_CUT * len(ordered)))]


def draw(plan: dict[str, Any]) -> tuple[str, str]:
    """A Vega-Lite plan as the view box and the inside of an SVG that is safe to put into a page.

    What vl-convert escapes stays escaped; attributes that repeat the page's own style are left out.
    """
    import vl_convert

    svg = str(vl_convert.vegalite_to_svg(plan, show_warnings=False))
    opening = _OPENING.search(svg)
    if opening is None:
        raise ValueError("vl-convert drew no SVG")
    body = svg[opening.end() : svg.rindex("</svg>")]
    kept = _NOISE.sub("", _INVISIBLE.sub("", body))
    return opening["box"], _VALUE.sub(lambda value: _LONG.sub(r"\1", value[0]), kept)


def _steps(ordered: Sequence[int], range_: tuple[int, int], bins: int) -> list[dict[str, float]]:
    """The outline of a histogram over a range: where each bin begins and how many samples it holds."""
    least, most = range_
    width = (most - least) / bins or 1.0
    counts = Counter(min(bins - 1, int((x - least) / width)) for x in ordered if x <= most)
    steps = [{"from": least + place * width, "count": counts[place]} for place in range(bins)]
    return [*steps, {"from": least + bins * width, "count": counts[bins - 1]}]


def _marks(case: CaseResult, ordered: Sequence[int], most: int, other: Sequence[int]) -> list[dict[str, Any]]:
    marks: list[dict[str, Any]] = [
        {"label": "p50", "ns": statistics.median(ordered), "side": "head"},
        {"label": "p99", "ns": ordered[max(0, math.ceil(0.99 * len(ordered)) - 1)], "side": "head"},
    ]
    if len(other) > 1:
        return [*marks, {"label": gettext("base p50"), "ns": statistics.median(other), "side": "base"}]
    base = middle(column(case, "base", "latency_ns"))
    if base is not None and ordered[0] / 3 < base < most * 3:
        marks.append({"label": gettext("baseline"), "ns": base, "side": "base"})
    return marks


def _plan(
    steps: list[dict[str, float]],
    base: list[dict[str, float]],
    marks: list[dict[str, Any]],
    unit: tuple[str, float],
) -> dict[str, Any]:
    """Head's samples as an area, base's own as an outline over it, the marks as lines with their names."""
    scale = unit[1]
    lines = {"values": [{**mark, "at": mark["ns"] / scale} for mark in marks]}
    outline = [_outline(base, scale)] if base else []
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "width": _SIZE[0],
        "height": _SIZE[1],
        "background": None,
        "padding": 2,
        "layer": [
            {"layer": [_area(steps, unit), *outline]},
            {
                "data": lines,
                "mark": {"type": "rule", "strokeWidth": 2, "strokeDash": [5, 3], "aria": False},
                "encoding": {"x": _AT, "color": _COLOUR},
            },
            _names(lines),
        ],
        "resolve": {"scale": {"y": "independent"}},
        "config": {"aria": False, "view": {"stroke": None}, "axis": AXIS},
    }


def _shown(steps: list[dict[str, float]], scale: float) -> dict[str, Any]:
    return {"values": [{"from": step["from"] / scale, "count": step["count"]} for step in steps]}


def _area(steps: list[dict[str, float]], unit: tuple[str, float]) -> dict[str, Any]:
    """Head's histogram, with the axes that all layers share."""
    across = {
        "field": "from",
        "type": "quantitative",
        "title": gettext("latency (%(unit)s)") % {"unit": unit[0]},
        "scale": {"zero": False, "nice": False},
        "axis": {"grid": False, "tickCount": 6},
    }
    up = {
        "field": "count",
        "type": "quantitative",
        "title": gettext("samples"),
        "axis": {"tickCount": 3, "format": "d", "grid": False},
    }
    return {
        "data": _shown(steps, unit[1]),
        "mark": {"type": "area", "interpolate": "step-after", "color": "var(--bar)", "aria": False},
        "encoding": {"x": across, "y": up},
    }


def _outline(steps: list[dict[str, float]], scale: float) -> dict[str, Any]:
    """Base's histogram: a line, so that it differs from head's area by more than its colour."""
    return {
        "data": _shown(steps, scale),
        "mark": {"type": "line", "interpolate": "step-after", "strokeWidth": 2, "color": "var(--base-dot)"},
        "encoding": {
            "x": {"field": "from", "type": "quantitative"},
            "y": {"field": "count", "type": "quantitative"},
        },
    }


def _names(lines: dict[str, Any]) -> dict[str, Any]:
    """The marks' names, one below another so that near ones stay legible."""
    order = {
        "field": "label",
        "type": "nominal",
        "axis": None,
        "sort": None,
        "scale": {"range": [8, 54]},
    }
    return {
        "data": lines,
        "mark": {"type": "text", "align": "left", "dx": 4, "aria": False, "fontSize": 12},
        "encoding": {"x": _AT, "y": order, "text": {"field": "label"}, "color": _COLOUR},
    }
