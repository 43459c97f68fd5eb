"""Where a measurement's spread comes from: host x build x process x load x sample.

    python tests/benchmarks/levels.py --model models/resnet50.toml --precision fp16 --shape b=8 \\
        --builds 3 --processes 5 --loads 3 --samples 300 --out levels-1.json
    python tests/benchmarks/levels.py --merge levels-1.json levels-2.json --out levels.json

Builds one case several times, the first with the timing cache of `--timing` where it is given, the others
without any. Fresh processes of all builds take turns; each loads its engine several times (deserialise, new
execution context and buffers, behind a padding allocation of random size, so that addresses move) and takes
samples of each load. Shown are the variance that each level adds to a log median (nested random-effects
analysis of variance), what a repetition of it costs, and how many repetitions of each are worth their cost:
r_i = sqrt(c_(i+1) / c_i * T_i^2 / T_(i+1)^2), Kalibera and Jones, "Rigorous benchmarking in reasonable
time", ISMM 2013. `--merge` joins the files of several hosts, one a file, and adds that level.

What it is to settle: whether a new process redraws a GPU's luck or a new load does. Where the process's
component is nothing beside the load's, one process may take several loads and a launch is cheap.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import common
from levels_child import LevelsReply, LevelsRequest, Load

from perfgate.model.spec import parse_mode
from perfgate.records import Record
from perfgate.util.process import call_child

LEVELS = ("load", "process", "build", "host")
_CHILD_TIMEOUT_S = 560
_NORMAL_IQR = 1.349


class Component(Record):
    """One level: `variance` is what it adds to a log median (T^2), None where nothing was repeated;
    `repeats` its mean number a parent, `dof` its degrees of freedom."""

    level: str
    variance: float | None
    repeats: float
    dof: int


Tree = list[Any]


def components(tree: Tree, *, sample_variance: float, samples: int) -> list[Component]:
    """The variance components of nested lists whose leaves are log medians, lowest level first.

    The leaves are loads, lists of them processes, then builds, then hosts. A leaf's own noise is that of a
    median of independent samples, pi/2 * s^2 / n; samples that follow each other are less than independent,
    and the rest of their noise counts as the load's.
    """
    found = [Component(level="sample", variance=sample_variance, repeats=samples, dof=0)]
    below = math.pi / 2 * sample_variance / samples
    for level in LEVELS[: _depth(tree)]:
        groups = _lowest(tree)
        dof = sum(len(group) - 1 for group in groups)
        repeats = statistics.harmonic_mean([len(group) for group in groups])
        variance = None
        if dof:
            centres = [statistics.fmean(group) for group in groups]
            squares = [
                (value - centre) ** 2
                for group, centre in zip(groups, centres, strict=True)
                for value in group
            ]
            seen = math.fsum(squares) / dof
            variance = max(0.0, seen - below)
            below = seen / repeats
        found.append(Component(level=level, variance=variance, repeats=repeats, dof=dof))
        tree = _collapse(tree)
    return found


def _depth(tree: Tree) -> int:
    return 1 + _depth(tree[0]) if isinstance(tree[0], list) else 1


def _lowest(tree: Tree) -> list[list[float]]:
    """The lists that hold leaves."""
    return [group for part in tree for group in _lowest(part)] if isinstance(tree[0], list) else [tree]


def _collapse(tree: Tree) -> Any:
    """The tree with every list of leaves replaced by its mean."""
    return [_collapse(part) for part in tree] if isinstance(tree[0], list) else statistics.fmean(tree)


def repetitions(found: Sequence[Component], costs_s: Mapping[str, float]) -> dict[str, int | None]:
    """Kalibera and Jones' optimal number of repetitions of each level but the highest.

    None where it cannot be said: the level or the one above was not repeated, or the one above adds
    nothing, and then repeating this one is as good as repeating that one and always cheaper.
    """
    optimal: dict[str, int | None] = {}
    for lower, upper in itertools.pairwise(found):
        cost, more = costs_s.get(lower.level), costs_s.get(upper.level)
        if lower.variance is None or not upper.variance or not cost or not more:
            optimal[lower.level] = None
            continue
        optimal[lower.level] = max(1, math.ceil(math.sqrt(more / cost * lower.variance / upper.variance)))
    return optimal


def tree_of(rows: Sequence[Mapping[str, Any]]) -> Tree:
    """Log medians as build x process x load."""
    builds: dict[int, dict[int, list[float]]] = {}
    for row in rows:
        builds.setdefault(row["build"], {}).setdefault(row["process"], []).append(math.log(row["median_ns"]))
    return [[builds[build][process] for process in sorted(builds[build])] for build in sorted(builds)]


def analyse(files: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Components, costs and recommended repetitions of one file's measurements, or of several hosts'."""
    rows = [row for file in files for row in file["loads"]]
    trees = [tree_of(file["loads"]) for file in files]
    found = components(
        trees if len(files) > 1 else trees[0],
        sample_variance=statistics.fmean(row["log_variance"] for row in rows),
        samples=round(statistics.harmonic_mean([row["samples"] for row in rows])),
    )
    costs_s = {
        name: statistics.fmean(file["costs_s"][name] for file in files)
        for name in ("sample", "load", "process", "build")
    }
    optimal = repetitions(found, costs_s)
    total = math.fsum(one.variance or 0.0 for one in found[1:])
    return {
        "components": {
            one.level: {
                "variance": one.variance,
                "cv": None if one.variance is None else math.sqrt(one.variance),
                "share": one.variance / total if one.variance is not None and total and index else None,
                "repeats": one.repeats,
                "dof": one.dof,
                "cost_s": costs_s.get(one.level),
                "repetitions": optimal.get(one.level),
            }
            for index, one in enumerate(found)
        },
        "invalid_loads": sum(bool(row["invalid"]) for row in rows),
    }


