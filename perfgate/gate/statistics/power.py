"""What the gate can see of a case: false alarms, the least slowdown that it catches, what would do better.

By real A/A gates, and by simulation from its stored launches: many gates at once, the screen and the
sequential test on arrays. A test holds each of these against the function that decides a single case.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from perfgate.gate.statistics.noise import (
    DAYS,
    DOF_CAP,
    LAUNCH_CV,
    LAUNCH_DOF,
    RUN_CV,
    RUNS,
    Spread,
    spread_of,
)
from perfgate.gate.statistics.sequential import (
    BUDGET,
    IMPROVEMENT_LAUNCHES,
    LEAST_LAUNCHES,
    LOWER,
    SCREEN_CONFIDENCE,
    UPPER,
    blocks,
    decide_next,
    worth_screening,
)
from perfgate.records import Record, Tolerance, Verdict

# A block of four launches is the least that a drift cancels in: two a side at a time.
STEP = 2


class Plan(Record):
    """How a gate is held: launches of the screen (0: none is held) and at most so many a side to confirm."""

    kind: str
    tolerance: Tolerance
    screen: int = 5
    budget: int = BUDGET
    days: int = 1


class Outcomes(Record):
    """One entry a gate. `verdict` is one of the codes below; launches are those taken today."""

    verdict: Any
    base_launches: Any
    head_launches: Any
    suspect: Any

    def share(self, *verdicts: int) -> float:
        return float(np.isin(self.verdict, verdicts).mean())


INCONCLUSIVE, REGRESSION, PASS, IMPROVEMENT = range(4)


def run_gates(stored: Any, screen: Any, base: Any, head: Any, plan: Plan) -> Outcomes:
    """Hold all gates. Every array holds log medians, one row a gate: `stored` has (gates, runs, launches),
    `screen` (gates, launches), `base` and `head` (gates, budget)."""
    gates = len(base)
    held = plan.screen > 0
    spread = _spread(stored, screen if held else None, plan)
    suspect = ~_clear(stored, screen, plan) if held else np.ones(gates, dtype=bool)
    verdict = np.full(gates, PASS)
    taken = np.zeros(gates, dtype=int)
    cv, dof = (part[suspect] for part in spread)
    verdict[suspect], taken[suspect] = sequential(base[suspect], head[suspect], cv, dof, plan)
    return Outcomes(
        verdict=verdict,
        base_launches=taken,
        head_launches=taken + (screen.shape[1] if held else 0),
        suspect=suspect,
    )


def sequential(base: Any, head: Any, cv: Any, prior_dof: Any, plan: Plan) -> tuple[Any, Any]:
    """`decide_next` after every block until it stops, or INCONCLUSIVE when the launches are used up: the
    verdicts' codes, and the launches a side."""
    verdict = np.full(len(base), INCONCLUSIVE)
    taken = np.full(len(base), base.shape[1])
    open_ = np.arange(len(base))
    for launches in range(STEP, base.shape[1] + 1, STEP):
        sides = base[open_, :launches], head[open_, :launches]
        means = [side.mean(axis=1) for side in sides]
        squares = sum(
            ((side - mean[:, None]) ** 2).sum(axis=1) for side, mean in zip(sides, means, strict=True)
        )
        prior = cv[open_] ** 2
        dof = prior_dof[open_] + 2 * launches - 2
        variance = np.maximum(prior, (prior_dof[open_] * prior + squares) / dof)
        se = np.sqrt(variance * 2 / launches)
        difference = means[1] - means[0]
        slower = _log_likelihood_ratio(difference, se, dof, plan.tolerance)
        faster = _log_likelihood_ratio(-difference, se, dof, plan.tolerance)
        passed = slower <= LOWER
        wait = passed & (faster > 0) & (faster < UPPER) & (launches < IMPROVEMENT_LAUNCHES)
        code = np.where(passed, np.where(faster >= UPPER, IMPROVEMENT, PASS), INCONCLUSIVE)
        code = np.where(slower >= UPPER, REGRESSION, code)
        done = (code != INCONCLUSIVE) & ~wait & (launches >= LEAST_LAUNCHES)
        # At the end a head that may be faster is no slower all the same.
        done |= passed & (launches >= LEAST_LAUNCHES) & (launches + STEP > base.shape[1])
        verdict[open_[done]], taken[open_[done]] = code[done], launches
        open_ = open_[~done]
    return verdict, taken


