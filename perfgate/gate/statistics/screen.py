"""The screen: a few launches of head against the stored ones. It may pass a case; it never fails one."""

from __future__ import annotations

import math
from collections.abc import Sequence

from perfgate.gate.statistics.intervals import interval, side_variance
from perfgate.gate.statistics.noise import Spread
from perfgate.records import Interval, Tolerance

# One in a thousand beyond either end: what the screen passes nobody looks at again, and a slowdown half as
# large again as *catch* is to be caught 99.9 times of 100, on another machine than the baseline's too.
SCREEN_CONFIDENCE = 0.998


def screen(
    base: Sequence[Sequence[float]], head: Sequence[float], tolerance: Tolerance, spread: Spread
) -> Interval:
    """The interval for head / base; `base` holds one list of launch medians (ns) a stored run.

    Base is the mean of its runs' log means and head one more run: a prediction interval for a new run, with
    variance (T2 + s2/n) / runs on base's side and T2 + s2/m on head's, degrees of freedom by Welch and
    Satterthwaite (Welch, Biometrika 34, 1947). No multiplicity correction: a suspect alone fails nothing.
    """
    runs = [[math.log(value) for value in run] for run in base if run]
    new = [math.log(value) for value in head]
    variance, dof = side_variance([*runs, new], spread.launch_cv, spread.launch_dof)
    per_launch = math.fsum(1 / len(run) for run in runs) / len(runs) ** 2 + 1 / len(new)
    launches2 = variance * per_launch
    runs2 = spread.run_cv**2 * (1 + 1 / len(runs))
    se2 = launches2 + runs2
    effective = se2**2 / (launches2**2 / dof + runs2**2 / spread.run_dof)
    means = [math.fsum(run) / len(run) for run in runs]
    difference = math.fsum(new) / len(new) - math.fsum(means) / len(means)
    return interval(difference, math.sqrt(se2), effective, SCREEN_CONFIDENCE)


def clear(ratio: Interval, tolerance: Tolerance) -> bool:
    """Clearly under *catch*, and not clearly faster: PASS. Anything else, better or worse, is a suspect."""
    return ratio.high < 1 + tolerance.catch and not ratio.high < 1 / (1 + tolerance.ignore)


def worth_screening(runs: Sequence[int], launches: int, tolerance: Tolerance, spread: Spread) -> bool:
    """Whether a head exactly as fast as base would pass the screen; `runs` are the stored runs' launches.

    Where it would not, the stored runs are too few or too far apart, and the launches are better spent on the
    confirmation at once.
    """
    same = screen([[1.0] * count for count in runs], [1.0] * launches, tolerance, spread)
    return clear(same, tolerance)
