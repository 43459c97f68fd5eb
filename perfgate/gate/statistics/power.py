"""What the gate can see of a case, by simulation from its stored launches: false alarms, the smallest
slowdown that is caught, and what would do better."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from perfgate.gate.statistics.noise import spread_of
from perfgate.gate.statistics.screen import worth_screening
from perfgate.gate.statistics.sequential import BUDGET
from perfgate.gate.statistics.simulate import (
    IMPROVEMENT,
    INCONCLUSIVE,
    REGRESSION,
    STEP,
    Outcomes,
    Plan,
    run_gates,
)
from perfgate.records import Record, Tolerance

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
    import numpy as np

    spread = spread_of(kind, history, days)
    counts = [len(run) for run in history if run]
    screened = bool(counts) and worth_screening(counts, SCREEN, tolerance, spread)
    plan = Plan(kind=kind, tolerance=tolerance, screen=SCREEN if screened else 0, budget=budget, days=days)
    draw = np.random.default_rng(seed)
    world = _World(history, spread.launch_cv, spread.run_cv, draw)
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
        self, history: Sequence[Sequence[float]], launch_cv: float, run_cv: float, draw: Any
    ) -> None:
        import numpy as np

        self.runs = [np.log(np.array(run, dtype=float)) for run in history if len(run)]
        several = [run for run in self.runs if len(run) > 1]
        pools = [(run - run.mean()) * math.sqrt(len(run) / (len(run) - 1)) for run in several]
        self.pool = np.concatenate(pools) if pools else draw.normal(0.0, launch_cv, 1000)
        self.run_cv, self.draw = run_cv, draw

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
    import msgspec
    import numpy as np

    longest = msgspec.structs.replace(plan, budget=MOST_LAUNCHES)
    found = world.gates(TRIALS // 4, plan.tolerance.catch, longest)
    taken = np.where(found.verdict == REGRESSION, found.base_launches, MOST_LAUNCHES + STEP)
    needed = int(np.quantile(taken, POWER, method="higher"))
    return needed if needed <= MOST_LAUNCHES else None
