"""How far launches differ: the interval for head / base, the spread when nothing changed, and outliers.

Pure; each formula with its source. A launch far outside its side's others is measured again and shown. If it
recurs it counts; none is dropped silently.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from perfgate.records import Interval, Record

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
    squares = math.fsum(_squares(logs) for logs in sides)
    dof = prior_dof + sum(len(logs) - 1 for logs in sides)
    return max(prior_cv**2, (prior_dof * prior_cv**2 + squares) / dof), dof


def _side(logs: list[float], prior_cv: float) -> tuple[float, float, float]:
    """Mean, squared standard error and degrees of freedom of one side."""
    dof = PRIOR_DOF + len(logs) - 1
    variance = (PRIOR_DOF * prior_cv**2 + _squares(logs)) / dof
    return math.fsum(logs) / len(logs), variance / len(logs), dof


# Launches of one engine in one run. An H200 with free clocks: CV 0.7 % over 60 launches, in two clusters
# 1.5 % apart. Two shared CPU cores: 2 to 13 %.
LAUNCH_CV = {"gpu": 0.007, "cpu": 0.10}
# The prior weighs as much as eight launches beyond the first: the five builds of twelve launches that it was
# read from tell more than one run of five, and less than a history of a month.
LAUNCH_DOF = 8.0
# Runs and machines of one kind. Two H200s read one network 3 % apart, a standard deviation of 3 % / sqrt 2.
# A CPU's baseline is mostly its own machine's: 3 % is assumed, a tenth of what is to be caught there.
RUN_CV = {"gpu": 0.02, "cpu": 0.03}
# Engines of one model whose tactics were timed apart: ResNet-50 in FP16 built sixteen times with TensorRT
# 8.5.3, two of them from a stored timing cache, and launched on ten GPUs of two kinds (recordings.py in
# tests/benchmarks): 0.80 % with 9 degrees of freedom, so 0.5 to 1.5 % with 95 % confidence. A CPU's
# engines have no such luck.
BUILD_CV = 0.009
# A spread of two runs rests on one difference, and runs of one day share their weather. Until then priors
# stand: between runs altogether, within a run as the least that is believed.
RUNS, DAYS = 3, 2
# History may speak as loudly as this and no louder, so that today's launches can still widen the spread.
DOF_CAP = 24.0


class Spread(Record):
    """`launch_cv` is the coefficient of variation of launches within a run and `launch_dof` the weight of
    that prior, in launches beyond the first. `run_cv` is what runs and machines add, with `run_dof` degrees
    of freedom: a stated prior (`run_dof` infinite) until three runs on two days are stored."""

    launch_cv: float
    launch_dof: float
    run_cv: float
    run_dof: float = math.inf


def spread_of(
    kind: str,
    history: Sequence[Sequence[float]] = (),
    days: int = 0,
    also: Sequence[Sequence[float]] = (),
) -> Spread:
    """The spread of a case on a "cpu" or "gpu", from the launch medians (ns) of each stored run.

    `also` are launches that tell how launches differ and nothing of runs: the screen's, once it is over.

    Within runs the variance is shrunk towards the prior, s2 = (v0*prior2 + v*s2) / (v0 + v) with v the sum of
    n - 1 (Smyth, Stat. Appl. Genet. Mol. Biol. 3, 2004). Between runs it is the one-way random-effects
    analysis of variance by the method of moments, T2 = var(run means) - mean(s2 / n), never negative (Searle,
    Casella and McCulloch, "Variance Components", 1992, chapter 4).
    """
    runs = [[math.log(value) for value in run] for run in history if run]
    groups = [*runs, *([math.log(value) for value in run] for run in also if run)]
    dof, squares = sum(len(run) - 1 for run in groups), math.fsum(_squares(run) for run in groups)
    prior_dof, prior_cv = LAUNCH_DOF, LAUNCH_CV[kind]
    variance = (prior_dof * prior_cv**2 + squares) / (prior_dof + dof)
    launch_dof = min(prior_dof + dof, DOF_CAP)
    if len(runs) < RUNS or days < DAYS:
        # Five launches may all come from one cluster of a GPU's two: a short history only widens.
        launch_cv = max(prior_cv, math.sqrt(variance))
        return Spread(launch_cv=launch_cv, launch_dof=launch_dof, run_cv=RUN_CV[kind])
    means = [math.fsum(run) / len(run) for run in runs]
    between = _squares(means) / (len(runs) - 1)
    within = variance * math.fsum(1 / len(run) for run in runs) / len(runs)
    run_cv = math.sqrt(max(0.0, between - within))
    return Spread(launch_cv=math.sqrt(variance), launch_dof=launch_dof, run_cv=run_cv, run_dof=len(runs) - 1)


def _squares(values: Sequence[float]) -> float:
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values)


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
