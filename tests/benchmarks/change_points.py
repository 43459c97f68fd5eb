"""How soon the trend finds a step, and how often it cries wolf: planted steps in nights of real launches.

    python tests/benchmarks/change_points.py --otava /tmp/otava/bin/otava --out change_points.json

A night is five launches drawn with replacement from a stored H200 baseline, times a factor of the night
(log-normal, 0.2 % and 0.5 %). Series without a step give the false alarms a year; series with a slowdown of
2, 3 or 5 % the share that is found within 30 nights and the delay in nights (0: in the step's own night).
Every rule but those marked `whole series` runs anew each night on what is known by then, and an alarm is a
slowdown that it had not reported before, more than five nights from one that it had. A detection
lies within five nights of the step. Only slowdowns count, for every rule.

Rules: ours at four penalties; fixed thresholds against the night before and the median of 30 nights; asv's
step criterion, implemented here anew from its documentation (L1 Potts fit, BIC-like choice of the penalty
with AR(1) residuals; exact fit instead of its approximation); Apache Otava by its command line, whole series.
"""

from __future__ import annotations

import csv
import itertools
import json
import math
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import common
import numpy as np

from perfgate.gate.baselines import read_baseline
from perfgate.history.change_points import PENALTY, change_points
from perfgate.records.trend import Point

NIGHTS = 365
LAUNCHES = 5
HORIZON = 30
NEAR = 5
SIGMAS = (0.002, 0.005)
STEPS = (0.02, 0.03, 0.05)
PENALTIES = (2.0, 4.0, 6.0, 8.0)
FIRST = 10  # the first night that is judged: two levels of five
GAMMAS = 24

# What a rule has found when night t is the last one: first nights of slowdowns, by the last night.
Online = Callable[[Any, Sequence[int]], list[list[int]]]


def pools() -> list[Any]:
    """The logarithms of the stored launches, one array a case."""
    found = []
    for name in ("resnet50", "tinyconv"):
        for path in sorted((common.ROOT / "baselines/nvidia-h200").glob(f"*/{name}.json")):
            for _, case in sorted(read_baseline(path).cases.items()):
                found.append(np.log(np.array(case.metrics["latency_ns"], dtype=float)))
    return found


def series(pool: Any, sigma: float, step: float, seed: Sequence[int]) -> tuple[Any, int]:
    """The logarithm of each night's geometric mean, and the night of the step (365: none)."""
    draw = np.random.default_rng(seed)
    logs = draw.choice(pool, (NIGHTS, LAUNCHES)).mean(axis=1) + draw.normal(0, sigma, NIGHTS)
    night = int(draw.integers(60, 180)) if step else NIGHTS
    logs[night:] += math.log1p(step)
    return logs, night


def points(logs: Any) -> list[Point]:
    """Nights as the history gives them."""
    start = datetime(2025, 1, 1, tzinfo=timezone.utc)
    return [
        Point(
            run_id=str(night),
            created=f"{start + timedelta(days=night):%Y-%m-%dT%H:%M:%SZ}",
            commit=f"{night:040x}",
            environment="e",
            device="h200",
            toolchain="t",
            verdict="PASS",
            value=math.exp(value),
            values=(),
        )
        for night, value in enumerate(logs)
    ]


def ours(penalty: float) -> Online:
    """This project's rule."""

    def run(logs: Any, nights: Sequence[int]) -> list[list[int]]:
        known = points(logs)
        found = (change_points(known[: night + 1], penalty=penalty) for night in nights)
        return [[one.index for one in changes if one.ratio.estimate > 1] for changes in found]

    return run


def threshold(limit: float, window: int) -> Online:
    """Slower by more than `limit` than the median of the last `window` nights."""

    def run(logs: Any, nights: Sequence[int]) -> list[list[int]]:
        hits: list[int] = []
        result = []
        for night in range(window, max(nights) + 1):
            if logs[night] - float(np.median(logs[night - window : night])) > math.log1p(limit):
                hits.append(night)
            if night in nights:
                result.append(list(hits))
        return [[]] * (len(nights) - len(result)) + result

    return run


def asv_style(limit: float) -> Online:
    """asv's criterion: an L1 Potts fit, then upward steps that were not made good again."""

    def run(logs: Any, nights: Sequence[int]) -> list[list[int]]:
        values = np.exp(logs[: max(nights) + 1] - logs[0])
        cost, middle = _l1_costs(values)
        gammas = cost[0, -1] * np.geomspace(0.1 / len(values), 1, GAMMAS)
        lefts = _potts(cost, gammas)
        return [_asv_steps(values[: n + 1], cost, middle, lefts[: n + 1], limit) for n in nights]

    return run


def _l1_costs(values: Any) -> tuple[Any, Any]:
    """Sum of absolute deviations from the median, and the median, of every stretch [i, j]."""
    n = len(values)
    cost, middle = np.full((n, n), np.inf), np.zeros((n, n))
    for length in range(1, n + 1):
        windows = np.lib.stride_tricks.sliding_window_view(values, length)
        medians = np.median(windows, axis=1)
        starts = np.arange(n - length + 1)
        cost[starts, starts + length - 1] = np.abs(windows - medians[:, None]).sum(axis=1)
        middle[starts, starts + length - 1] = medians
    return cost, middle


