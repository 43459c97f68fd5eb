"""A launch far outside its side's others is measured again and shown. If it recurs it counts; none is dropped
silently."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from perfgate.gate.statistics.noise import LAUNCH_CV, Spread
from perfgate.records import Record

# Two clusters of launches lie two or three standard deviations apart and both are ordinary. Six are beyond
# either: of normal launches one in 500 million.
FAR = 6.0
# A calm history must not make an outlier of the other cluster: nothing nearer than six of the prior's.
NEAREST = FAR * LAUNCH_CV["gpu"]
# With two values neither is the odd one out.
LEAST = 3


class Settled(Record):
    """The launch medians that count, in their order, and those that are shown beside them: each index with
    the value that was measured once and did not come back."""

    counted: tuple[float, ...]
    shown: tuple[tuple[int, float], ...] = ()


def to_repeat(values: Sequence[float], history: Sequence[float], spread: Spread) -> tuple[int, ...]:
    """The indices of launches to measure again: farther from the median of the side's launches and history
    than `FAR` coefficients of variation and `NEAREST`, up or down. `history` are earlier ones of the same
    side."""
    known = [*values, *history]
    if len(known) < LEAST:
        return ()
    centre, limit = math.log(statistics.median(known)), max(FAR * spread.launch_cv, NEAREST)
    return tuple(index for index, value in enumerate(values) if abs(math.log(value) - centre) > limit)


def settle(
    values: Sequence[float], repeats: Mapping[int, float], history: Sequence[float], spread: Spread
) -> Settled:
    """What counts after the repeats: where a repeat is far outside too, the launch counts as it was measured;
    otherwise the repeat takes its place and the launch is shown."""
    counted, shown = list(values), []
    others = [value for index, value in enumerate(values) if index not in repeats]
    for index, again in sorted(repeats.items()):
        if not to_repeat([again], [*others, *history], spread):
            shown.append((index, values[index]))
            counted[index] = again
    return Settled(counted=tuple(counted), shown=tuple(shown))
