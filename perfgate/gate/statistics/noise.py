"""How far launches differ when nothing changed: between launches of one run, and between runs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from perfgate.records import Record

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
