"""Change points in the history of one case: where its level moved, and whose fault that may be. Pure.

Works on the logarithms of the nightly values, so that a step is a ratio and no unit matters. A change of
the environment's key (a driver upgrade, another library) splits the series: a step right there is reported
as `environment`, because no commit can be blamed for it; any other one as `commit`, with the range from the
last commit before it to the first one after it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from perfgate.records import Interval, Record
from perfgate.records.trend import EnvironmentChange, LevelChange, Point

MIN_NIGHTS = 5  # a level is at least this many nights: fewer are luck, more would delay every alarm
IGNORE = 0.005  # the gate's own default: a move at or below it is no news
CONFIDENCE = 0.95

# From tests/benchmarks/change_points.py, nights of real launches with up to 0.5 % between nights: 2 raises
# false alarms, 4 is the least that raises none in a hundred years, 6 keeps a margin for a night of delay.
PENALTY = 6.0
FEW_DIFFERENCES = 8.0
FAR, FAR_ENOUGH = 5, 40  # nights between two that count as unrelated; how many such pairs tell anything
# Two-sided level of the confirming test; every night tests anew, so it is stricter than one test needs.
ALPHA = 1e-3
# Nights that the noise of the whole series weighs as, beside a level's own spread.
PRIOR_DOF = 10
# Below the resolution of any clock here: it keeps a series without any variance from dividing by zero.
NOISE_FLOOR = 1e-4
# Values further off than any latency, where the logarithm of a ratio would leave the floating range.
_STEP_LIMIT = 600.0


class _Level(Record):
    """Nights at one level in one environment: positions [start, stop) among the usable nights."""

    start: int
    stop: int
    environment: str


class _Step(Record):
    """Welch's comparison of two levels, on logarithms."""

    difference: float
    half: float
    p: float


def environment_changes(points: Sequence[Point]) -> tuple[EnvironmentChange, ...]:
    """Every night whose environment key differs from the night before."""
    return tuple(
        EnvironmentChange(index=index, before=points[index - 1].environment, after=point.environment)
        for index, point in enumerate(points)
        if index and point.environment != points[index - 1].environment
    )


def change_points(
    points: Sequence[Point], *, ignore: float = IGNORE, penalty: float = PENALTY
) -> tuple[LevelChange, ...]:
    """All confirmed changes of level in a series, oldest first as given. Deterministic.

    Within each stretch of one environment, PELT (Killick, Fearnhead & Eckley, JASA 107, 2012) minimises the
    squared error around the levels plus a penalty a change of `penalty * s2 * ln(n)`: Schwarz' criterion for
    a change in mean is 2 * s2 * ln(n) (Yao, Statistics & Probability Letters 6, 1988); ours is larger since
    the series is looked at anew every night. s2 is `noise`'s, which steps do not inflate.
    Each candidate is then confirmed, or its two levels are joined: Welch's test below `ALPHA`, and
    an effect above `ignore`. Values that are no positive finite number are passed over.
    """
    usable = [index for index, point in enumerate(points) if math.isfinite(point.value) and point.value > 0]
    if len(usable) < 2 * MIN_NIGHTS:
        return ()
    logs = np.log(np.array([points[index].value for index in usable], dtype=float))
    environments = [points[index].environment for index in usable]
    runs = _runs(environments)
    sigma = noise([logs[start:stop] for start, stop in runs])
    levels = [
        _Level(start=start + low, stop=start + high, environment=environments[start])
        for start, stop in runs
        if stop - start >= MIN_NIGHTS  # a shorter stretch says nothing: its neighbours are compared instead
        for low, high in _levels(logs[start:stop], sigma, penalty)
    ]
    found = []
    for before, after, step in _confirmed(levels, logs, sigma, math.log1p(ignore)):
        last, first = usable[before.stop - 1], usable[after.start]
        found.append(_change(points, last, first, step, before.environment == after.environment))
    return tuple(found)


def noise(stretches: Sequence[Any]) -> float:
    """The standard deviation between nights: 1.4826 * median(|first differences|) / sqrt(2), with care.

    The median absolute deviation of differences (Hampel, JASA 69, 1974, for the constant; differences as in
    Fryzlewicz, Annals of Statistics 42, 2014): a level that moves adds few large differences, which a median
    does not feel. Differences across two environments are left out. The median of few differences is itself
    uncertain and too small as often as too large, so n of them give `1 + FEW_DIFFERENCES / n` times as much:
    a young series stays quiet until it knows its noise.

    Nights that resemble their neighbours (a warm week) wander and look like steps. Their correlation r shows
    in differences over `FAR` nights, which are then larger than those over one, by 1 / (1 - r) in variance;
    the mean of many such nights is off by sqrt((1 + r) / (1 - r)) times as much as that of independent ones
    (Bartlett, JRSS 98, 1935), and so is the value returned.
    """
    near, count = _spread(stretches, 1)
    far, far_count = _spread(stretches, FAR)
    sigma = near * (1 + FEW_DIFFERENCES / max(count, 1))
    if far_count >= FAR_ENOUGH and far > near > 0:
        r = min(1 - (near / far) ** 2, 0.95)
        sigma = max(sigma, far * math.sqrt((1 + r) / (1 - r)))
    return max(NOISE_FLOOR, sigma)


