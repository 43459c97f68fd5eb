"""How peers decide, re-implemented here from their sources and documentation: these are not their programs.

Each rule takes base's and head's launches, one array of samples (ns) each, and tells whether it calls head
slower. Versions are those of the sources that were read: asv of 2026-06, Google benchmark's compare.py,
criterion.rs's `analysis/compare.rs`, Bencher of 2026-08, nvbench of 2026-08, github-action-benchmark 1.22.0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Launches = Sequence[Any]
Rule = Callable[[Launches, Launches, Any], bool]
REPETITIONS = 10  # values that a process reports, where a tool reports means of many iterations
RESAMPLES = 500  # criterion takes 100,000; a decision at 5 % needs fewer


def repetitions(launches: Launches) -> Any:
    """Each process's samples as the means of ten stretches."""
    return np.array([part.mean() for launch in launches for part in np.array_split(launch, REPETITIONS)])


def pooled(launches: Launches) -> Any:
    return np.concatenate(launches)


def github_action_benchmark(base: Launches, head: Launches, draw: Any, limit: float = 2.0) -> bool:
    """Ratio of means above the alert threshold, 200 % unless set."""
    return bool(pooled(head).mean() / pooled(base).mean() > limit)


def asv(base: Launches, head: Launches, draw: Any) -> bool:
    """`asv continuous`: medians apart by a factor of 1.1, and Mann-Whitney p < 0.002 where six values a side
    can tell that, else 99 % intervals apart."""
    from scipy.stats import mannwhitneyu

    old, new = repetitions(base), repetitions(head)
    if not np.median(old) < np.median(new) / 1.1:
        return False
    if 1 / math.comb(len(old) + len(new), min(len(old), len(new))) < 0.002:
        exact = "exact" if max(len(old), len(new)) <= 20 else "asymptotic"
        return bool(mannwhitneyu(old, new, method=exact).pvalue < 0.002)
    return bool(old.max() < new.min())


def criterion(base: Launches, head: Launches, draw: Any) -> bool:
    """Bootstrap two-sample t test p < 0.05, and the 95 % bootstrap interval of the relative change of means
    wholly above the noise threshold of 1 %. A hundred samples a process."""
    old, new = (np.concatenate([launch[:100] for launch in side]) for side in (base, head))
    both = np.concatenate([old, new])
    mixed = both[draw.integers(0, len(both), (RESAMPLES, len(both)))]
    t = _student(new, old)
    null = _student(mixed[:, len(old) :], mixed[:, : len(old)])
    p = 2 * min((null <= t).mean(), (null >= t).mean())
    means = [side[draw.integers(0, len(side), (RESAMPLES, len(side)))].mean(axis=1) for side in (old, new)]
    return bool(p < 0.05 and np.quantile(means[1] / means[0] - 1, 0.025) > 0.01)


def _student(new: Any, old: Any) -> Any:
    variance = new.var(axis=-1, ddof=1) / new.shape[-1] + old.var(axis=-1, ddof=1) / old.shape[-1]
    return (new.mean(axis=-1) - old.mean(axis=-1)) / np.sqrt(variance)


def google_benchmark(base: Launches, head: Launches, draw: Any) -> bool:
    """compare.py's U test on repetitions, two-sided at 0.05, where head's median is the larger."""
    from scipy.stats import mannwhitneyu

    old, new = repetitions(base), repetitions(head)
    slower = np.median(new) > np.median(old)
    return bool(slower and mannwhitneyu(old, new, alternative="two-sided").pvalue < 0.05)


def google_benchmark_launches(base: Launches, head: Launches, draw: Any) -> bool:
    """The same, one process being one repetition."""
    from scipy.stats import mannwhitneyu

    old, new = ([float(np.mean(launch)) for launch in side] for side in (base, head))
    return bool(np.median(new) > np.median(old) and mannwhitneyu(old, new).pvalue < 0.05)


def bencher(base: Launches, head: Launches, draw: Any) -> bool:
    """The t_test threshold of the documentation's example, upper boundary 0.99: head's mean beyond the
    prediction interval of base's runs. No spread or a single run: no limit, no alert."""
    from scipy.special import stdtrit

    history = np.array([launch.mean() for launch in base])
    if len(history) < 2 or history.std() == 0:
        return False
    width = history.std(ddof=1) * math.sqrt(1 + 1 / len(history))
    limit = history.mean() + stdtrit(len(history) - 1, 0.99) * width
    return bool(np.mean([launch.mean() for launch in head]) > limit)


def nvbench_robust(base: Launches, head: Launches, draw: Any) -> bool:
    """nvbench_compare_robust's SLOW at its default preset: the intervals from the least sample to the third
    quartile disjoint by half a per cent. In cycles the same, the clock being one."""
    low, high = ((float(side.min()), float(np.quantile(side, 0.75))) for side in (pooled(base), pooled(head)))
    return high[0] > low[1] and (high[0] - low[1]) / min(high[0], low[1]) >= 0.005
