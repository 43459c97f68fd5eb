"""What the history tells of one case in one run."""

from __future__ import annotations

from perfgate.records import Record


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
