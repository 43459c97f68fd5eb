"""A static site of trends: an index, a page for each model and device, a page and a data file for each case.

No script, no request to anyone, and a policy that forbids both. The same trends make the same bytes.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from perfgate.records.trend import Point, Trend
from perfgate.report import format as fmt
from perfgate.report.run.view import Tag
from perfgate.report.templating import content_policy, page_environment
from perfgate.report.trend import view as view
from perfgate.report.trend.chart import chart, spark_path

TABLE_NIGHTS = 90  # in the page; the data file beside it holds every run
SPARKS = 400  # rows with a sparkline: more would make the index larger than a page should be
_LISTED = 200  # changes and events that a page lists


@dataclass(frozen=True)
class SiteRow:
    """One line of the index."""

    case: str
    href: str
    model: str
    device: str
    spark: str
    value: str
    tag: Tag
    day: str
    change: view.Move | None


@dataclass(frozen=True)
class Link:
    """A filter: another page with fewer rows. `count` is how many."""

    label: str
    href: str
    count: int
    current: bool


def render_site(
    trends: Sequence[Trend], *, title: str = "Inference performance"
) -> Iterator[tuple[str, str]]:
    """Every file of the site as (path within it, text). Hostile text is shown as text."""
    title = fmt.line(title) or "Inference performance"
    ordered = sorted(trends, key=lambda one: (one.case, one.device, one.metric))
    names = [_name(f"{one.case}", one.case, one.device, one.metric) for one in ordered]
    rows = [_row(one, name) for one, name in zip(ordered, names, strict=True)]
    for name, kind, value in _filters(rows):
        chosen = [row for row in rows if kind == "" or getattr(row, kind) == value]
        links = [(word, _links(rows, word, kind, value)) for word in ("model", "device")]
        yield f"{name}.html", _page(
            "site_index.html.j2", title=title, rows=chosen, links=links, everything=len(rows), sparks=SPARKS,
            here="" if kind == "" else value, all_href="index.html",
            newest=max((view.day(one.points[-1]) for one in ordered), default=""),
        )  # fmt: skip
    for one, name in zip(ordered, names, strict=True):
        yield f"{name}.html", _case_page(one, name, title)
        yield f"{name}.json", _data(one)


def _case_page(trend: Trend, name: str, title: str) -> str:
    changes = view.moves(trend)
    events = [(view.day(trend.points[one.index]), fmt.line(one.what, 600)) for one in trend.events]
    last = trend.points[-1]
    facts = (
        ("Device", fmt.line(trend.device)),
        ("Toolchain", fmt.line(last.toolchain)),
        ("Metric", fmt.line(trend.metric)),
        ("Last run", fmt.line(last.created, 40)),
        ("Last commit", view.short(last.commit)),
        ("Runs", str(len(trend.points))),
    )
    return _page(
        "site_case.html.j2", title=title, case=fmt.line(trend.case), chart=chart(trend), facts=facts,
        value=view.quantity(last.value, trend.metric), tag_of_last=view.verdict_tag(last.verdict),
        changes=changes[-_LISTED:], events=events[-_LISTED:], listed=_LISTED,
        totals=(len(changes), len(events)),
        nights=[_night(trend, point) for point in reversed(trend.points[-TABLE_NIGHTS:])],
        nights_total=len(trend.points), data=f"{name}.json",
    )  # fmt: skip


def _night(trend: Trend, point: Point) -> tuple[object, ...]:
    metric = trend.metric
    return (
        fmt.line(point.created, 40),
        view.short(point.commit),
        view.verdict_tag(point.verdict),
        view.quantity(point.value, metric),
        view.quantity(point.low, metric),
        view.quantity(point.high, metric),
        len(point.values),
        "promoted" if point.promoted else "",
    )


def _row(trend: Trend, name: str) -> SiteRow:
    last = trend.points[-1]
    return SiteRow(
        case=fmt.line(trend.case),
        href=f"{name}.html",
        model=fmt.line(trend.case.partition("/")[0]) or fmt.NOTHING,
        device=fmt.line(trend.device) or fmt.NOTHING,
        spark=spark_path([point.value for point in trend.points]),
        value=view.quantity(last.value, trend.metric),
        tag=view.verdict_tag(last.verdict),
        day=view.day(last),
        change=next(iter(view.moves(trend, 1)), None),
    )


def _filters(rows: Sequence[SiteRow]) -> list[tuple[str, str, str]]:
    """(file name, field, value) of the index and of each page with fewer rows."""
    pages = [("index", "", "")]
    for kind in ("model", "device"):
        values = sorted({getattr(row, kind) for row in rows})
        pages += [(_name(f"{kind}-{value}", kind, value), kind, value) for value in values]
    return pages


def _links(rows: Sequence[SiteRow], word: str, kind: str, value: str) -> list[Link]:
    values = sorted({getattr(row, word) for row in rows})
    return [
        Link(
            label=one,
            href=f"{_name(f'{word}-{one}', word, one)}.html",
            count=sum(getattr(row, word) == one for row in rows),
            current=(word, one) == (kind, value),
        )
        for one in values
    ]


def _name(readable: str, *identity: str) -> str:
    """A file name that any server and file system takes; the digest keeps apart what reads alike."""
    slug = re.sub(r"[^a-z0-9]+", "-", readable[:200].lower()).strip("-")[:60]
    text = "\0".join(identity).encode("utf-8", "surrogatepass")
    return f"{slug or 'case'}-{hashlib.sha256(text).hexdigest()[:10]}"


def _data(trend: Trend) -> str:
    """Every point as JSON, one a line."""
    head = {
        "schema": "perfgate-trt/trend/v1",
        "case": trend.case,
        "device": trend.device,
        "metric": trend.metric,
    }
    lines = [
        json.dumps(
            {
                "created": point.created,
                "commit": point.commit,
                "environment": point.environment,
                "promoted": point.promoted,
                "run": point.run_id,
                "toolchain": point.toolchain,
                "value": float(f"{point.value:.9g}"),
                "values": [float(f"{value:.9g}") for value in point.values],
                "verdict": point.verdict,
            },
            allow_nan=False,
        )
        for point in trend.points
    ]
    opening = json.dumps(head, indent=1)[:-2]
    return opening + ',\n "nights": [\n' + ",\n".join(lines) + "\n ]\n}\n"


def _page(template: str, **values: object) -> str:
    return page_environment().get_template(template).render(policy=_policy(), **values)


@functools.cache
def _policy() -> str:
    return content_policy(page_environment().get_template("site_style.css.j2").render())
