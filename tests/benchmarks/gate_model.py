"""The launches that the gate's benchmarks simulate: a model fitted to recordings, and the recordings.

Recordings are files of loads, and of gates of `real_aa.py`, from real devices (`recordings.py` reads them).
What they do not tell is what was seen on three H200s with TensorRT 8.5.3 (2026-11), and `source` says so.

A log median is the sum of its machine, its day, its build, and its launch, which lies in one of two clusters.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import common
import msgspec
import numpy as np
from recordings import DATA

from perfgate.gate.statistics.build_variance import widened
from perfgate.gate.statistics.noise import BUILD_CV, LAUNCH_CV, LAUNCH_DOF, RUN_CV, spread_of
from perfgate.gate.statistics.power import (
    INCONCLUSIVE,
    PASS,
    REGRESSION,
    Outcomes,
    Plan,
    run_gates,
    sequential,
    upper_bound,
)
from perfgate.gate.statistics.sequential import BUDGET, worth_screening
from perfgate.records import RebuildPolicy, Record, Tolerance

TOLERANCE = Tolerance(ignore=0.005, catch=0.02)
BUILDS = RebuildPolicy().builds
LAUNCHES = 5  # of a stored run, and of a screen
# A build that is slower than its best sibling by more than this drew other tactics.
LOTTERY = 0.05
# What one launch holds the GPU for: start of the process, load, 0.2 s warm-up and 0.5 s samples.
LAUNCH_S = 4.0


class Model(Record):
    """Standard deviations of log medians, but `gap` (between the clusters), `slow` (the share of launches in
    the slower one), and the lottery's share and slowdown."""

    gap: float = 0.015
    slow: float = 0.35
    within: float = 0.002
    build: float = BUILD_CV
    lottery: float = 0.2
    lottery_slowdown: float = 0.17
    day: float = 0.003
    host: float = 0.021
    launch_s: float = LAUNCH_S
    source: str = "seen on three H200s, 2026-11; `slow`, `within` and `day` assumed"

    @property
    def launch_cv(self) -> float:
        return math.sqrt(self.within**2 + self.slow * (1 - self.slow) * self.gap**2)

    def launches(self, draw: Any, *shape: int) -> Any:
        """Log medians of launches about their build's centre."""
        cluster = (draw.random(shape) < self.slow) - self.slow
        return cluster * self.gap + draw.normal(0, self.within, shape)

    def builds(self, draw: Any, gates: int, share: float = 1.0) -> Any:
        """The effect of a build of which this share was timed anew."""
        slow = (draw.random(gates) < self.lottery * share) * math.log1p(self.lottery_slowdown)
        return slow + draw.normal(0, self.build * math.sqrt(share), gates)


class Luck(Record):
    """How much of head's engine the other side's timing cache did not tell, and whether one told base's."""

    name: str
    share: float
    base_told: bool


LUCK = (
    Luck(name="10 % of head built anew", share=0.1, base_told=True),
    Luck(name="all of head built anew", share=1.0, base_told=True),
    Luck(name="all of both built anew", share=1.0, base_told=False),
)


class History(Record):
    """What is stored when a gate is held: runs, on so many machines of one kind, today's being one."""

    name: str
    runs: int
    machines: int
    days: int


HISTORIES = (
    History(name="first day: one run, any machine", runs=1, machines=0, days=1),
    History(name="six runs, this machine", runs=6, machines=1, days=6),
    History(name="six runs, three machines", runs=6, machines=3, days=6),
)


def residuals(files: Sequence[dict[str, Any]]) -> list[Any]:
    """Log medians about their build's mean, one array a file, stretched to a population's spread."""
    hosts = []
    for file in files:
        pools = []
        for build in range(len(file["builds"])):
            logs = np.log(_medians(file, build))
            if len(logs) > 1:
                pools.append((logs - logs.mean()) * math.sqrt(len(logs) / (len(logs) - 1)))
        if pools:
            hosts.append(np.concatenate(pools))
    return hosts


def _medians(file: dict[str, Any], build: int) -> list[float]:
    """A gate's launch is a fresh process with its first load."""
    return [
        row["median_ns"]
        for row in file["loads"]
        if row["build"] == build and not row["invalid"] and row["load"] == 0
    ]


def models(files: Sequence[dict[str, Any]]) -> dict[str, Model]:
    """The worlds to hold gates in: the recordings' own where there are any, and what was seen before them."""
    seen = {"as on three H200s": Model()}
    return {"as recorded": fit(files), **seen} if files else seen


