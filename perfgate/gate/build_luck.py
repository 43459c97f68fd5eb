"""Build luck: the same model built again may be another engine, and a slower one. A level of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import msgspec

from perfgate.gate.sequential import Decision, decide_next
from perfgate.gate.spread import Spread
from perfgate.records import Tolerance, Verdict

# Fixed beforehand. One fresh build of five ran 17 % slower on an H200, so six slow ones in a row are bad luck
# once in 15,600 times (0.2^6), under the one in 5,000 (ALPHA) that the gate allows itself; five are not.
BUILDS = 6


def decide_builds(
    base_builds: Sequence[Sequence[float]],
    head_builds: Sequence[Sequence[float]],
    tolerance: Tolerance,
    spread: Spread,
    pick: Literal["best", "any"] = "best",
) -> Decision:
    """The decision over several builds of each side, given one list of launch medians (ns) a build.

    `best` holds the fastest build of base against the fastest of head, on both sides alike: the engine that
    is gated is the one that is exported. `any` is for those who build again at deployment: every build of
    head must then fare alike against every build of base, or the verdict depends on the build drawn and is
    INCONCLUSIVE, code `build`. The spread of either side's builds is in `note`.
    """
    note = _spread_of_builds(base_builds, head_builds)
    base_best, head_best = (min(side, key=_centre) for side in (base_builds, head_builds))
    best = _decide(base_best, head_best, tolerance, spread)
    drawn = [_decide(base, head, tolerance, spread) for base in base_builds for head in head_builds]
    verdicts = {decision.verdict for decision in drawn}
    if None in verdicts or len({_harsh(verdict) for verdict in verdicts}) == 1:
        undecided = next((decision for decision in drawn if decision.verdict is None), None)
        chosen = best if pick == "best" or undecided is None else undecided
        return msgspec.structs.replace(chosen, note=note)
    if pick == "best":
        return msgspec.structs.replace(best, code="build", note=note)
    return msgspec.structs.replace(best, verdict=Verdict.INCONCLUSIVE, code="build", note=note)


def _decide(base: Sequence[float], head: Sequence[float], tolerance: Tolerance, spread: Spread) -> Decision:
    return decide_next(base, head, tolerance, spread)


def _harsh(verdict: Verdict | None) -> bool:
    return verdict is Verdict.REGRESSION


def _centre(values: Sequence[float]) -> float:
    return math.fsum(math.log(value) for value in values) / len(values)


def _spread_of_builds(*sides: Sequence[Sequence[float]]) -> str:
    parts = []
    for name, builds in zip(("base", "head"), sides, strict=True):
        centres = [math.exp(_centre(build)) for build in builds]
        share = (max(centres) / min(centres) - 1) * 100
        parts.append(f"{len(builds)} builds of {name} lie {share:.1f} % apart")
    return "; ".join(parts)
