"""Real A/A gates: launches of one engine dealt to two sides, and what the sequential test makes of them."""

from __future__ import annotations

from collections.abc import Sequence

from perfgate.gate.statistics.noise import Spread
from perfgate.gate.statistics.power import upper_bound
from perfgate.gate.statistics.sequential import blocks, decide_next
from perfgate.records import Record, Tolerance, Verdict


class AAResult(Record):
    """How gates of an engine against itself ended. `upper` is the exact 95 % upper bound on the rate of
    `alarms`; a gate that ran out of launches before its verdict is not counted."""

    gates: int
    alarms: int
    improvements: int
    undecided: int
    upper: float


def run_aa_gates(launches_ns: Sequence[float], tolerance: Tolerance, spread: Spread, budget: int) -> AAResult:
    """Gate after gate over launches in the order taken; the next begins where the last was decided."""
    order, left = blocks(0), list(launches_ns)
    found: list[Verdict | None] = []
    sides: dict[str, list[float]] = {"base": [], "head": []}
    while len(left) >= 4:
        for side in next(order):
            sides[side].append(left.pop(0))
        verdict = decide_next(sides["base"], sides["head"], tolerance, spread).verdict
        if verdict is not None or len(sides["head"]) + 2 > budget:
            found.append(verdict)
            sides = {"base": [], "head": []}
    alarms = found.count(Verdict.REGRESSION)
    return AAResult(
        gates=len(found),
        alarms=alarms,
        improvements=found.count(Verdict.IMPROVEMENT),
        undecided=found.count(None),
        upper=upper_bound(alarms, len(found)) if found else 1.0,
    )
