"""How often a build with the same timing cache gives the same engine, and what the cache saves.

    python tests/benchmarks/identity.py --models tinyconv resnet50 --precisions fp16 --builds 2 \\
        --out identity.json
    python tests/benchmarks/identity.py --timing baselines --models resnet50 --builds 2 --out identity-2.json
    python tests/benchmarks/identity.py --rates tests/benchmarks/data/gpu/identity-*.json

For each model and precision, for a static profile (min = opt = max) and for the spec's own dynamic one: a
build without a timing cache, then `--builds` more with the cache that it left, each in a fresh process.
Shown: the share of equal engines (SHA-256) and of equal tactics (all layers with their kernels and formats)
against the build without the cache, the share of rebuilds that equal the first of them, and the seconds of a
build without and with the cache.

With `--timing DIR` nothing is built without a cache: `DIR/**/<model>.<precision>.timing` are used, and
compared with the engine that the baseline beside it names, which is the rate across machines.

With `--launches N` every engine of a combination is launched N times at the profile's optimum, in random
order, to see how far apart in time the engines are that one cache gave, beside what launches differ by.

`--rates` measures nothing: it counts over the files of many machines how often engines were equal.

Targets: with the cache a build takes at most a third of the time; equal engines wherever tactics are equal.
The file is written after each combination, so that a run that is cut short has told what it found.
"""

from __future__ import annotations

import itertools
import json
import math
import random
import statistics
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import common

from perfgate.engine.tensorrt.inspect import unpack_layers
from perfgate.errors import CaseError, DataError
from perfgate.gate.baselines import read_baseline
from perfgate.measure.launch import LaunchRequest, launch
from perfgate.model.read import read_spec
from perfgate.records import EngineFacts, Record
from perfgate.settings import Settings

TARGET_SPEEDUP = 3.0
TRANSFORMERS = ("bert-base",)

Tactics = tuple[tuple[str, str, str, tuple[str, ...]], ...]


class Stored(Record):
    """A timing cache from elsewhere, and the engine that was built with it there (empty: unknown)."""

    timing: str
    engine_digest: str


def tactics(facts: EngineFacts) -> Tactics:
    """Every layer with its kernel and output formats; empty where the engine does not tell."""
    if not facts.layer_record:
        return ()
    layers = unpack_layers(facts.layer_record).layers
    return tuple((layer.name, layer.tactic, layer.tactic_value, layer.formats) for layer in layers)


def summarise(
    first: EngineFacts | None, again: Sequence[EngineFacts], *, engine_digest: str = ""
) -> dict[str, Any]:
    """The row of one combination. `first` is the build without a cache; without one, `again` is compared
    with `engine_digest`, and the tactics among themselves."""
    wanted = first.digest if first else engine_digest
    reference = tactics(first) if first else tactics(again[0])
    compared = again if first else again[1:]
    with_s = common.mean([one.build_ns / 1e9 for one in again])
    without_s = first.build_ns / 1e9 if first else None
    return {
        "builds": len(again),
        "equal_engines": sum(one.digest == wanted for one in again) / len(again) if wanted else None,
        "equal_rebuilds": (
            sum(one.digest == again[0].digest for one in again[1:]) / (len(again) - 1)
            if len(again) > 1
            else None
        ),
        "equal_tactics": (
            sum(tactics(one) == reference for one in compared) / len(compared)
            if compared and reference
            else None
        ),
        "layers_apart": [layers_apart(reference, tactics(one)) for one in compared] if reference else [],
        "seconds_without": without_s,
        "seconds_with": with_s,
        "speedup": without_s / with_s if without_s and with_s else None,
        "digests": [*([first.digest] if first else []), *(one.digest for one in again)],
        "wanted": wanted,
        "notes": [note for one in again for note in one.notes if "timing cache" in note],
    }


def layers_apart(one: Tactics, other: Tactics) -> list[str]:
    """The names of the layers that only one of two engines has with these tactics."""
    mine, theirs = Counter(one), Counter(other)
    return sorted({layer[0] for layer in (mine - theirs) + (theirs - mine)})