def _potts(cost: Any, gammas: Any) -> Any:
    """The start of the last level in the best fit of each prefix, by penalty. Exact."""
    n = len(cost)
    best = np.zeros((n + 1, len(gammas)))
    best[0] = -gammas
    lefts = np.zeros((n, len(gammas)), dtype=int)
    for right in range(n):
        total = best[: right + 1] + gammas + cost[: right + 1, right][:, None]
        lefts[right] = total.argmin(axis=0)
        best[right + 1] = total.min(axis=0)
    return lefts


def _asv_steps(values: Any, cost: Any, middle: Any, lefts: Any, limit: float) -> list[int]:
    n = len(values)
    fits = set()
    for column in range(lefts.shape[1]):
        edges = [n]
        while edges[-1] > 0:
            edges.append(int(lefts[edges[-1] - 1, column]))
        fits.add(tuple(reversed(edges)))
    fit = min(sorted(fits), key=lambda edges: _asv_objective(values, edges, middle))
    levels = [
        (low, high, middle[low, high - 1], cost[low, high - 1] / (high - low))
        for low, high in itertools.pairwise(fit)
    ]
    return _asv_regressions(levels, limit)


def _asv_objective(values: Any, edges: tuple[int, ...], middle: Any) -> float:
    n = len(values)
    medians = [middle[low, high - 1] for low, high in itertools.pairwise(edges)]
    residual = values - np.repeat(medians, np.diff(edges))
    rho = np.linspace(-1, 1, 41)[:, None]
    spread = float(np.abs(residual[0]) + np.abs(residual[1:] - rho * residual[:-1]).sum(axis=1).min())
    floor = 0.1 * float(np.abs(np.diff(medians)).min()) if len(medians) > 2 else 0.001 * min(medians)
    return 4 * math.log(n) / n * len(medians) + math.log(max(floor, 1e-300) + spread)


def _asv_regressions(levels: Sequence[tuple[int, int, float, float]], limit: float) -> list[int]:
    found: list[int] = []
    best, best_error, later, short = levels[-1][2], levels[-1][3], 0, None
    for low, high, value, error in reversed(levels):
        margin = max(error, best_error, limit * value)
        if best > value + margin:
            if high - low < 2:
                short = (best, best_error)
            found.append(later)
            best, best_error = value, error
        elif short is not None:
            if short[0] <= value + margin:
                found.pop()
                best, best_error = short
            short = None
        later = low
    return found


RULES: dict[str, Online] = {
    **{f"perfgate, penalty {penalty:g} s2 ln n": ours(penalty) for penalty in PENALTIES},
    "5 % over the night before": threshold(0.05, 1),
    "10 % over the night before": threshold(0.10, 1),
    "5 % over the median of 30": threshold(0.05, 30),
    "10 % over the median of 30": threshold(0.10, 30),
    "asv-style, 5 % (its default)": asv_style(0.05),
    "asv-style, 1 %": asv_style(0.01),
}


def judge(job: tuple[str, Any, float, float, tuple[int, ...]]) -> tuple[str, float, float, float, float]:
    """(rule, sigma, step, false alarms or 1 for found, delay) of one series."""
    rule, pool, sigma, step, seed = job
    logs, night = series(pool, sigma, step, seed)
    if not step:
        alarms: list[int] = []
        for found in RULES[rule](logs, range(FIRST, NIGHTS)):
            alarms += [hit for hit in found if all(abs(hit - known) > NEAR for known in alarms)]
        return rule, sigma, step, len(alarms), math.nan
    nights = range(night, night + HORIZON + 1)
    for delay, found in enumerate(RULES[rule](logs, nights)):
        if any(abs(hit - night) <= NEAR for hit in found):
            return rule, sigma, step, 1, delay
    return rule, sigma, step, 0, math.nan


def whole_series_otava(otava: str, jobs: Sequence[tuple[Any, float, float, tuple[int, ...]]]) -> list[Any]:
    """Otava's own verdict on all series, as columns of one CSV file."""
    made = [series(*job) for job in jobs]
    names = [f"m{index}" for index in range(len(made))]
    start = datetime(2025, 1, 1, tzinfo=timezone.utc)
    with tempfile.TemporaryDirectory() as folder:
        table, config = Path(folder, "nights.csv"), Path(folder, "otava.yaml")
        with table.open("w", newline="") as sink:
            writer = csv.writer(sink)
            writer.writerow(["time", "commit", *names])
            for night in range(NIGHTS):
                day = f"{start + timedelta(days=night):%Y-%m-%dT%H:%M:%S+00:00}"
                writer.writerow([day, f"{night:040x}", *(repr(math.exp(logs[night])) for logs, _ in made)])
        tests = {
            "type": "csv",
            "file": str(table),
            "time_column": "time",
            "attributes": ["commit"],
            "metrics": names,
        }
        config.write_text(json.dumps({"tests": {"nights": tests}}))
        arguments = ["analyze", "nights", "--config-file", str(config), "--output", "json"]
        done = subprocess.run(
            [otava, *arguments, "--since", "2024-12-01"], capture_output=True, text=True, timeout=240
        )
    if done.returncode:
        raise OSError(done.stderr.strip().splitlines()[-1][:200] if done.stderr.strip() else "failed")
    hits: dict[str, list[int]] = {name: [] for name in names}
    for group in json.loads(done.stdout[done.stdout.index("{") :])["nights"]:
        index = round((group["time"] - start.timestamp()) / 86_400)
        for change in group["changes"]:
            if float(change["forward_change_percent"]) > 0:
                hits[change["metric"]].append(index)
    return [(*job[1:3], night, hits[name]) for job, (_, night), name in zip(jobs, made, names, strict=True)]


