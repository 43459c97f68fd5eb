"""What profiled loads say of each group of layers, without the state that all layers of a load share."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from perfgate.gate.explain.layer_groups import Group

# Over all groups of a comparison together (Bonferroni): a model with no change is explained once in 10,000.
ALPHA = 1e-4
# A handful of loads tell little of their own spread: the spread that all layers share weighs as six more.
PRIOR_DOF = 6.0
# Loads of one engine differ by no less in what a layer takes; and a profiler's clock has steps.
LEAST_CV = 0.002
CLOCK_NS = 100.0
# A layer that changed by less of the whole explains nothing that anybody would act on.
LEAST_SHARE_OF_TOTAL = 0.001
# The common factor rests on unchanged layers: with fewer, or less of the time, it cannot be told.
LEAST_LAYERS = 3
LEAST_TIME_SHARE = 0.2

Loads = Sequence[Mapping[str, float]]
# A group's time in each load of base, and of head (ns).
Row = tuple[list[float], list[float]]


class Timed(NamedTuple):
    """A group's mean time a side (ns, state removed), how much it must differ to be named, and whether."""

    group: Group
    base_ns: float
    head_ns: float
    spread_ns: float
    named: bool

    @property
    def difference_ns(self) -> float:
        return self.head_ns - self.base_ns


class Times(NamedTuple):
    """`slowdown_ns` is head's total minus base's, the state removed; `slower` says whether it is beyond its
    own spread. `kinds` weighs all groups of one kind together: many small differences may be plain only in
    their sum. `state_ratio` is head's common factor by base's, None where it could not be told."""

    groups: list[Timed]
    kinds: dict[str, Timed]
    profiled_base_ns: float
    profiled_head_ns: float
    slowdown_ns: float
    slower: bool
    state_ratio: float | None
    matched_share: float
    strangers: list[str]

    def explained_ns(self, kind: str) -> float:
        """What groups of a kind add to the total: their sum where it is beyond its spread, otherwise those of
        them that are."""
        together = self.kinds.get(kind)
        if together is not None and together.named:
            return together.difference_ns
        return math.fsum(t.difference_ns for t in self.groups if t.named and t.group.kind == kind)


def weigh(groups: Sequence[Group], base: Loads, head: Loads) -> Times:
    """Times by group from at least two loads a side.

    The state of a load is the weighted median, over groups that are known to be unchanged, of the logarithm
    of a group's time by its mean over all loads. A group is named when the difference of its means is beyond
    Student's quantile at `ALPHA`/groups times its standard error; the variance is shrunk towards the spread
    that all unchanged groups share, s2 = (v0*s0^2 + v*s^2) / (v0 + v) (Smyth, Stat. Appl. Genet. Mol. Biol.
    3, 2004).
    """
    rows = [([_time(g.base, load) for load in base], [_time(g.head, load) for load in head]) for g in groups]
    totals = [[sum(load.values()) for load in side] for side in (base, head)]
    states = _states(groups, rows, math.fsum(totals[0]) / len(base))
    steady = [value for side in states or () for value in side]
    anchor = statistics.fmean(states[0]) if states else 0.0
    factors = [[math.exp(s - anchor) for s in side] for side in states] if steady and states else None
    if factors:
        rows = [
            tuple([t / f for t, f in zip(side, factors[i], strict=True)] for i, side in enumerate(row))  # type: ignore[misc]
            for row in rows
        ]
        clean = [[t / f for t, f in zip(side, factors[i], strict=True)] for i, side in enumerate(totals)]
    else:
        clean = totals
    cv = _shared_cv(groups, rows)
    whole = statistics.fmean(clean[0])
    kinds = _by_kind(groups, rows)
    tests = len(groups) + len(kinds)
    timed = [_weighed(group, [row], cv, tests, whole) for group, row in zip(groups, rows, strict=True)]
    slowdown, border = _difference((clean[0], clean[1]), _prior_ns(rows, cv), 1)
    known = {layer.name for group in groups for layer in (*group.base, *group.head)}
    matched = math.fsum(t.base_ns for t in timed if t.group.base and t.group.head)
    return Times(
        groups=timed,
        kinds={kind: _weighed(one, found, cv, tests, whole) for kind, (one, found) in kinds.items()},
        profiled_base_ns=statistics.fmean(totals[0]),
        profiled_head_ns=statistics.fmean(totals[1]),
        slowdown_ns=slowdown,
        slower=slowdown > max(border, LEAST_SHARE_OF_TOTAL * whole),
        state_ratio=math.exp(statistics.fmean(states[1]) - anchor) if states else None,
        matched_share=min(1.0, matched / whole) if whole else 0.0,
        strangers=sorted({name for load in (*base, *head) for name in load} - known),
    )