def engines_apart(medians_ns: Mapping[str, Sequence[float]]) -> dict[str, float | None]:
    """How much slower the slowest engine is than the fastest, by geometric means of launch medians (ns), and
    what launches of one engine differ by: the pooled standard deviation of log medians."""
    means = [statistics.fmean(map(math.log, side)) for side in medians_ns.values() if side]
    return {
        "engines_apart": math.exp(max(means) - min(means)) - 1 if len(means) > 1 else None,
        "launch_noise": common.launch_cv(medians_ns),
    }


def launched(
    planned: common.Plan, engines: Mapping[str, Path], options: common.Options
) -> dict[str, list[float]]:
    """Launch medians (ns) by engine digest: rounds of one launch each, in random order."""
    protocol, draw = Settings(root=str(common.ROOT)).protocol("gpu"), random.Random(1)
    medians: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(options.launches):
        for name in draw.sample(sorted(engines), len(engines)):
            target = common.target(planned, engines[name], options.device)
            taken = launch(LaunchRequest(target=target, protocol=protocol))
            if not taken.invalid:
                medians[name].append(taken.median_ns)
    return medians


def find_stored(folder: Path, model: str, precision: str) -> Stored | None:
    """The timing cache of a model in a precision under `folder`, with its baseline's engine."""
    for timing in sorted(folder.rglob(f"{model}.{precision}.timing")):
        try:
            cases = read_baseline(timing.with_name(f"{model}.json")).cases
        except DataError as error:
            common.say(str(error))
            cases = {}
        digests = {
            case.engine_digest for name, case in cases.items() if name.startswith(f"{model}/{precision}/")
        }
        return Stored(timing=str(timing), engine_digest=digests.pop() if len(digests) == 1 else "")
    return None


def measure(options: common.Options, folder: Path) -> Iterator[dict[str, Any]]:
    """A row for each combination; one that does not build has its `error`."""
    profiles = ["dynamic"] if options.timing else options.profiles
    for model in options.models:
        path = common.ROOT / f"models/{model}.toml"
        spec = read_spec(path)
        opt = {name: dim.opt for name, dim in spec.dims.items()}
        for precision in options.precisions:
            for profile in profiles:
                name = {"model": model, "precision": precision, "profile": profile}
                home = folder / f"{model}-{precision}-{profile}"
                try:
                    planned = common.plan(path, precision, opt, options.backend, options.device)
                    if profile == "static":
                        planned = common.with_profile(planned, common.static_profile(opt))
                    yield {**name, **_combination(options, planned, home, model, precision)}
                except CaseError as error:
                    common.say(f"{model} {precision} {profile}: {error}")
                    yield {**name, "error": error.what}


def _combination(
    options: common.Options, planned: common.Plan, home: Path, model: str, precision: str
) -> dict[str, Any]:
    first, digest = None, ""
    engines: dict[str, Path] = {}
    if options.timing:
        stored = find_stored(options.timing, model, precision)
        if stored is None:
            raise CaseError(f"{options.timing} has no {model}.{precision}.timing")
        timing, digest = Path(stored.timing), stored.engine_digest
    else:
        common.say(f"{home.name}: building without a timing cache")
        engine, first = common.build(planned, home / "first")
        timing, engines[first.digest] = engine.with_name("timing"), engine
    again = []
    for number in range(options.builds):
        common.say(f"{home.name}: building with the timing cache, {number + 1} of {options.builds}")
        # A backend without a timing cache is built again all the same, to see whether its engines are equal.
        engine, facts = common.build(planned, home / f"{number}", timing=timing if timing.is_file() else None)
        again.append(facts)
        engines.setdefault(facts.digest, engine)
    row = summarise(first, again, engine_digest=digest)
    if options.launches:
        medians = launched(planned, engines, options)
        row |= {"medians_ns": medians, **engines_apart(medians)}
    return row


