"""The screen, a few launches of head against the stored ones, which may pass a case and never fails one; and
the sequential test that confirms a suspect, fresh launches of base and head in turn until decided."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence

import msgspec

from perfgate.gate.statistics.noise import CONFIDENCE, Spread, interval, side_variance
from perfgate.records import Interval, Record, Tolerance, Verdict

# An alarm on a slowdown of *ignore*: once in 5,000 cases, whatever the run's size (20 cases: at most 0.4 %).
ALPHA = 2e-4
# A PASS on a slowdown of *catch*: once in 20.
BETA = 0.05
# Wald's borders for the logarithm of the likelihood ratio (Wald, Ann. Math. Stat. 16, 1945).
UPPER = math.log((1 - BETA) / ALPHA)
LOWER = math.log(BETA / (1 - ALPHA))
# The two launches in the middle of a block follow each other and may share one disturbance, which may make
# a change or hide one: nothing is believed before two blocks.
LEAST_LAUNCHES = 4
# A head that looks faster is no miss already: to be sure of the gain, so many launches a side and no more.
IMPROVEMENT_LAUNCHES = 12
# At +2 % and launches that differ by 0.8 % the test is over by then in 99.7 gates of 100.
BUDGET = 32
# `needed` looks no further ahead than this.
HORIZON = 1000

BLOCKS = (("base", "head", "head", "base"), ("head", "base", "base", "head"))


class Decision(Record):
    """Where the test stands. A verdict of None: take more; `needed` estimates how many a side, were they to
    go on as until now. `code` says what a verdict depends on, such as `build`, and `note` how. `tolerance` is
    what it was held by."""

    verdict: Verdict | None
    ratio: Interval
    log_likelihood: float
    needed: int
    tolerance: Tolerance
    code: str = ""
    note: str = ""


def blocks(seed: int) -> Iterator[tuple[str, str, str, str]]:
    """Blocks of four launches, ABBA or BAAB at random: within each, a linear drift hits both sides alike."""
    draw = random.Random(seed)  # noqa: S311
    while True:
        yield draw.choice(BLOCKS)


def decide_next(
    base: Sequence[float], head: Sequence[float], tolerance: Tolerance, spread: Spread
) -> Decision:
    """Stop or go on, after these fresh launch medians (ns) in the order taken; `base[i]` and `head[i]` belong
    to the same position of a block.

    Either the ratio is at most *1 + ignore* or at least *1 + catch*: a log-likelihood ratio above `UPPER` is
    a REGRESSION, one below `LOWER` a PASS, or an IMPROVEMENT where the same test with the sides exchanged is
    above `UPPER`.
    """
    logs = [[math.log(value) for value in side] for side in (base, head)]
    means = [math.fsum(side) / len(side) for side in logs]
    difference = means[1] - means[0]
    variance, dof = side_variance(logs, spread.launch_cv, spread.launch_dof)
    per_launch = 1 / len(base) + 1 / len(head)
    se = math.sqrt(variance * per_launch)
    slower = log_likelihood_ratio(difference, se, dof, tolerance)
    faster = log_likelihood_ratio(-difference, se, dof, tolerance)
    verdict = _verdict(slower, faster, min(len(base), len(head)))
    return Decision(
        verdict=verdict,
        ratio=interval(difference, se, dof, CONFIDENCE),
        log_likelihood=round(slower, 4),
        needed=_needed(difference, variance, dof, min(len(base), len(head)), tolerance) if not verdict else 0,
        tolerance=tolerance,
    )


def at_the_end(decision: Decision, launches: int) -> Decision:
    """The decision once no more launches are taken: where only it was open whether head is faster, a PASS."""
    if decision.verdict is None and launches >= LEAST_LAUNCHES and decision.log_likelihood <= LOWER:
        return msgspec.structs.replace(decision, verdict=Verdict.PASS, needed=0)
    return decision


def log_likelihood_ratio(difference: float, se: float, dof: float, tolerance: Tolerance) -> float:
    """How much likelier the launches are under the best ratio of at least *1 + catch* than under the best of
    at most *1 + ignore*.

    The likelihood of a mean, the variance integrated out over its scaled inverse chi-squared prior, is
    Student's, (1 + t2/v)^(-(v+1)/2) (Gelman et al., "Bayesian Data Analysis", 3rd ed., 3.3): a sequential
    t-test (Rushton, Biometrika 37, 1950). Of each composite hypothesis the best member speaks (Lai, Ann.
    Stat. 16, 1988), so that a slowdown far beyond *catch* is decided at once.
    """
    above_ignore = max(0.0, difference - math.log1p(tolerance.ignore)) / se
    below_catch = max(0.0, math.log1p(tolerance.catch) - difference) / se
    return (dof + 1) / 2 * (math.log1p(above_ignore**2 / dof) - math.log1p(below_catch**2 / dof))


def _verdict(slower: float, faster: float, launches: int) -> Verdict | None:
    if launches < LEAST_LAUNCHES:
        return None
    if slower >= UPPER:
        return Verdict.REGRESSION
    if slower > LOWER:
        return None
    if faster >= UPPER:
        return Verdict.IMPROVEMENT
    return None if faster > 0 and launches < IMPROVEMENT_LAUNCHES else Verdict.PASS


def _needed(difference: float, variance: float, dof: float, launches: int, tolerance: Tolerance) -> int:
    """The further launches a side after which the test is decided, if the estimate stays as it is."""
    for more in range(1, HORIZON):
        se = math.sqrt(variance * 2 / (launches + more))
        slower = log_likelihood_ratio(difference, se, dof + 2 * more, tolerance)
        faster = log_likelihood_ratio(-difference, se, dof + 2 * more, tolerance)
        if _verdict(slower, faster, launches + more):
            return more
    return HORIZON


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
    return clear(screen([[1.0] * count for count in runs], [1.0] * launches, tolerance, spread), tolerance)
