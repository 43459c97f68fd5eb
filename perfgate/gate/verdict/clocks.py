"""Clocks as evidence: who clocked lower, and whether both sides moved together. Never a veto by itself."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from perfgate.gate.statistics.sequential import ALPHA
from perfgate.records import Launch, Tolerance

# A clock that explains less than half of a slowdown is a symptom beside another cause.
EXPLAINS = 0.5
# Fewer pairs cannot show a shift of both sides at the gate's own certainty.
LEAST_PAIRS = 4


def lower_clock(base: Sequence[Launch], head: Sequence[Launch], ratio: float) -> str:
    """The words for a head that alone clocks lower, by enough to explain half of its slowdown; else empty.

    A head that draws more power clocks lower and *is* slower: that is a cause (`clock/power`), no excuse.
    """
    clocks = [[mhz for launch in side if (mhz := sm_clock_mhz(launch))] for side in (base, head)]
    if not all(clocks) or ratio <= 1:
        return ""
    base_mhz, head_mhz = (statistics.fmean(side) for side in clocks)
    # Ranges that overlap are the same clock; as many launches a side as decide a verdict tell that well.
    if head_mhz >= base_mhz or max(clocks[1]) >= min(clocks[0]):
        return ""
    if math.log(base_mhz / head_mhz) < EXPLAINS * math.log(ratio):
        return ""
    return f"head alone clocks lower, {head_mhz:.0f} MHz where base has {base_mhz:.0f}: it draws more power"


def sm_clock_mhz(launch: Launch) -> float | None:
    """The mean SM clock while samples were taken, or None where it is not known."""
    clocks = launch.telemetry.sm_clock_mhz if launch.telemetry else ()
    return statistics.fmean(clocks) if clocks else None


def shared_shift(base: Sequence[float], head: Sequence[float], tolerance: Tolerance) -> str:
    """The words for a shift that both sides share, from fresh launch medians in the order taken; else empty.

    With independent launches the mean and the difference of `base[i]` and `head[i]` vary alike, so that
    4 var(mean) / var(difference) has Fisher's F distribution (Pitman, Biometrika 31, 1939). A mean that
    varies more at the level of an alarm, and by more than *catch*, is the machine's doing.
    """
    from scipy.special import fdtrc

    pairs = [(math.log(b), math.log(h)) for b, h in zip(base, head, strict=False)]
    if len(pairs) < LEAST_PAIRS:
        return ""
    means = [(b + h) / 2 for b, h in pairs]
    common = statistics.variance(means)
    own = statistics.variance([h - b for b, h in pairs])
    dof = len(pairs) - 1
    significant = own == 0 < common or (own > 0 and fdtrc(dof, dof, 4 * common / own) < ALPHA)
    moved = max(means) - min(means)
    if not significant or moved <= math.log1p(tolerance.catch):
        return ""
    return f"both sides moved together by {math.expm1(moved) * 100:.1f} % meanwhile: the machine changed"