def robust_variance(values: Sequence[float]) -> float:
    """The variance of a normal distribution with these quartiles: a median does not see the far tail."""
    low, _, high = statistics.quantiles(values, n=4)
    return ((high - low) / _NORMAL_IQR) ** 2


def load_row(build: int, process: int, number: int, load: Load) -> dict[str, Any]:
    """One load as the file has it."""
    return {
        "build": build,
        "process": process,
        "load": number,
        "median_ns": float(statistics.median(load.samples_ns)),
        "log_variance": robust_variance([math.log(sample) for sample in load.samples_ns]),
        "samples": len(load.samples_ns),
        "load_s": load.load_ns / 1e9,
        "sampling_s": load.sampling_ns / 1e9,
        "padding_bytes": load.padding_bytes,
        "sm_clock_mhz": load.sm_clock_mhz,
        "invalid": load.invalid,
        "samples_ns": list(load.samples_ns),
    }


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Build, then launch the processes of all builds in turn."""
    planned = common.plan(
        options.model,
        options.precision,
        options.shape,
        options.backend,
        options.device,
        mode=parse_mode(options.mode, where="--mode") if options.mode else None,
    )
    builds: list[dict[str, Any]] = []
    engines: list[Path] = []
    for number in range(options.builds):
        timing = options.timing if number == 0 else None
        started = time.monotonic()
        engine, facts = common.build(planned, folder / f"build{number}", timing=timing)
        # An engine that `--store` had already says itself what it took.
        seconds = facts.build_ns / 1e9 if facts.cached else time.monotonic() - started
        common.say(f"build {number}: {seconds:.0f} s, engine {facts.digest[:12]}")
        engines.append(engine)
        builds.append(
            {
                "digest": facts.digest,
                "build_s": seconds,
                "timing_cache": timing is not None,
                "precision_share": facts.precision_share,
                "notes": list(facts.notes),
            }
        )
    with common.locked(options.backend, options.device):
        loads, process_s = _processes(options, planned, engines)
    costs_s = {
        "sample": common.mean([row["sampling_s"] / row["samples"] for row in loads]),
        "load": common.mean([row["load_s"] for row in loads]),
        "process": common.mean(process_s),
        "build": common.mean([one["build_s"] for one in builds if not one["timing_cache"]]),
    }
    return {"case": planned.case.id, "builds": builds, "loads": loads, "costs_s": costs_s}


def _processes(
    options: argparse.Namespace, planned: common.Plan, engines: Sequence[Path]
) -> tuple[list[dict[str, Any]], list[float]]:
    """All loads, and what each process took beyond its loads (seconds). Each round has all builds in a
    random order of its own."""
    rows: list[dict[str, Any]] = []
    extra_s: list[float] = []
    for process in range(options.processes):
        turn = list(enumerate(engines))
        random.Random(process).shuffle(turn)
        for build, engine in turn:
            request = LevelsRequest(
                engine=str(engine),
                case=planned.case,
                folder=planned.folder,
                device=options.device,
                loads=options.loads,
                samples=options.samples,
                warmup_ns=options.warmup_ms * 1_000_000,
                seed=1000 * build + process,
            )
            started = time.monotonic()
            reply = call_child(
                "levels_child",
                request,
                LevelsReply,
                timeout_s=_CHILD_TIMEOUT_S,
                python=common.child(),
            )
            spent_s = sum(load.load_ns + load.sampling_ns for load in reply.loads) / 1e9
            extra_s.append(max(0.0, time.monotonic() - started - spent_s))
            rows += [load_row(build, process, number, load) for number, load in enumerate(reply.loads)]
            medians = ", ".join(f"{statistics.median(load.samples_ns) / 1e6:.4f}" for load in reply.loads)
            common.say(f"process {process} of build {build}: {medians} ms")
    return rows, extra_s


def show(files: Sequence[Mapping[str, Any]], found: Mapping[str, Any]) -> str:
    """The builds' medians, then the levels."""
    rows = []
    for host, file in enumerate(files):
        for number, one in enumerate(file["builds"]):
            mine = [row for row in file["loads"] if row["build"] == number]
            centre = math.exp(statistics.fmean(math.log(row["median_ns"]) for row in mine)) / 1e6
            low, high = (pick(row["median_ns"] for row in mine) / 1e6 for pick in (min, max))
            name = f"host {host} build {number}{' (timing cache)' if one['timing_cache'] else ''}"
            rows.append((name, one["digest"][:12], f"{centre:.4f}", f"{low:.4f}", f"{high:.4f}", len(mine)))
    medians = common.text_table(("", "engine", "median ms", "least", "most", "loads"), rows)
    head = ("level", "adds (CV)", "share", "dof", "cost s", "repetitions")
    levels = [
        (
            level,
            common.percent(one["cv"]),
            common.percent(one["share"], 0),
            one["dof"] if level != "sample" else "-",
            "-" if one["cost_s"] is None else f"{one['cost_s']:.3g}",
            one["repetitions"] or "-",
        )
        for level, one in found["components"].items()
    ]
    note = f"{found['invalid_loads']} loads were disturbed" if found["invalid_loads"] else ""
    return "\n\n".join(filter(None, (medians, common.text_table(head, levels), note)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", type=Path, default=common.ROOT / "models/resnet50.toml")
    parser.add_argument("--precision", default="fp16")
    parser.add_argument("--shape", type=common.parse_shape, default={}, help="such as b=8 or b=8,s=128")
    parser.add_argument("--mode", default="", help="such as enqueue+spin (default: the backend's own)")
    parser.add_argument("--builds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=5, help="of each build")
    parser.add_argument("--loads", type=int, default=3, help="of each process")
    parser.add_argument("--samples", type=int, default=300, help="of each load")
    parser.add_argument("--warmup-ms", type=int, default=200)
    parser.add_argument("--timing", type=Path, help="timing cache for the first build")
    parser.add_argument("--store", type=Path, help="keep engines here, and take them from here again")
    parser.add_argument("--merge", type=Path, nargs="+", help="measure nothing: join these files, one a host")
    common.add_common(parser, "levels.json")
    return parser


def main() -> int:
    options = _parser().parse_args()
    if options.merge:
        files = [json.loads(path.read_text()) for path in options.merge]
        found = analyse(files)
        sources = [{key: file[key] for key in ("date", "device", "environment", "case")} for file in files]
        common.write(options.out, "levels-merged", {"hosts": sources, **found})
    else:
        with common.store(options.store) as folder:
            body = measure(options, folder)
        files = [{**common.about(options.backend, options.device), **body}]
        found = analyse(files)
        common.write(options.out, "levels", {**files[0], **found})
    print(show(files, found))
    return 0


if __name__ == "__main__":
    common.leave(main)