def show(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table, a line a combination."""
    lines = []
    for row in rows:
        name = f"{row['model']} {row['precision']} {row['profile']}"
        if "error" in row:
            lines.append((name, *("-" * 7), "not built"))
            continue
        seconds = [
            "-" if row[key] is None else f"{row[key]:.1f}"
            for key in ("seconds_without", "seconds_with", "speedup")
        ]
        late = row["speedup"] is not None and row["speedup"] < TARGET_SPEEDUP
        lines.append(
            (
                name,
                row["builds"],
                common.percent(row["equal_engines"], 0),
                common.percent(row["equal_tactics"], 0),
                common.percent(row["equal_rebuilds"], 0),
                seconds[0],
                seconds[1],
                f"{seconds[2]}{' (target 3)' if late else ''}",
                common.percent(row.get("engines_apart")),
            )
        )
    head = (
        "",
        "builds",
        "equal engines",
        "equal tactics",
        "equal rebuilds",
        "s without",
        "s with",
        "times faster",
        "engines apart",
    )
    return common.text_table(head, lines)


def rates(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str, str], Counter[str]]:
    """How often engines of one cache were equal, by kind of network, precision and profile: pairs of rebuilds
    with it (`pairs`, `equal_pairs`), rebuilds and the build that left it on the same machine (`left`,
    `equal_left`), and builds with a stored one on another machine (`stored`, `equal_stored`)."""
    found: dict[tuple[str, str, str], Counter[str]] = {}
    for row in rows:
        if "error" in row:
            continue
        kind = "transformer" if row["model"] in TRANSFORMERS else "CNN"
        counts = found.setdefault((kind, row["precision"], row["profile"]), Counter())
        here = row["seconds_without"] is not None
        again = row["digests"][1:] if here else row["digests"]
        pairs = list(itertools.combinations(again, 2))
        side = "left" if here else "stored"
        counts += Counter(
            {
                "pairs": len(pairs),
                "equal_pairs": sum(one == other for one, other in pairs),
                side: len(again),
                f"equal_{side}": again.count(row["wanted"]),
            }
        )
    return found


def show_rates(found: Mapping[tuple[str, str, str], Counter[str]]) -> str:
    """The rates as a table."""
    lines = [
        (
            " ".join(key),
            *(f"{counts[f'equal_{side}']} of {counts[side]}" for side in ("pairs", "left", "stored")),
        )
        for key, counts in sorted(found.items(), key=lambda one: (one[0][1] != "fp32", one[0]))
    ]
    return common.text_table(("", "two rebuilds", "as the build that left it", "on another machine"), lines)


def run(options: common.Options) -> int:
    if options.rates:
        print(
            show_rates(rates([row for path in options.rates for row in json.loads(path.read_text())["rows"]]))
        )
        return 0
    rows: list[dict[str, Any]] = []
    where = common.about(options.backend, options.device)
    with common.store(options.store) as folder, common.locked(options.backend, options.device):
        for row in measure(options, folder):
            rows.append(row)
            common.write(options.out, "identity", {**where, "rows": rows})
    print(show(rows))
    return 0


OPTIONS = [
    common.option("--models", nargs="+", default=["tinyconv", "resnet50", "bert-base"]),
    common.option("--precisions", nargs="+", default=["fp32", "fp16"]),
    common.option("--profiles", nargs="+", choices=("static", "dynamic"), default=["static", "dynamic"]),
    common.option("--builds", type=int, default=2, help="builds with the timing cache (default 2)"),
    common.option("--launches", type=int, default=0, help="of each engine (default: none)"),
    common.option("--timing", type=Path, help="folder of timing caches, such as baselines"),
    common.option("--store", type=Path, help="keep engines here; a build that is there is not repeated"),
    common.option("--rates", nargs="+", type=Path, metavar="FILE", help="count over these, and end"),
    *common.device_options("identity.json"),
]

if __name__ == "__main__":
    sys.exit(common.main(run, __doc__, OPTIONS))
