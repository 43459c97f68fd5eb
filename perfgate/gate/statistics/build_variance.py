"""Build luck: the same model built again may be another engine, and a slower one. A level of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace

from perfgate.gate.statistics.noise import BUILD_CV
from perfgate.gate.statistics.sequential import Decision
from perfgate.records import EngineFacts, RebuildPolicy, Tolerance, Verdict

_GOOD: Final = (Verdict.PASS, Verdict.IMPROVEMENT)


def untuned_share(facts: EngineFacts | None) -> float:
    """The share of tactics that were timed for this very build, so that another build may choose otherwise.

    What TensorRT 8.5 tells of hits and misses is only by how much the timing cache grew. The cache keeps
    what this engine does not use; reformats, and most of what Myelin compiles, are timed anew without a trace
    in it (on H200s engines of ResNet-50 from one cache lay up to 0.5 % apart). So the share is the least that
    it can be. An engine without a timing cache has no luck, and nothing is said of one whose build did not
    tell what it found.
    """
    if facts is None or not facts.timing_cache_bytes or facts.timing_cache_loaded_bytes is None:
        return 0.0
    return max(0.0, 1 - facts.timing_cache_loaded_bytes / facts.timing_cache_bytes)


def untuned_share_between(base: EngineFacts | None, head: EngineFacts | None) -> float:
    """The larger share of two engines that are compared; nothing between the same bytes."""
    if base and head and base.digest == head.digest:
        return 0.0
    return max(untuned_share(base), untuned_share(head))


def widened(tolerance: Tolerance, share: float) -> Tolerance:
    """What to ignore and what to catch between engines of which this share was timed anew.

    Layers draw their tactics apart, so the variance of a build is in proportion to the share that was drawn,
    share * BUILD_CV^2, and that of the difference of two builds is twice as large. Where three standard
    deviations of that difference lie beyond the middle of *ignore* and *catch*, both move up by what is
    lacking: then a model that did not change is a REGRESSION in at most 0.02 % of gates, all of its builds
    held, if BUILD_CV is what builds differ by (`tests/benchmarks/false_alarms.py` also says where it is more;
    `power.py` what it costs). A layer or two of a new shape move nothing.
    """
    reach = 3 * math.sqrt(2 * share) * BUILD_CV
    more = max(0.0, reach - (tolerance.ignore + tolerance.catch) / 2)
    return replace(tolerance, ignore=tolerance.ignore + more, catch=tolerance.catch + more)


def good(decision: Decision) -> bool:
    """Whether a build passes."""
    return decision.verdict in _GOOD


def over_builds(decisions: Sequence[Decision], draws: RebuildPolicy) -> tuple[int, Decision]:
    """Which build of head is gated, and the decision over all of them, each held against the same base.

    `best`: the build that passes, else the fastest; the engine that is gated is the one that is exported.
    `any`: all builds must fare alike, or the verdict depends on the build drawn and is INCONCLUSIVE; so it is
    where fewer passed than were to be looked at. The code is `build` where builds fared differently, and the
    spread of the builds is in `note`.
    """
    order = sorted(range(len(decisions)), key=lambda index: decisions[index].ratio.estimate)
    code = "build" if len({_kind(one) for one in decisions}) > 1 else ""
    note = _spread(decisions) if len(decisions) > 1 else ""
    if draws.pick == "any":
        slowest = order[-1]
        missing = len(decisions) < draws.builds and good(decisions[slowest])
        code = "build" if missing else code
        verdict = Verdict.INCONCLUSIVE if code else decisions[slowest].verdict
        note = f"{len(decisions)} of {draws.builds} builds could be held" if missing else note
        return slowest, replace(decisions[slowest], verdict=verdict, code=code, note=note)
    for kind in ("good", "open", "red"):
        for index in order:
            if _kind(decisions[index]) == kind:
                return index, replace(decisions[index], code=code, note=note)
    raise AssertionError("every decision is of a kind")


def fastest(builds: Sequence[Sequence[float]]) -> int:
    """The build with the least mean log of launch medians (ns); one without launches comes last."""
    centres = [math.fsum(map(math.log, values)) / len(values) if values else math.inf for values in builds]
    return centres.index(min(centres))


def _kind(decision: Decision) -> str:
    if decision.verdict is None:
        return "open"
    return "good" if good(decision) else "red"


def _spread(decisions: Sequence[Decision]) -> str:
    estimates = [one.ratio.estimate for one in decisions]
    apart = (max(estimates) / min(estimates) - 1) * 100
    return f"{len(decisions)} builds of head lie {apart:.1f} % apart"
