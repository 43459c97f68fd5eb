"""The trend of a case on one device: its nights, where its level moved, where its environment changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from perfgate.history.change_points import (
    IGNORE,
    ChangePoint,
    EnvironmentEvent,
    change_points,
    environment_events,
)
from perfgate.history.points import Point
from perfgate.records import Record

if TYPE_CHECKING:
    from perfgate.history.store import History


class Trend(Record):
    """One case on one device, oldest night first. Nothing is compared across devices."""

    case: str
    device: str
    metric: str
    points: tuple[Point, ...]
    changes: tuple[ChangePoint, ...] = ()
    events: tuple[EnvironmentEvent, ...] = ()


def case_trends(
    case: str, points: Iterable[Point], *, metric: str = "latency_ns", ignore: float = IGNORE
) -> list[Trend]:
    """The points of one case as a trend a device, in the order of the devices' names."""
    devices: dict[str, list[Point]] = {}
    for point in points:
        devices.setdefault(point.device, []).append(point)
    return [
        Trend(
            case=case,
            device=device,
            metric=metric,
            points=tuple(found),
            changes=change_points(found, ignore=ignore),
            events=environment_events(found),
        )
        for device, found in sorted(devices.items())
    ]


def read_trends(
    history: History,
    cases: Sequence[str],
    *,
    metric: str = "latency_ns",
    since: str | None = None,
    branch: str | None = None,
) -> Iterator[Trend]:
    """The trends of `cases` (all of them, when empty), one case at a time."""
    for case in cases or history.case_ids():
        points = history.series(case, metric, since=since, branch=branch)
        yield from case_trends(case, points, metric=metric)
