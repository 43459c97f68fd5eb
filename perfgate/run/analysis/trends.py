"""Trends of the history as the reports show them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from perfgate.errors import UsageError
from perfgate.history.rows import mark_promoted, promotions
from perfgate.history.store import History
from perfgate.history.trend import Trend, read_trends
from perfgate.records import RunResult
from perfgate.report.trend.view import CaseTrend, Change, Event, Night


def run_trends(result: RunResult, history: History, baselines: Path) -> dict[str, CaseTrend]:
    """The latency of a run's cases in the history, on the run's device, by case."""
    stored = set(history.case_ids())
    cases = tuple(case.case.id for case in result.cases if case.case.id in stored)
    views = trend_views(history, cases, baselines, {}) if cases else ()
    return {view.case: view for view in views if view.device == result.environment.device}


def trend_views(
    history: History, cases: tuple[str, ...], baselines: Path, selection: Mapping[str, Any]
) -> Iterator[CaseTrend]:
    """The trends of `cases` (all of them, when empty) as reports show them, promoted runs marked.

    `baselines` is the folder that names the promoted runs. Raises `UsageError` for an unknown case.
    """
    known = set(history.case_ids())
    if unknown := [case for case in cases if case not in known]:
        near = ", ".join(sorted(known)[:10]) or "none; `perfgate history add` stores runs"
        raise UsageError(f"no run of {unknown[0]!r} is stored", where="CASE", fix=f"stored cases: {near}")
    names: dict[str, dict[str, str]] = {}
    promoted = promotions(baselines)
    for trend in read_trends(history, cases, **selection):
        points = tuple(mark_promoted(trend.points, promoted))
        trend = msgspec.structs.replace(trend, points=points)
        view = to_view(trend, lambda digest: _key(history, digest, names))
        if view is not None:
            yield view


def _key(history: History, digest: str, names: dict[str, dict[str, str]]) -> dict[str, str]:
    if digest not in names:
        names[digest] = dict(history.environment(digest).key)
    return names[digest]


def to_view(trend: Trend, key_of: Callable[[str], dict[str, str]]) -> CaseTrend | None:
    """A trend of the history as the reports show it; nothing where no night has a value to draw.

    Indexes move along when nights without a positive finite value are left out.
    """
    kept = [i for i, point in enumerate(trend.points) if math.isfinite(point.value) and point.value > 0]
    if not kept:
        return None
    place = {old: new for new, old in enumerate(kept)}
    nights = tuple(
        Night(
            run=point.run_id,
            created=point.created,
            commit=point.commit,
            verdict=point.verdict,
            environment=point.environment,
            toolchain=point.toolchain,
            value=point.value,
            values=tuple(value for value in point.values if math.isfinite(value) and value > 0),
            promoted=point.promoted,
        )
        for point in (trend.points[i] for i in kept)
    )
    changes = tuple(
        Change(
            index=place[one.index],
            created=one.created,
            ratio=one.ratio,
            low=one.low,
            high=one.high,
            by_environment=one.cause == "environment",
            commits=one.commits,
        )
        for one in trend.changes
    )
    events = tuple(
        Event(
            index=place[one.index],
            created=one.created,
            what=_difference(key_of(one.before), key_of(one.after)),
        )
        for one in trend.events
        if one.index in place
    )
    return CaseTrend(trend.case, trend.device, trend.metric, nights, changes, events)


def _difference(before: dict[str, str], after: dict[str, str]) -> str:
    fields = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    told = [f"{name} {before.get(name, '(absent)')} to {after.get(name, '(absent)')}" for name in fields[:6]]
    if len(fields) > 6:
        told.append(f"and {len(fields) - 6} more")
    return ", ".join(told) or "another key"