def _log_likelihood_ratio(difference: Any, se: Any, dof: Any, tolerance: Tolerance) -> Any:
    above_ignore = np.maximum(0.0, difference - np.log1p(tolerance.ignore)) / se
    below_catch = np.maximum(0.0, np.log1p(tolerance.catch) - difference) / se
    return (dof + 1) / 2 * (np.log1p(above_ignore**2 / dof) - np.log1p(below_catch**2 / dof))


def _spread(stored: Any, screen: Any, plan: Plan) -> tuple[Any, Any]:
    """`spread_of` for the launches, a screen's counted too: coefficient of variation and weight."""
    groups = [*np.moveaxis(stored, 1, 0), *([] if screen is None else [screen])]
    squares = sum(((group - group.mean(axis=1, keepdims=True)) ** 2).sum(axis=1) for group in groups)
    dof = sum(group.shape[1] - 1 for group in groups)
    variance = (LAUNCH_DOF * LAUNCH_CV[plan.kind] ** 2 + squares) / (LAUNCH_DOF + dof)
    if not _known(stored, plan):
        variance = np.maximum(LAUNCH_CV[plan.kind] ** 2, variance)
    return np.sqrt(variance), np.full(len(variance), min(LAUNCH_DOF + dof, DOF_CAP))


def _known(stored: Any, plan: Plan) -> bool:
    """Whether the history speaks for itself, or priors stand."""
    return bool(stored.shape[1] >= RUNS and plan.days >= DAYS)


def _clear(stored: Any, screen: Any, plan: Plan) -> Any:
    """`clear(screen(...))`."""
    from scipy.special import stdtrit

    cv, prior_dof = _spread(stored, None, plan)
    runs, launches = stored.shape[1:]
    means = stored.mean(axis=2)
    groups = [*np.moveaxis(stored, 1, 0), screen]
    squares = sum(((group - group.mean(axis=1, keepdims=True)) ** 2).sum(axis=1) for group in groups)
    dof = prior_dof + runs * (launches - 1) + screen.shape[1] - 1
    variance = np.maximum(cv**2, (prior_dof * cv**2 + squares) / dof)
    launches2 = variance * (1 / (runs * launches) + 1 / screen.shape[1])
    if _known(stored, plan):
        between = np.maximum(0.0, means.var(axis=1, ddof=1) - cv**2 / launches)
        runs2, runs_dof = between * (1 + 1 / runs), float(runs - 1)
    else:
        runs2, runs_dof = np.full(len(cv), RUN_CV[plan.kind] ** 2 * (1 + 1 / runs)), np.inf
    se2 = launches2 + runs2
    effective = se2**2 / (launches2**2 / dof + runs2**2 / runs_dof)
    half = stdtrit(np.minimum(effective, 1e9), (1 + SCREEN_CONFIDENCE) / 2) * np.sqrt(se2)
    high = screen.mean(axis=1) - means.mean(axis=1) + half
    return (high < np.log1p(plan.tolerance.catch)) & ~(high < -np.log1p(plan.tolerance.ignore))


POWER = 0.95
# Launches of a screen, as the protocol has them.
SCREEN = 5
# A hundredth of the rate that is to be seen would take a hundred thousand; this many tell 95 % from 96 %.
TRIALS = 4_000
# With this many no alarm at all means a rate under one in 5,000, the gate's own (see `upper_bound`).
QUIET_TRIALS = 15_000
# Nobody asks about a slowdown that is seen at a glance.
SEARCH = 1.0
MOST_LAUNCHES = 96


class Power(Record):
    """The gate's own properties on one case. Rates are shares of gates; `false_alarm_upper` is their exact
    95 % upper bound. `screened` says whether the screen can pass anything here. `detectable` is the smallest
    slowdown that is a REGRESSION in 95 % of gates, None where none is; launches are medians, of head's.
    `suggested_launches` a side (None: no number up to 96 would do) catch `catch` in 95 % of gates;
    `suggested_catch` is what the launches at hand do catch, rounded up to half a per cent."""

    launch_cv: float
    run_cv: float
    screened: bool
    tolerance: Tolerance
    false_alarm_rate: float
    false_alarm_upper: float
    inconclusive_rate: float
    improvement_rate: float
    power_at_catch: float
    detectable: float | None
    launches_unchanged: float
    launches_at_catch: float
    suggested_launches: int | None
    suggested_catch: float | None