def fit(files: Sequence[dict[str, Any]]) -> Model:
    """The model of these recordings; what they cannot tell stays as it is without any."""
    pools = residuals(files)
    if not pools:
        return Model()
    gap, slow, within = clusters(np.concatenate(pools))
    found: dict[str, Any] = {"gap": gap, "slow": slow, "within": within}
    said = [f"launches: {sum(len(pool) for pool in pools)} on {len(pools)} GPUs"]
    steps = [of_set for one in _sets(files) if (of_set := _build_steps(one))]
    ordinary = [[step for step in of_set if step < math.log1p(LOTTERY)] for of_set in steps]
    slower = [step for of_set in steps for step in of_set if step >= math.log1p(LOTTERY)]
    # Each set's best build is what its others are held against.
    further = sum(len(of_set) - 1 for of_set in steps)
    if further > 3:
        found["lottery"] = len(slower) / further
        if slower:
            found["lottery_slowdown"] = math.expm1(statistics.median(slower))
        if sum(len(of_set) - 1 for of_set in ordinary) > 1:
            found["build"] = pooled_deviation(ordinary)
        said.append(f"builds: {further} beside one a set")
    places = machines(files)
    if sum(len(kind) - 1 for kind in places) >= 2:
        found["host"] = host_deviation(places)
        said.append(f"machines: {sum(len(kind) for kind in places)}")
    visits = [[statistics.fmean(gpus) for gpus in days] for kind in places for days in kind]
    if sum(len(days) - 1 for days in visits) >= 2:
        found["day"] = pooled_deviation(visits)
        said.append(f"visits to them: {sum(len(days) for days in visits)}")
    found["launch_s"] = statistics.fmean(
        file["costs_s"]["process"] + file["costs_s"]["load"] + 0.5 for file in files
    )
    kept = sorted({"lottery", "build", "host", "day"} - found.keys())
    return Model(**found, source="; ".join([*said, f"not recorded: {', '.join(kept)}"]))


def machines(files: Sequence[dict[str, Any]]) -> list[list[list[list[float]]]]:
    """The log centres of each file's first build: by kind of GPU, case and engine, then by machine, by day,
    and its GPUs. Engines that differ say nothing of the machines they ran on."""
    found: dict[tuple[str, ...], dict[int, dict[str, list[float]]]] = {}
    for number, (file, place) in enumerate(zip(files, places_of(files), strict=True)):
        if medians := _medians(file, 0):
            engine = str(file["builds"][0]["digest"])
            kind = str(file.get("device", "")), str(file.get("case", "")), engine
            days = found.setdefault(kind, {}).setdefault(place, {})
            days.setdefault(str(file.get("date", number))[:10], []).append(statistics.fmean(np.log(medians)))
    return [[list(days.values()) for days in of_kind.values()] for of_kind in found.values()]


def places_of(files: Sequence[dict[str, Any]]) -> list[int]:
    """A number a machine: files of one GPU, by its UUID, or with one name of a machine are of the same."""
    known: dict[str, int] = {}
    found = []
    for number, file in enumerate(files):
        gpu, machine = file.get("environment", {}).get("uuid", number), file.get("machine", "")
        names = [str(gpu), *([f"machine {machine}"] if machine else [])]
        place = next((known[name] for name in names if name in known), number)
        known |= dict.fromkeys(names, place)
        found.append(place)
    return found


def host_deviation(places: Sequence[Sequence[Sequence[Sequence[float]]]]) -> float:
    """How far a GPU lies from its kind's mean: machines lie apart, and so do GPUs of one machine. Of the
    variance of machines' means a GPU's own share is one over their number (harmonic mean), so the rest of it
    is added (Searle, Casella and McCulloch, "Variance Components", 1992, chapter 3)."""
    means = [[statistics.fmean(statistics.fmean(gpus) for gpus in days) for days in kind] for kind in places]
    groups = [gpus for kind in places for days in kind for gpus in days]
    within = pooled_deviation(groups) if any(len(gpus) > 1 for gpus in groups) else 0.0
    gpus = statistics.harmonic_mean([len(one) for one in groups])
    return math.hypot(pooled_deviation(means), within * math.sqrt(1 - 1 / gpus))


