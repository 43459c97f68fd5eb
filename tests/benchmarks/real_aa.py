"""Real gates on a real device, one after another: how often each verdict comes, and what it takes.

    python tests/benchmarks/real_aa.py --store .perfgate/real_aa --seconds 540 --out real_aa.json
    python tests/benchmarks/real_aa.py --evaluate real_aa-1.json real_aa-2.json --out real_aa.json

Base is one engine of ResNet-50 (FP16, batch 8). Heads, by name:

    same             base's engine itself
    warm             the same model built again with the timing cache that base's build left
    rebuilt          the same model built anew without base's timing cache: other bytes, other luck
    plus1, plus2     one and two more blocks in layer3, built with base's timing cache
    plus1-fresh, …   the same without it

Every gate takes fresh launches of both sides in random ABBA/BAAB blocks, short ones, until the sequential
test stops or 32 a side are taken. All launch medians are recorded, so that `--evaluate` judges them again
without a device, by the tolerances of today and as far as they go; it also draws gates from all launches of a
head with replacement. With `--store` a later
call finds the engines built (on an H100: about 20 s with a timing cache, 50 s without). The file is written
after every gate.
"""

from __future__ import annotations

import json
import math
import random
import shutil
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import common
import numpy as np

from perfgate.errors import CaseError
from perfgate.gate.statistics.build_variance import widened
from perfgate.gate.statistics.noise import Spread, interval, spread_of
from perfgate.gate.statistics.power import INCONCLUSIVE, REGRESSION, STEP, Plan, sequential, upper_bound
from perfgate.gate.statistics.sequential import BUDGET, LEAST_LAUNCHES, LOWER, Decision, blocks, decide_next
from perfgate.measure.launch import EngineTarget, LaunchRequest, launch
from perfgate.records import Protocol, Tolerance
from perfgate.settings import Settings

HEADS = ("same", "warm", "rebuilt", "plus1", "plus2", "plus1-fresh", "plus2-fresh")
VERDICTS = ("REGRESSION", "INCONCLUSIVE", "PASS", "IMPROVEMENT")
RESAMPLED = 20_000
RETRIES = 3
Body = dict[str, Any]


def engines(options: common.Options, folder: Path, models: Path) -> dict[str, tuple[EngineTarget, Body]]:
    """Base first, then every head that is asked for; a build that fails is told and left out."""
    found: dict[str, tuple[EngineTarget, Body]] = {}
    timing: Path | None = options.timing
    for name in ("base", *options.heads):
        layers = int(name[4]) if name.startswith("plus") else 0
        fresh = name == "rebuilt" or name.endswith("-fresh")
        if name == "same":
            found[name] = found["base"]
            continue
        started = time.monotonic()
        try:
            planned = common.plan(
                spec_with(options.model, layers, models),
                options.precision,
                options.shape,
                options.backend,
                options.device,
            )
            engine, facts = common.build(planned, folder / name, timing=None if fresh else timing)
        except CaseError as error:
            if name == "base":
                raise
            common.say(f"{name}: not built: {error}")
            continue
        target = common.target(planned, engine, options.device)
        spent = time.monotonic() - started
        common.say(f"{name}: engine {facts.digest[:12]} after {spent:.0f} s")
        found[name] = target, {"digest": facts.digest, "seconds": spent, "timing_cache": not fresh}
        if name == "base" and (engine.parent / "timing").is_file():
            timing = engine.parent / "timing"
    return found


def spec_with(model: Path, layers: int, folder: Path) -> Path:
    """The spec itself, or a copy of it whose script adds so many layers."""
    if not layers:
        return model
    target = folder / f"plus{layers}"
    target.mkdir(parents=True, exist_ok=True)
    for script in model.parent.glob("*.py"):
        shutil.copy(script, target / script.name)
    text = model.read_text().replace("seed = 0\n", f"seed = 0\nargs = {{ extra_layers = {layers} }}\n", 1)
    (target / model.name).write_text(text)
    return target / model.name