def power(
    history: Sequence[Sequence[float]],
    tolerance: Tolerance,
    kind: str,
    *,
    days: int = 1,
    budget: int = BUDGET,
    seed: int = 0,
) -> Power:
    """The gate's properties for a case with these stored runs of launch medians (ns).

    Launches are drawn with replacement from the stored runs' own, each about its run's mean and stretched by
    sqrt(n / (n - 1)), because a sample's spread about its own mean is that much too small (Efron and
    Tibshirani, "An Introduction to the Bootstrap", 1993, 5.3); where no run has two launches, normal ones of
    the prior spread stand in. Today's run and the stored ones differ by the between-run spread.
    """
    spread = spread_of(kind, history, days)
    counts = [len(run) for run in history if run]
    screened = bool(counts) and worth_screening(counts, SCREEN, tolerance, spread)
    plan = Plan(kind=kind, tolerance=tolerance, screen=SCREEN if screened else 0, budget=budget, days=days)
    world = _World(history, spread.launch_cv, spread.run_cv, seed)
    quiet = world.gates(QUIET_TRIALS, 0.0, plan)
    alarms = int((quiet.verdict == REGRESSION).sum())
    caught = world.gates(TRIALS, tolerance.catch, plan)
    detectable = _detectable(world, plan)
    return Power(
        launch_cv=round(spread.launch_cv, 6),
        run_cv=round(spread.run_cv, 6),
        screened=screened,
        tolerance=tolerance,
        false_alarm_rate=alarms / QUIET_TRIALS,
        false_alarm_upper=upper_bound(alarms, QUIET_TRIALS),
        inconclusive_rate=quiet.share(INCONCLUSIVE),
        improvement_rate=quiet.share(IMPROVEMENT),
        power_at_catch=caught.share(REGRESSION),
        detectable=detectable,
        launches_unchanged=float(np.median(quiet.head_launches)),
        launches_at_catch=float(np.median(caught.head_launches)),
        suggested_launches=_launches(world, plan),
        suggested_catch=None if detectable is None else math.ceil(detectable * 200) / 200,
    )


def upper_bound(events: int, trials: int, confidence: float = 0.95) -> float:
    """The one-sided upper bound on a rate (Clopper and Pearson, Biometrika 26, 1934)."""
    from scipy.special import betaincinv

    return 1.0 if events >= trials else float(betaincinv(events + 1, trials - events, confidence))


class _World:
    """Draws gates whose launches scatter like the stored ones."""

    def __init__(
        self, history: Sequence[Sequence[float]], launch_cv: float, run_cv: float, seed: int
    ) -> None:
        self.run_cv, self.draw = run_cv, np.random.default_rng(seed)
        self.runs = [np.log(np.array(run, dtype=float)) for run in history if len(run)]
        several = [run for run in self.runs if len(run) > 1]
        pools = [(run - run.mean()) * math.sqrt(len(run) / (len(run) - 1)) for run in several]
        self.pool = np.concatenate(pools) if pools else self.draw.normal(0.0, launch_cv, 1000)

    def gates(self, trials: int, slowdown: float, plan: Plan) -> Outcomes:
        """So many gates of a head that is slower by this share."""
        count, launches = max(1, len(self.runs)), max((len(run) for run in self.runs), default=5)
        stored = self._launches(trials, count, launches)
        stored = stored + self.draw.normal(0.0, self.run_cv, (trials, count, 1))
        today = self.draw.normal(0.0, self.run_cv, (trials, 1))
        slower = math.log1p(slowdown)
        screen, base, head = (self._launches(trials, n) for n in (plan.screen, plan.budget, plan.budget))
        return run_gates(stored, screen + today + slower, base + today, head + today + slower, plan)

    def _launches(self, *shape: int) -> Any:
        return self.draw.choice(self.pool, shape)


def _detectable(world: _World, plan: Plan) -> float | None:
    """The smallest slowdown with 95 % power, by bisection to a twentieth of *catch*."""
    low, high = 0.0, SEARCH
    if world.gates(TRIALS, high, plan).share(REGRESSION) < POWER:
        return None
    while high - low > plan.tolerance.catch / 20:
        middle = (low + high) / 2
        if world.gates(TRIALS, middle, plan).share(REGRESSION) >= POWER:
            high = middle
        else:
            low = middle
    return round(high, 5)


def _launches(world: _World, plan: Plan) -> int | None:
    """The least budget of launches a side, of those that make whole blocks, that catches *catch* 95 times of
    100: the number that 95 % of unhurried tests stayed within."""
    longest = msgspec.structs.replace(plan, budget=MOST_LAUNCHES)
    found = world.gates(TRIALS // 4, plan.tolerance.catch, longest)
    taken = np.where(found.verdict == REGRESSION, found.base_launches, MOST_LAUNCHES + STEP)
    needed = int(np.quantile(taken, POWER, method="higher"))
    return needed if needed <= MOST_LAUNCHES else None


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
