"""The interval for head / base, from launches. Pure; each formula with its source."""

from __future__ import annotations

import math
from collections.abc import Sequence

from perfgate.records import Interval

CONFIDENCE = 0.95

# What launches of one engine were seen to differ by (coefficient of variation), before a side says
# anything of its own: two shared CPU cores 2-13 %; an H200 with free clocks 0.7 %.
PRIOR_CV = {"cpu": 0.10, "gpu": 0.01}
# The prior weighs as much as this many launches beyond the first.
PRIOR_DOF = 4


def ratio_interval(
    base: Sequence[float], head: Sequence[float], *, prior_cv: float, confidence: float = CONFIDENCE
) -> Interval:
    """The ratio head / base of geometric means over launches, with its two-sided interval.

    Welch's interval on the logarithms (Welch, Biometrika 34, 1947), each side's variance shrunk towards a
    prior, s2 = (v0*prior2 + v*s2) / (v0 + v) with v = n-1 (Smyth, Stat. Appl. Genet. Mol. Biol. 3, 2004), so
    that a single launch or a lucky pair cannot look certain. Values are positive, in any one unit.
    """
    sides = [_side([math.log(value) for value in values], prior_cv) for values in (base, head)]
    (base_mean, base_se2, base_dof), (head_mean, head_se2, head_dof) = sides
    se2 = base_se2 + head_se2
    dof = se2**2 / (base_se2**2 / base_dof + head_se2**2 / head_dof)
    return interval(head_mean - base_mean, math.sqrt(se2), dof, confidence)


def interval(difference: float, se: float, dof: float, confidence: float) -> Interval:
    """Student's interval for a difference of log means, as a ratio."""
    from scipy.special import stdtrit

    half = float(stdtrit(min(dof, 1e9), (1 + confidence) / 2)) * se
    low, estimate, high = (math.exp(difference + step) for step in (-half, 0.0, half))
    return Interval(
        estimate=round(estimate, 6), low=round(low, 6), high=round(high, 6), confidence=confidence
    )


def side_variance(sides: Sequence[Sequence[float]], prior_cv: float, prior_dof: float) -> tuple[float, float]:
    """The variance of log medians pooled over sides, each about its own mean, with its degrees of freedom.

    It is shrunk towards the prior as in `ratio_interval`, but never below it: a handful of launches may widen
    the spread and never narrow it, because a handful drawn from one of a GPU's two clusters looks calmer than
    the GPU is.
    """
    squares, dof = 0.0, prior_dof
    for logs in sides:
        mean = math.fsum(logs) / len(logs)
        squares += math.fsum((value - mean) ** 2 for value in logs)
        dof += len(logs) - 1
    return max(prior_cv**2, (prior_dof * prior_cv**2 + squares) / dof), dof


def _side(logs: list[float], prior_cv: float) -> tuple[float, float, float]:
    """Mean, squared standard error and degrees of freedom of one side."""
    n = len(logs)
    mean = math.fsum(logs) / n
    squares = math.fsum((value - mean) ** 2 for value in logs)
    dof = PRIOR_DOF + n - 1
    variance = (PRIOR_DOF * prior_cv**2 + squares) / dof
    return mean, variance / n, dof