def one_launch(target: EngineTarget, protocol: Protocol, log: list[Body]) -> float:
    """A valid launch's median (ns); disturbed ones are logged and taken again."""
    for _ in range(RETRIES + 1):
        taken = launch(LaunchRequest(target=target, protocol=protocol))
        if not taken.invalid:
            return taken.median_ns
        log.append({"median_ns": taken.median_ns, "invalid": taken.invalid})
    raise CaseError(f"the device stays disturbed: {log[-1]['invalid']}")


def hold(name: str, sides: dict[str, EngineTarget], options: common.Options, seed: int) -> Body:
    """One gate, launch by launch."""
    started, protocol = time.monotonic(), _protocol(options)
    tolerance, spread = tolerance_of(name, options.kind), spread_of(options.kind)
    medians: dict[str, list[float]] = {"base": [], "head": []}
    disturbed: list[Body] = []
    for block in blocks(seed):
        for side in block:
            medians[side].append(one_launch(sides[side], protocol, disturbed))
        decision = decide_next(medians["base"], medians["head"], tolerance, spread)
        if decision.verdict or len(medians["base"]) >= options.budget:
            break
    seconds = time.monotonic() - started
    verdict = verdict_of(decision, len(medians["base"]))
    common.say(f"{name}: {verdict} {decision.ratio.estimate:.4f} after {seconds:.0f} s")
    return {
        "head_name": name,
        "verdict": verdict,
        "ratio": decision.ratio.estimate,
        "low": decision.ratio.low,
        "high": decision.ratio.high,
        "base_ns": medians["base"],
        "head_ns": medians["head"],
        "seconds": seconds,
        "disturbed": disturbed,
    }


def _protocol(options: common.Options) -> Protocol:
    return Protocol(
        launches=1,
        warmup_ns=options.warmup_ms * 1_000_000,
        duration_ns=options.duration_ms * 1_000_000,
        min_samples=5,
        max_samples=4_000,
        foreign_cpu_limit=1.0,
    )


def verdict_of(decision: Decision, launches: int) -> str:
    """As the gate says it at the end of its budget."""
    if decision.verdict is None:
        passed = decision.log_likelihood <= LOWER and launches >= LEAST_LAUNCHES
        return "PASS" if passed else "INCONCLUSIVE"
    return decision.verdict.value


def measure(options: common.Options, folder: Path) -> Body:
    """Gates of all heads in turn, in a random order each round, until the time is up."""
    deadline = time.monotonic() + options.seconds
    found = engines(options, folder, folder / "models")
    body: Body = {
        **common.about(options.backend, options.device),
        "kind": options.kind,
        "case": found["base"][0].case.id,
        "protocol": {"warmup_ms": options.warmup_ms, "duration_ms": options.duration_ms},
        "engines": {name: facts for name, (_, facts) in found.items()},
        "gates": [],
    }
    longest = 0.0
    with common.locked(options.backend, options.device):
        for number in range(10_000):
            heads = [name for name in options.heads if name in found]
            random.Random(options.seed + number).shuffle(heads)
            for name in heads:
                if time.monotonic() + longest > deadline:
                    return body
                sides = {"base": found["base"][0], "head": found[name][0]}
                try:
                    gate = hold(name, sides, options, options.seed + number)
                except CaseError as error:
                    common.say(f"{name}: {error}")
                    continue
                longest = max(longest, gate["seconds"])
                body["gates"].append(gate)
                common.write(options.out, "real-gates", body)
    return body