def _spread(stretches: Sequence[Any], lag: int) -> tuple[float, int]:
    """The standard deviation from differences over `lag` nights, and how many there were."""
    parts = [np.abs(stretch[lag:] - stretch[:-lag]) for stretch in stretches if len(stretch) > lag]
    if not parts:
        return 0.0, 0
    differences = np.concatenate(parts)
    return 1.4826 * float(np.median(differences)) / math.sqrt(2), int(differences.size)


def _runs(environments: Sequence[str]) -> list[tuple[int, int]]:
    starts = [i for i, name in enumerate(environments) if i == 0 or name != environments[i - 1]]
    return list(zip(starts, [*starts[1:], len(environments)], strict=True))


def _levels(logs: Any, sigma: float, penalty: float) -> list[tuple[int, int]]:
    """The stretch cut into levels of at least `MIN_NIGHTS`."""
    length = len(logs)
    if length < 2 * MIN_NIGHTS or float(np.ptp(logs)) == 0:
        return [(0, length)]
    import ruptures  # not at the top: it loads much, and most commands need no trend

    # In units of the noise and around zero, so that the sums of squares lose no digits. The linear kernel is
    # the squared error around the mean, in C.
    signal = ((logs - float(np.median(logs))) / sigma).reshape(-1, 1)
    fitted = ruptures.KernelCPD(kernel="linear", min_size=MIN_NIGHTS).fit(signal)
    ends = fitted.predict(pen=penalty * math.log(length))
    return list(zip([0, *ends[:-1]], ends, strict=True))


def _confirmed(
    levels: Sequence[_Level], logs: Any, sigma: float, smallest: float
) -> list[tuple[_Level, _Level, _Step]]:
    """Neighbours whose step is confirmed. The least certain step goes first, then its neighbours are judged
    anew with the longer level; two environments are never joined."""
    kept = list(levels)
    while True:
        steps = [_step(logs, kept[i], kept[i + 1], sigma) for i in range(len(kept) - 1)]
        doubtful = [
            (-step.p, abs(step.difference), i)
            for i, step in enumerate(steps)
            if not _holds(step, smallest)
            and kept[i].environment == kept[i + 1].environment
            and kept[i].stop == kept[i + 1].start
        ]
        if not doubtful:
            break
        i = min(doubtful)[2]
        joined = _Level(start=kept[i].start, stop=kept[i + 1].stop, environment=kept[i].environment)
        kept[i : i + 2] = [joined]
    pairs = [(kept[i], kept[i + 1]) for i, step in enumerate(steps) if _holds(step, smallest)]
    sharp = [_sharpened(before, after, logs) for before, after in pairs]
    return [(before, after, _step(logs, before, after, sigma)) for before, after in sharp]


def _sharpened(before: _Level, after: _Level, logs: Any) -> tuple[_Level, _Level]:
    """The boundary moved to where the two levels fit best, so that the commit range is right already while
    the new level is younger than `MIN_NIGHTS`: the fit before could not place it there."""
    if before.stop != after.start or before.environment != after.environment:
        return before, after
    places = range(
        max(before.start + 1, after.start - MIN_NIGHTS + 1), min(after.stop, after.start + MIN_NIGHTS)
    )

    def error(place: int) -> float:
        sides = (logs[before.start : place], logs[place : after.stop])
        return float(sum(np.sum((side - np.mean(side)) ** 2) for side in sides))

    place = min(places, key=error)
    return (
        _Level(start=before.start, stop=place, environment=before.environment),
        _Level(start=place, stop=after.stop, environment=after.environment),
    )


def _holds(step: _Step, smallest: float) -> bool:
    return step.p < ALPHA and abs(step.difference) > smallest


def _step(logs: Any, before: _Level, after: _Level, sigma: float) -> _Step:
    """Welch's test (Biometrika 34, 1947), each side's variance shrunk towards the series' own noise as if
    that were `PRIOR_DOF` more nights (Smyth, Stat. Appl. Genet. Mol. Biol. 3, 2004): five quiet nights in a
    row are not certainty."""
    from scipy.special import stdtr, stdtrit

    means, errors, freedoms = [], [], []
    for level in (before, after):
        values = logs[level.start : level.stop]
        mean = float(np.mean(values))
        freedom = PRIOR_DOF + len(values) - 1
        variance = (PRIOR_DOF * sigma**2 + float(np.sum((values - mean) ** 2))) / freedom
        means.append(mean)
        errors.append(variance / len(values))
        freedoms.append(freedom)
    total = sum(errors)
    dof = total**2 / sum(error**2 / freedom for error, freedom in zip(errors, freedoms, strict=True))
    difference = means[1] - means[0]
    p = 2 * float(stdtr(dof, -abs(difference) / math.sqrt(total)))
    half = float(stdtrit(dof, (1 + CONFIDENCE) / 2)) * math.sqrt(total)
    return _Step(difference=difference, half=half, p=p)


def _change(points: Sequence[Point], last: int, first: int, step: _Step, same: bool) -> LevelChange:
    low, ratio, high = (
        round(math.exp(min(max(step.difference + move, -_STEP_LIMIT), _STEP_LIMIT)), 6)
        for move in (-step.half, 0.0, step.half)
    )
    return LevelChange(
        index=first,
        ratio=Interval(estimate=ratio, low=low, high=high, confidence=CONFIDENCE),
        cause="commit" if same else "environment",
        commits=(points[last].commit, points[first].commit),
    )
