"""How often a build with the same timing cache gives the same engine, and what the cache saves.

    python tests/benchmarks/identity.py --models tinyconv resnet50 --precisions fp16 --builds 2 \\
        --out identity.json
    python tests/benchmarks/identity.py --timing baselines --models resnet50 --builds 2 --out identity-2.json

For each model and precision, for a static profile (min = opt = max) and for the spec's own dynamic one: a
build without a timing cache, then `--builds` more with the cache that it left, each in a fresh process.
Shown: the share of equal engines (SHA-256) and of equal tactics (all layers with their kernels and formats)
against the build without the cache, the share of rebuilds that equal the first of them, and the seconds of a
build without and with the cache.

With `--timing DIR` nothing is built without a cache: `DIR/**/<model>.<precision>.timing` are used, and
compared with the engine that the baseline beside it names, which is the rate across machines.

Targets: with the cache a build takes at most a third of the time; equal engines wherever tactics are equal.
The file is written after each combination, so that a run that is cut short has told what it found.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import common

from perfgate.engine._trt_inspect import unpack_layers
from perfgate.errors import CaseError, DataError
from perfgate.gate.baselines import read_baseline
from perfgate.records import EngineFacts, Record
from perfgate.spec.reading import read_spec

TARGET_SPEEDUP = 3.0

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
        "seconds_without": without_s,
        "seconds_with": with_s,
        "speedup": without_s / with_s if without_s and with_s else None,
        "digests": [*([first.digest] if first else []), *(one.digest for one in again)],
        "wanted": wanted,
        "notes": [note for one in again for note in one.notes if "timing cache" in note],
    }


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


def measure(options: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
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
    options: argparse.Namespace, planned: common.Plan, home: Path, model: str, precision: str
) -> dict[str, Any]:
    first, digest = None, ""
    if options.timing:
        stored = find_stored(options.timing, model, precision)
        if stored is None:
            raise CaseError(f"{options.timing} has no {model}.{precision}.timing")
        timing, digest = Path(stored.timing), stored.engine_digest
    else:
        common.say(f"{home.name}: building without a timing cache")
        engine, first = common.build(planned, home / "first")
        timing = engine.with_name("timing")
    again = []
    for number in range(options.builds):
        common.say(f"{home.name}: building with the timing cache, {number + 1} of {options.builds}")
        # A backend without a timing cache is built again all the same, to see whether its engines are equal.
        again.append(
            common.build(planned, home / f"{number}", timing=timing if timing.is_file() else None)[1]
        )
    return summarise(first, again, engine_digest=digest)


def show(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table, a line a combination."""
    lines = []
    for row in rows:
        name = f"{row['model']} {row['precision']} {row['profile']}"
        if "error" in row:
            lines.append((name, "-", "-", "-", "-", "-", "-", "not built"))
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
    )
    return common.text_table(head, lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["tinyconv", "resnet50", "bert-base"])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "fp16"])
    parser.add_argument("--profiles", nargs="+", choices=("static", "dynamic"), default=["static", "dynamic"])
    parser.add_argument("--builds", type=int, default=2, help="builds with the timing cache (default 2)")
    parser.add_argument("--timing", type=Path, help="folder of timing caches, such as baselines")
    parser.add_argument("--store", type=Path, help="keep engines here; a build that is there is not repeated")
    common.add_common(parser, "identity.json")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    where = common.about(options.backend, options.device)
    with common.store(options.store) as folder, common.locked(options.backend, options.device):
        for row in measure(options, folder):
            rows.append(row)
            common.write(options.out, "identity", {**where, "rows": rows})
    print(show(rows))
    return 0


if __name__ == "__main__":
    common.leave(main)