def evaluate(files: Sequence[Body]) -> list[Body]:
    """Every head's verdicts over all gates, its ratio over all launches, and gates drawn from those."""
    kind = files[0]["kind"]
    draw = np.random.default_rng(1)
    rows = []
    for name in HEADS:
        gates = [gate for file in files for gate in file["gates"] if gate["head_name"] == name]
        if not gates:
            continue
        tolerance = tolerance_of(name, kind)
        again = [replayed(gate, tolerance, spread_of(kind)) for gate in gates]
        counts = {word: again.count(word) for word in VERDICTS}
        logs = centred(files, name)
        rows.append(
            {
                "head": name,
                "gates": len(gates),
                "counts": counts,
                "red_upper": upper_bound(counts["REGRESSION"], len(gates)),
                "ratio": overall(logs),
                "pairs": pairs(files, name),
                "launch_cv": float(np.sqrt(np.mean([side.var(ddof=1) for side in logs]))),
                "launches_a_side": statistics.median(len(gate["head_ns"]) for gate in gates),
                "seconds": statistics.median(gate["seconds"] for gate in gates),
                "pair_correlation": pair_correlation(gates),
                "resampled": resampled(logs, kind, tolerance, draw),
            }
        )
    return rows


def tolerance_of(name: str, kind: str) -> Tolerance:
    """What a head is held by: wider where its engine was built without base's timing cache."""
    fresh = name == "rebuilt" or name.endswith("-fresh")
    return widened(Settings().tolerance(kind), float(fresh and kind == "gpu"))


def centred(files: Sequence[Body], name: str) -> list[Any]:
    """All log medians of a head's gates, base's and head's, about base's mean in their file: base's device
    and build differ from file to file."""
    sides: list[list[Any]] = [[], []]
    for file in files:
        gates = [gate for gate in file["gates"] if gate["head_name"] == name]
        if not gates:
            continue
        logs = [np.log([value for gate in gates for value in gate[side]]) for side in ("base_ns", "head_ns")]
        for side, found in zip(sides, logs, strict=True):
            side.append(found - logs[0].mean())
    return [np.concatenate(side) if side else np.empty(0) for side in sides]


def replayed(gate: Body, tolerance: Tolerance, spread: Spread) -> str:
    """What the gate says today of launches that were recorded, as far as they go."""
    decision = None
    for count in range(STEP, len(gate["head_ns"]) + 1, STEP):
        decision = decide_next(gate["base_ns"][:count], gate["head_ns"][:count], tolerance, spread)
        if decision.verdict:
            break
    return verdict_of(decision, count) if decision else "INCONCLUSIVE"


def overall(logs: Sequence[Any]) -> Body:
    """Head / base over all launches, with Welch's 95 % interval."""
    parts = [side.var(ddof=1) / len(side) for side in logs]
    dof = sum(parts) ** 2 / sum(part**2 / (len(side) - 1) for part, side in zip(parts, logs, strict=True))
    found = interval(float(logs[1].mean() - logs[0].mean()), math.sqrt(sum(parts)), float(dof), 0.95)
    return {"estimate": found.estimate, "low": found.low, "high": found.high}


def pairs(files: Sequence[Body], name: str) -> list[Body]:
    """The ratio of each pair of engines, for builds differ: an interval over all launches is of these engines
    alone."""
    of_pair: dict[tuple[str, ...], list[Body]] = {}
    for file in files:
        engines = file.get("engines", {})
        digests = tuple(engines.get(side, {}).get("digest", "") for side in ("base", name))
        of_pair.setdefault(digests, []).append(file)
    held = {key: of_files for key, of_files in of_pair.items() if centred(of_files, name)[0].size}
    return [
        {"base": base, "head": head, "ratio": overall(centred(of_files, name))}
        for (base, head), of_files in held.items()
    ]


def pair_correlation(gates: Sequence[Body]) -> float | None:
    """How alike `base[i]` and `head[i]` of a gate are, pooled over gates: pairs reduce the variance of a
    difference by this share, and cost half of the degrees of freedom. None without two gates of four."""
    sides = [
        np.log([gate["base_ns"], gate["head_ns"]])
        for gate in gates
        if len(gate["head_ns"]) == len(gate["base_ns"]) >= 4
    ]
    if len(sides) < 2:
        return None
    centred = np.concatenate([side - side.mean(axis=1, keepdims=True) for side in sides], axis=1)
    return float(np.corrcoef(centred)[0, 1])


