"""The trends of cases, read from the history: promoted runs marked, changes of the environment told."""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from perfgate.errors import UsageError
from perfgate.history.change_points import IGNORE, change_points, environment_changes
from perfgate.history.rows import mark_promoted, promotions
from perfgate.records import Facts, RunResult
from perfgate.records.trend import Point, Trend

if TYPE_CHECKING:
    from perfgate.history.store import History


def case_trends(
    case: str, points: Iterable[Point], *, metric: str = "latency_ns", ignore: float = IGNORE
) -> list[Trend]:
    """The points of one case as a trend a device, in the order of the devices' names. Points without a
    positive finite value are left out; nothing is compared across devices."""
    devices: dict[str, list[Point]] = defaultdict(list)
    for point in points:
        if math.isfinite(point.value) and point.value > 0:
            devices[point.device].append(point)
    return [
        Trend(
            case=case,
            device=device,
            metric=metric,
            points=tuple(found),
            changes=change_points(found, ignore=ignore),
            events=environment_changes(found),
        )
        for device, found in sorted(devices.items())
    ]


def read_trends(
    history: History,
    baselines: Path,
    cases: Sequence[str] = (),
    *,
    metric: str = "latency_ns",
    since: str | None = None,
    branch: str | None = None,
) -> Iterator[Trend]:
    """The trends of `cases` (all of them, when empty), one case at a time.

    `baselines` is the folder that names the promoted runs. Raises `UsageError` for an unknown case.
    """
    known = history.case_ids()
    if unknown := [case for case in cases if case not in known]:
        near = ", ".join(known[:10]) or "none; `perfgate history add` stores runs"
        raise UsageError(f"no run of {unknown[0]!r} is stored", where="CASE", fix=f"stored cases: {near}")
    promoted = promotions(baselines)
    environment = functools.cache(history.environment)
    for case in cases or known:
        points = mark_promoted(history.series(case, metric, since=since, branch=branch), promoted)
        for trend in case_trends(case, points, metric=metric):
            events = (
                replace(one, what=_difference(environment(one.before).key, environment(one.after).key))
                for one in trend.events
            )
            yield replace(trend, events=tuple(events))


def run_trends(result: RunResult, history: History, baselines: Path) -> dict[str, Trend]:
    """The latency of a run's cases in the history, on the run's device, by case."""
    stored = set(history.case_ids())
    cases = [case.case.id for case in result.cases if case.case.id in stored]
    trends = read_trends(history, baselines, cases) if cases else ()
    return {trend.case: trend for trend in trends if trend.device == result.environment.device}


def _difference(before: Facts, after: Facts) -> str:
    fields = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    told = [f"{name} {before.get(name, '(absent)')} to {after.get(name, '(absent)')}" for name in fields[:6]]
    if len(fields) > 6:
        told.append(f"and {len(fields) - 6} more")
    return ", ".join(told) or "another key"