def _time(layers: Sequence[object], load: Mapping[str, float]) -> float:
    # A name is counted once: two layers of one name report the sum of both.
    return math.fsum(load.get(name, 0.0) for name in dict.fromkeys(layer.name for layer in layers))  # type: ignore[attr-defined]


def _states(
    groups: Sequence[Group], rows: Sequence[Row], total_ns: float
) -> tuple[list[float], list[float]] | None:
    """The logarithm of each load's common factor, a side each; None where too little is known to be
    unchanged: a layer whose work has grown would make its own slowdown a state, and remove it."""
    calm = [
        row
        for group, row in zip(groups, rows, strict=True)
        if group.kind == "same" and group.sure and min(*row[0], *row[1]) > 0
    ]
    weights = [statistics.fmean(row[0]) for row in calm]
    if len(calm) < LEAST_LAYERS or math.fsum(weights) < LEAST_TIME_SHARE * total_ns:
        return None
    usual = [statistics.fmean(math.log(t) for side in row for t in side) for row in calm]
    found = []
    for side in (0, 1):
        loads = range(len(calm[0][side]))
        found.append(
            [
                _weighted_median(
                    [math.log(row[side][i]) - u for row, u in zip(calm, usual, strict=True)], weights
                )
                for i in loads
            ]
        )
    return found[0], found[1]


def _by_kind(groups: Sequence[Group], rows: Sequence[Row]) -> dict[str, tuple[Group, list[Row]]]:
    """The times of all groups of each kind that differs, and one of those groups for its name."""
    found: dict[str, tuple[Group, list[Row]]] = {}
    for group, row in zip(groups, rows, strict=True):
        if group.kind != "same":
            found.setdefault(group.kind, (group, []))[1].append(row)
    return found


def _weighted_median(values: Sequence[float], weights: Sequence[float]) -> float:
    half, passed = math.fsum(weights) / 2, 0.0
    for value, weight in sorted(zip(values, weights, strict=True)):
        passed += weight
        if passed >= half:
            return value
    return max(values)


def _shared_cv(groups: Sequence[Group], rows: Sequence[Row]) -> float:
    """The coefficient of variation between loads that the middle one of the unchanged groups has; of all
    groups that both sides have where fewer than `LEAST_LAYERS` are unchanged: one small layer says nothing
    of the others, and a spread within a side is none between sides."""
    both = [(g, row) for g, row in zip(groups, rows, strict=True) if g.base and g.head]
    calm = [row for group, row in both if group.kind == "same"]
    found = [
        math.sqrt(_pooled(row)[0]) / mean
        for row in (calm if len(calm) >= LEAST_LAYERS else [row for _, row in both])
        if (mean := statistics.fmean([*row[0], *row[1]])) > 0
    ]
    return max(LEAST_CV, statistics.median(found)) if found else LEAST_CV


def _pooled(row: Row) -> tuple[float, int]:
    """The variance within sides, and its degrees of freedom."""
    dof = sum(len(side) - 1 for side in row if any(side))
    squares = math.fsum((t - statistics.fmean(side)) ** 2 for side in row for t in side)
    return (squares / dof, dof) if dof else (0.0, 0)


def _prior_ns(rows: Sequence[Row], cv: float) -> float:
    """The standard deviation between loads that a sum of groups is expected to have: of each group alone, and
    of what they may still share once the state is removed."""
    means = [max(statistics.fmean(row[0]), statistics.fmean(row[1])) for row in rows]
    alone = math.fsum((cv * mean) ** 2 for mean in means)
    return math.sqrt(alone + (LEAST_CV * math.fsum(means)) ** 2 + CLOCK_NS**2)


def _difference(row: Row, prior_ns: float, tests: int) -> tuple[float, float]:
    """Head's mean minus base's (ns), and how far from zero it must be to be believed."""
    from scipy.special import stdtrit

    base, head = row
    variance, dof = _pooled(row)
    shrunk = (PRIOR_DOF * prior_ns**2 + dof * variance) / (PRIOR_DOF + dof)
    quantile = float(stdtrit(PRIOR_DOF + dof, 1 - ALPHA / (2 * tests)))
    border = quantile * math.sqrt(shrunk * (1 / len(base) + 1 / len(head)))
    return statistics.fmean(head) - statistics.fmean(base), border


def _weighed(group: Group, rows: Sequence[Row], cv: float, tests: int, whole_ns: float) -> Timed:
    """A group, or all of a kind, with their times summed load by load."""
    base, head = ([math.fsum(load) for load in zip(*side, strict=True)] for side in zip(*rows, strict=True))
    difference, border = _difference((base, head), _prior_ns(rows, cv), tests)
    enough = max(border, LEAST_SHARE_OF_TOTAL * whole_ns)
    return Timed(group, statistics.fmean(base), statistics.fmean(head), border, abs(difference) > enough)