def resampled(logs: Sequence[Any], kind: str, tolerance: Tolerance, draw: Any) -> Body:
    """Gates whose launches are drawn from all that were taken, with replacement."""
    spread = spread_of(kind)
    base, head = (draw.choice(side, (RESAMPLED, BUDGET)) for side in logs)
    prior = np.full(RESAMPLED, spread.launch_cv), np.full(RESAMPLED, spread.launch_dof)
    verdict, taken = sequential(base, head, *prior, Plan(kind=kind, tolerance=tolerance))
    return {
        "gates": RESAMPLED,
        "regression": float((verdict == REGRESSION).mean()),
        "inconclusive": float((verdict == INCONCLUSIVE).mean()),
        "launches_a_side": float(np.median(taken)),
    }


def _ratios(row: Body) -> str:
    """One pair's ratio with its interval; of several pairs the least and the greatest, and their number."""
    found = sorted(one["ratio"]["estimate"] for one in row["pairs"])
    if len(found) > 1:
        return f"{found[0]:.4f} to {found[-1]:.4f} in {len(found)}"
    return f"{row['ratio']['estimate']:.4f} ({row['ratio']['low']:.4f}-{row['ratio']['high']:.4f})"


def show(rows: Sequence[Body]) -> str:
    head = (
        "head",
        "ratio (95 %, or range of pairs)",
        "CV",
        "gates",
        *VERDICTS,
        "red at most",
        "launches",
        "s",
        "pairs r",
        "drawn: red",
    )
    return common.text_table(
        head,
        [
            (
                row["head"],
                _ratios(row),
                common.percent(row["launch_cv"]),
                row["gates"],
                *row["counts"].values(),
                common.percent(row["red_upper"], 1),
                f"{row['launches_a_side']:g}",
                f"{row['seconds']:.0f}",
                "-" if row["pair_correlation"] is None else f"{row['pair_correlation']:+.2f}",
                common.percent(row["resampled"]["regression"]),
            )
            for row in rows
        ],
    )


def run(options: common.Options) -> int:
    if options.evaluate:
        files = [json.loads(path.read_text()) for path in options.evaluate]
        rows = evaluate(files)
        sources = [{key: file[key] for key in ("date", "device", "case", "engines")} for file in files]
        common.write(options.out, "real-gates-judged", {"files": sources, "heads": rows})
    else:
        options.kind = "cpu" if options.device == "cpu" or options.backend == "onnxruntime" else "gpu"
        with common.store(options.store) as folder:
            body = measure(options, folder)
        rows = evaluate([body])
        common.write(options.out, "real-gates", {**body, "heads": rows})
    print(show(rows))
    return 0


OPTIONS = [
    common.option("--model", type=Path, default=common.ROOT / "models/resnet50.toml"),
    common.option("--precision", default="fp16"),
    common.option("--shape", type=common.parse_shape, default={"b": 8}, help="such as b=8"),
    common.option("--heads", nargs="+", choices=HEADS, default=list(HEADS)),
    common.option("--seconds", type=int, default=540, help="builds and gates (default: %(default)s)"),
    common.option("--budget", type=int, default=BUDGET, help="launches a side (default: %(default)s)"),
    common.option("--warmup-ms", type=int, default=100),
    common.option("--duration-ms", type=int, default=150),
    common.option("--seed", type=int, default=1, help="of the blocks: another one for every call"),
    common.option("--timing", type=Path, help="timing cache for base's build"),
    common.option("--store", type=Path, help="keep engines here, and take them from here again"),
    common.option("--evaluate", type=Path, nargs="+", help="measure nothing: judge these files"),
    *common.device_options("real_aa.json"),
]

if __name__ == "__main__":
    sys.exit(common.main(run, __doc__, OPTIONS))