def _sets(files: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The files by the engines that they are of: GPUs that took theirs from one store draw no build twice."""
    found: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for file, place in zip(files, places_of(files), strict=True):
        engine = str(file["builds"][0]["digest"]) if file["builds"] else ""
        found.setdefault((engine, place), []).append(file)
    return list(found.values())


def pooled_deviation(groups: Sequence[Sequence[float]]) -> float:
    """The standard deviation within groups, pooled by degrees of freedom."""
    squares = sum(statistics.variance(group) * (len(group) - 1) for group in groups if len(group) > 1)
    return math.sqrt(squares / sum(len(group) - 1 for group in groups))


def _build_steps(files: Sequence[dict[str, Any]]) -> list[float]:
    """Each engine's log slowdown against the best build of a set, that one first: the mean over its GPUs of
    what lies between it and the set's first engine."""
    steps: dict[str, list[float]] = {}
    for file in files:
        seen: dict[str, float] = {}
        for number, build in enumerate(file["builds"]):
            if medians := _medians(file, number):
                seen.setdefault(build["digest"], statistics.fmean(np.log(medians)))
        first = next(iter(seen.values()), 0.0)
        for engine, value in seen.items():
            steps.setdefault(engine, []).append(value - first)
    found = [statistics.fmean(values) for values in steps.values()]
    return sorted(value - min(found) for value in found)


def clusters(values: Any) -> tuple[float, float, float]:
    """Gap, share of the slow one and width of two normal clusters of one width, by expectation and
    maximisation (Dempster, Laird and Rubin, J. R. Stat. Soc. B 39, 1977); one cluster where the Bayesian
    information criterion prefers it (Schwarz, Ann. Stat. 6, 1978)."""
    ordered = np.sort(values)
    count, whole = len(ordered), float(ordered.std())
    if whole == 0 or count < 8:
        return 0.0, 0.5, whole
    low, high = (float(np.quantile(ordered, share)) for share in (0.25, 0.75))
    slow, width, likelihood = 0.5, whole / 2, -math.inf
    for _ in range(500):
        parts = np.stack(
            [
                math.log(max(weight, 1e-12)) - 0.5 * ((ordered - centre) / width) ** 2
                for weight, centre in ((1 - slow, low), (slow, high))
            ]
        ) - math.log(width * math.sqrt(2 * math.pi))
        joint = np.logaddexp(*parts)
        member = np.exp(parts[1] - joint)
        if abs(float(joint.sum()) - likelihood) < 1e-9:
            break
        likelihood = float(joint.sum())
        slow = float(member.mean())
        if not 0.02 < slow < 0.98:
            return 0.0, 0.5, whole
        low = float(((1 - member) * ordered).sum() / (1 - member).sum())
        high = float((member * ordered).sum() / member.sum())
        spread = ((1 - member) * (ordered - low) ** 2 + member * (ordered - high) ** 2).mean()
        width = max(math.sqrt(float(spread)), whole / 100)
    single = -count / 2 * (math.log(2 * math.pi * whole**2) + 1)
    if 2 * (likelihood - single) < 2 * math.log(count):
        return 0.0, 0.5, whole
    return high - low, slow, width


def plan_of(history: History) -> Plan:
    """Where a head as fast as base could not pass the screen, none is held."""
    spread = spread_of("gpu", [[1.0] * LAUNCHES] * history.runs, history.days)
    if history.machines > 1:
        spread = spread_of("gpu")
    held = worth_screening([LAUNCHES] * history.runs, LAUNCHES, TOLERANCE, spread)
    return Plan(
        kind="gpu",
        tolerance=TOLERANCE,
        screen=LAUNCHES if held else 0,
        budget=BUDGET,
        days=history.days,
    )


def hold(model: Model, history: History, gates: int, slowdown: float, draw: Any) -> Outcomes:
    """So many gates by the model, head being slower by `slowdown`."""
    plan = plan_of(history)
    machines = draw.normal(0, model.host, (gates, max(1, history.machines)))
    which = draw.integers(0, machines.shape[1], (gates, history.runs))
    runs = np.take_along_axis(machines, which, axis=1) + draw.normal(0, model.day, (gates, history.runs))
    today = machines[:, :1] if history.machines else draw.normal(0, model.host, (gates, 1))
    today = today + draw.normal(0, model.day, (gates, 1))
    slower = math.log1p(slowdown)
    return run_gates(
        model.launches(draw, gates, history.runs, LAUNCHES) + runs[:, :, None],
        model.launches(draw, gates, plan.screen) + today + slower,
        model.launches(draw, gates, plan.budget) + today,
        model.launches(draw, gates, plan.budget) + today + slower,
        plan,
    )


def hold_rebuilt(model: Model, gates: int, draw: Any, luck: Luck, slowdown: float = 0.0) -> Outcomes:
    """Head built anew, `pick = "best"`: until a build passes, further ones that have to pass twice; where one
    stays undecided and none passes, so does the case. The launches that choose among base's builds are not
    counted."""
    share = luck.share
    drawn = 1 if luck.base_told else BUILDS
    base_build = np.min([model.builds(draw, gates, share) for _ in range(drawn)], axis=0)
    verdict, launches = np.full(gates, REGRESSION), np.zeros(gates, int)
    undecided = np.zeros(gates, bool)
    plan = Plan(kind="gpu", tolerance=widened(TOLERANCE, share))
    for number in range(BUILDS):
        open_ = np.flatnonzero(verdict < PASS)
        head_build = model.builds(draw, len(open_), share) + math.log1p(slowdown)
        for turn in range(2 if number else 1):
            again = np.arange(len(open_)) if turn == 0 else np.flatnonzero(verdict[open_] >= PASS)
            mine = open_[again]
            shape = len(mine), plan.budget
            head = model.launches(draw, *shape) + head_build[again, None]
            base = model.launches(draw, *shape) + base_build[mine, None]
            cv, dof = np.full(len(mine), LAUNCH_CV["gpu"]), np.full(len(mine), LAUNCH_DOF)
            verdict[mine], taken = sequential(base, head, cv, dof, plan)
            launches[mine] += taken
        undecided |= verdict == INCONCLUSIVE
    verdict[(verdict < PASS) & undecided] = INCONCLUSIVE
    return Outcomes(
        verdict=verdict, base_launches=launches, head_launches=launches, suspect=np.ones(gates, bool)
    )


def hold_recorded(hosts: Sequence[Any], gates: int, slowdown: float, draw: Any) -> Outcomes:
    """Gates by bootstrap over hosts: each gate on one recorded host, its baseline on another or the same, and
    launches drawn from what that host really gave. Machines lie apart as the stated prior has it."""
    plan = plan_of(HISTORIES[0])
    stored, base, head = (np.empty((gates, count)) for count in (LAUNCHES, plan.budget, plan.budget))
    then, now = draw.integers(0, len(hosts), (2, gates))
    for number, pool in enumerate(hosts):
        for chosen, table in ((then, stored), (now, base), (now, head)):
            mine = chosen == number
            table[mine] = draw.choice(pool, (int(mine.sum()), table.shape[1]))
    stored += draw.normal(0, RUN_CV["gpu"], (gates, 1))
    empty = np.empty((gates, 0))
    return run_gates(stored[:, None, :], empty, base, head + math.log1p(slowdown), plan)


def alarm_row(name: str, found: Outcomes, launch_s: float) -> dict[str, Any]:
    """The rates of one simulation of unchanged heads, with their exact upper bounds."""
    gates = len(found.verdict)
    red, open_ = int((found.verdict == REGRESSION).sum()), int((found.verdict == 0).sum())
    return {
        "what": name,
        "gates": gates,
        "regression": red,
        "regression_upper": upper_bound(red, gates),
        "inconclusive": open_,
        "inconclusive_upper": upper_bound(open_, gates),
        **cost(found, launch_s),
    }


def cost(found: Outcomes, launch_s: float) -> dict[str, float]:
    """Median launches of either side, and seconds that the GPU was held."""
    seconds = (found.base_launches + found.head_launches) * launch_s
    return {
        "base_launches": float(np.median(found.base_launches)),
        "head_launches": float(np.median(found.head_launches)),
        "gpu_s": float(np.median(seconds)),
        "gpu_s_p95": float(np.quantile(seconds, 0.95)),
    }


def options(count: common.Option, out: str) -> list[common.Option]:
    """The options of the scripts that simulate gates: how many, on which launches, from which seed."""
    return [
        count,
        common.option("--data", type=Path, default=DATA, help="recorded launches (default: %(default)s)"),
        common.option("--seed", type=int, default=20261124),
        common.out_option(out),
    ]


def described(models: dict[str, Model]) -> dict[str, Any]:
    """The models as the JSON files have them."""
    return {
        name: {**msgspec.structs.asdict(model), "launch_cv": model.launch_cv}
        for name, model in models.items()
    }


def sources(models: dict[str, Any]) -> str:
    """A line a model: where it comes from."""
    return "\n".join(
        f"{name}: {one['source']}; CV of launches {common.percent(one['launch_cv'])}"
        for name, one in models.items()
    )
