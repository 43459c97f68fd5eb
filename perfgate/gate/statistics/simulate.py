"""Many gates at once: the screen and the sequential test of this room on arrays, for simulations of both.

A test holds every function here against the one that decides a single case.
"""

from __future__ import annotations

from typing import Any

from perfgate.gate.statistics.noise import DAYS, DOF_CAP, LAUNCH_CV, LAUNCH_DOF, RUN_CV, RUNS
from perfgate.gate.statistics.screen import SCREEN_CONFIDENCE
from perfgate.gate.statistics.sequential import BUDGET, IMPROVEMENT_LAUNCHES, LEAST_LAUNCHES, LOWER, UPPER
from perfgate.records import Record, Tolerance

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
        import numpy as np

        return float(np.isin(self.verdict, verdicts).mean())


INCONCLUSIVE, REGRESSION, PASS, IMPROVEMENT = range(4)


def run_gates(stored: Any, screen: Any, base: Any, head: Any, plan: Plan) -> Outcomes:
    """Hold all gates. Every array holds log medians, one row a gate: `stored` has (gates, runs, launches),
    `screen` (gates, launches), `base` and `head` (gates, budget)."""
    import numpy as np

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
    import numpy as np

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
    import numpy as np

    above_ignore = np.maximum(0.0, difference - np.log1p(tolerance.ignore)) / se
    below_catch = np.maximum(0.0, np.log1p(tolerance.catch) - difference) / se
    return (dof + 1) / 2 * (np.log1p(above_ignore**2 / dof) - np.log1p(below_catch**2 / dof))


def _spread(stored: Any, screen: Any, plan: Plan) -> tuple[Any, Any]:
    """`spread_of` for the launches, a screen's counted too: coefficient of variation and weight."""
    import numpy as np

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
    import numpy as np
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
