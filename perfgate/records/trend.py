"""The trend of a case: its runs over time, where its level moved, where its environment changed."""

from __future__ import annotations

from typing import Literal

from perfgate.records.base import Record
from perfgate.records.judgement import Interval


class Point(Record):
    """One measurement of a case: `values` holds one value a launch, `value` their geometric mean. `created`
    is ISO 8601 in UTC, `environment` the digest of the environment's key."""

    run_id: str
    created: str
    commit: str
    environment: str
    device: str
    toolchain: str
    verdict: str
    value: float
    values: tuple[float, ...]
    promoted: bool = False

    @property
    def low(self) -> float:
        """The lowest launch."""
        return min((*self.values, self.value))

    @property
    def high(self) -> float:
        """The highest launch."""
        return max((*self.values, self.value))


class LevelChange(Record):
    """The level moved. `index` is the first point at the new level, `ratio` new over old geometric mean,
    `commits` the last one before and the first one after."""

    index: int
    ratio: Interval
    cause: Literal["commit", "environment"]
    commits: tuple[str, str]


class EnvironmentChange(Record):
    """The environment's key changed. `index` is the first point in the new one, `before` and `after` the
    keys' digests; `what` says in which fields, where that is known."""

    index: int
    before: str
    after: str
    what: str = ""


class Trend(Record):
    """One case on one device, oldest point first; every value is finite and positive."""

    case: str
    device: str
    metric: str
    points: tuple[Point, ...]
    changes: tuple[LevelChange, ...] = ()
    events: tuple[EnvironmentChange, ...] = ()