def whole_series_rows(found: Sequence[Any]) -> list[tuple[float, float, float, float]]:
    """(sigma, step, alarms or found, no delay) of each series judged as a whole."""
    return [
        (sigma, step, sum(abs(hit - night) <= NEAR for hit in hits) > 0 if step else len(hits), math.nan)
        for sigma, step, night, hits in found
    ]


def row(name: str, results: Sequence[tuple[float, float, float, float]]) -> dict[str, Any]:
    """One rule's figures by noise."""
    cells: dict[str, Any] = {"rule": name}
    for sigma in SIGMAS:
        for step in (0.0, *STEPS):
            chosen = [one for one in results if one[:2] == (sigma, step)]
            key = f"{sigma:.1%}/{step:.0%}"
            cells[f"{key}/series"] = len(chosen)
            cells[f"{key}/rate"] = common.mean([float(one[2]) for one in chosen])
            delays = [one[3] for one in chosen if not math.isnan(one[3])]
            cells[f"{key}/delay"] = float(np.median(delays)) if delays else None
    return cells


def table(rows: Sequence[dict[str, Any]]) -> str:
    """False alarms a year, then found (median delay in nights) by step, for each noise."""
    head = ["rule"]
    for sigma in SIGMAS:
        head += [f"{sigma:.1%}: false/y", *(f"+{step:.0%}" for step in STEPS)]
    body = []
    for one in rows:
        cells = [one["rule"]]
        for sigma in SIGMAS:
            if "not run" in one:
                cells += ["not run", "-", "-", "-"]
                continue
            cells.append(f"{one[f'{sigma:.1%}/0%/rate']:.2f}")
            for step in STEPS:
                key = f"{sigma:.1%}/{step:.0%}"
                delay = one[f"{key}/delay"]
                cells.append(f"{one[f'{key}/rate']:.0%}" + ("" if delay is None else f" ({delay:g})"))
        body.append(cells)
    return common.text_table(head, body)


def run(options: common.Options) -> int:
    started = time.monotonic()
    plans = [
        (pool, sigma, step, (options.seed, index, place, round(step * 1000), repeat))
        for index, pool in enumerate(pools())
        for place, sigma in enumerate(SIGMAS)
        for step in (0.0, *STEPS)
        for repeat in range(options.repeats)
    ]
    # asv's fit takes a second a series here: a quarter of the series has to do for it.
    jobs = [
        (rule, *plan)
        for rule in RULES
        for plan in plans
        if not rule.startswith("asv") or plan[3][4] < max(1, options.repeats // 4)
    ]
    with multiprocessing.Pool() as workers:
        judged = workers.map(judge, jobs, chunksize=10)
    rows = [row(name, [one[1:] for one in judged if one[0] == name]) for name in RULES]
    whole = []
    for pool, sigma, step, seed in plans:
        logs, night = series(pool, sigma, step, seed)
        found = [one.index for one in change_points(points(logs)) if one.ratio.estimate > 1]
        whole.append((sigma, step, night, found))
    rows.append(row(f"perfgate, penalty {PENALTY:g}, whole series", whole_series_rows(whole)))
    rows.append(_otava_row(options.otava, plans))
    print(table(rows))
    body = {"seed": options.seed, "repeats": options.repeats, "rows": rows}
    common.write(options.out, "change-points", {**body, "seconds": round(time.monotonic() - started, 1)})
    return 0


def _otava_row(otava: str, plans: Sequence[Any]) -> dict[str, Any]:
    name = "Apache Otava, whole series"
    if not otava:
        return {"rule": name, "not run": "no --otava was given"}
    try:
        return row(name, whole_series_rows(whole_series_otava(otava, plans)))
    except (OSError, subprocess.TimeoutExpired, ValueError, KeyError) as error:
        common.say(f"Apache Otava was not run: {error}")
        return {"rule": name, "not run": str(error)[:300]}


OPTIONS = [
    common.option("--otava", default="", help="the otava command of a venv of its own (default: none)"),
    common.option("--repeats", type=int, default=20, help="series a cell and case (default: 20)"),
    common.option("--seed", type=int, default=1),
    common.option("--out", type=Path, default=Path("change_points.json")),
]

if __name__ == "__main__":
    sys.exit(common.main(run, __doc__, OPTIONS))
