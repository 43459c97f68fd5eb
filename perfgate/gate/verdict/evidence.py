"""What the gate may know of a case beside its launches and its baseline."""

from __future__ import annotations

from perfgate.gate.statistics.noise import Spread
from perfgate.gate.statistics.sequential import Decision
from perfgate.records import (
    CaseResult,
    Confirmation,
    EngineFacts,
    Interval,
    Launch,
    MetricColumns,
    Protocol,
    Record,
)


class ConfirmedLaunches(Record):
    """A confirmation: base's fresh launches (head's are the outcome's), in the order taken, and what the
    sequential test made of both. A decision without a verdict is one that ran out of budget.

    `shown` are launches that were measured again because they lay far out, and did not recur. `engine` is
    base's, where it was built here: what it weighs is base's own and not the baseline's.
    """

    base: tuple[Launch, ...]
    decision: Decision
    confirmation: Confirmation
    shown: tuple[Launch, ...] = ()
    engine: EngineFacts | None = None


class ServiceLatency(Record):
    """The tail under a promised load: its P99, the queries a second that one lane serves, or `why` there is
    neither. Without a P99 the load is more than that."""

    p99_ms: float | None = None
    capacity_qps: float = 0.0
    why: str = ""


class Evidence(Record):
    """All optional. `relied_on` are the numbers that an `Unchanged` stands for where they are not the
    baseline's own; `screened` is the screen's interval; `fresh` the confirmation of a suspect; `spread` that
    of the case's history; `service` the tail with queueing at the load that the SLO names; `share` says how
    much of head's engine no timing cache told, where it is held against stored launches; `launches` how many
    valid ones make the case, where that is not the protocol's number."""

    relied_on: MetricColumns = {}
    screened: Interval | None = None
    fresh: ConfirmedLaunches | None = None
    spread: Spread | None = None
    service: ServiceLatency | None = None
    share: float = 0.0
    launches: int | None = None


NONE = Evidence()


def launches_wanted(case: CaseResult, protocol: Protocol) -> int:
    """How many valid launches make a case's result whole: the protocol's number, or as many as a sequential
    test took to decide."""
    confirmation = case.judgement.confirmation if case.judgement else None
    if confirmation is None or not confirmation.decided or not confirmation.base_launches:
        return protocol.launches
    return max(2, min(protocol.launches, confirmation.head_launches))
