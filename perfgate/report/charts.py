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
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from perfgate.report import format as fmt
from perfgate.report.i18n import gettext
from perfgate.report.view import column, middle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perfgate.records import CaseResult

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


@dataclass(frozen=True)
class Drawing:
    """The inside of an `<svg>` with its `viewBox`; `beyond` is how many samples lie right of it."""

    box: str
    body: str
    description: str
    beyond: int


def available() -> bool:
    """Whether charts can be drawn here."""
    return importlib.util.find_spec("vl_convert") is not None


def distribution(case: CaseResult, samples: Sequence[int]) -> Drawing | None:
    """How a case's samples of all launches lie, beside the baseline's medians. None without vl-convert."""
    if len(samples) < 2 or not available():
        return None
    ordered = sorted(samples)
    most = ordered[min(len(ordered) - 1, math.ceil(_CUT * len(ordered)))]
    steps = _steps(ordered, most)
    marks = _marks(case, ordered, most)
    described = ", ".join(f"{mark['label']} {fmt.duration(mark['ns'])}" for mark in marks)
    values = gettext("%(count)s samples from %(least)s to %(most)s") % {
        "count": len(ordered),
        "least": fmt.duration(ordered[0]),
        "most": fmt.duration(ordered[-1]),
    }
    box, body = draw(_plan(steps, marks, _unit(most)))
    return Drawing(box, body, f"{values}; {described}.", sum(x > most for x in ordered))


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


def _steps(ordered: Sequence[int], most: int) -> list[dict[str, float]]:
    """The outline of a histogram: where each bin begins and how many samples it holds."""
    least = ordered[0]
    bins = min(_BINS, max(8, math.isqrt(len(ordered))))
    width = (most - least) / bins or 1.0
    counts = Counter(min(bins - 1, int((x - least) / width)) for x in ordered if x <= most)
    steps = [{"from": least + place * width, "count": counts[place]} for place in range(bins)]
    return [*steps, {"from": least + bins * width, "count": counts[bins - 1]}]


def _marks(case: CaseResult, ordered: Sequence[int], most: int) -> list[dict[str, Any]]:
    def rank(q: int) -> int:
        return ordered[max(0, math.ceil(q / 100 * len(ordered)) - 1)]

    base = middle(column(case, "base", "latency_ns"))
    marks: list[dict[str, Any]] = [
        {"label": "p50", "ns": statistics.median(ordered), "side": "head"},
        {"label": "p99", "ns": rank(99), "side": "head"},
    ]
    if base is not None and ordered[0] / 3 < base < most * 3:
        marks.append({"label": gettext("baseline"), "ns": base, "side": "base"})
    return marks


def _unit(most: float) -> tuple[str, float]:
    return next((unit, scale) for unit, scale in reversed(fmt.TIME_UNITS) if most >= scale or scale == 1.0)


def _plan(
    steps: list[dict[str, float]], marks: list[dict[str, Any]], unit: tuple[str, float]
) -> dict[str, Any]:
    name, scale = unit
    shown = [{"from": step["from"] / scale, "count": step["count"]} for step in steps]
    lines = [{**mark, "at": mark["ns"] / scale} for mark in marks]
    across: dict[str, Any] = {
        "field": "from",
        "type": "quantitative",
        "title": gettext("latency (%(unit)s)") % {"unit": name},
        "scale": {"zero": False, "nice": False},
        "axis": {"grid": False, "tickCount": 6},
    }
    up = {
        "field": "count",
        "type": "quantitative",
        "title": gettext("samples"),
        "axis": {"tickCount": 3, "format": "d", "grid": False},
    }
    at = {"field": "at", "type": "quantitative"}
    colour = {
        "field": "side",
        "type": "nominal",
        "legend": None,
        "scale": {"domain": ["base", "head"], "range": ["var(--base-dot)", "var(--head-dot)"]},
    }
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "width": _SIZE[0],
        "height": _SIZE[1],
        "background": None,
        "padding": 2,
        "layer": [
            {
                "data": {"values": shown},
                "mark": {"type": "area", "interpolate": "step-after", "color": "var(--bar)", "aria": False},
                "encoding": {"x": across, "y": up},
            },
            {
                "data": {"values": lines},
                "mark": {"type": "rule", "strokeWidth": 2, "strokeDash": [5, 3], "aria": False},
                "encoding": {"x": at, "color": colour},
            },
            {
                "data": {"values": lines},
                "mark": {"type": "text", "align": "left", "dx": 4, "aria": False, "fontSize": 12},
                "encoding": {
                    "x": at,
                    "y": {
                        "field": "label",
                        "type": "nominal",
                        "axis": None,
                        "sort": None,
                        "scale": {"range": [8, 54]},
                    },
                    "text": {"field": "label"},
                    "color": colour,
                },
            },
        ],
        "resolve": {"scale": {"y": "independent"}},
        "config": {
            "aria": False,
            "view": {"stroke": None},
            "axis": AXIS,
        },
    }
