"""This gate beside its peers on the same launches: how often each calls head slower.

    python tests/benchmarks/peers.py --out peers.json

Launches are drawn by the models of `false_alarms.py`; the samples inside a launch are the recordings' own
(about their median), or normal with CV 0.45 %. Five heads: the same engine; the same model built anew without
base's timing cache, one build in five being 17 % slower; 2, 3 and 5 % slower. Each rule has what it takes by
default (one process a side; Bencher a history of twelve runs and one new one), and twelve processes a side.

pytest-benchmark is run for real: its own fixture, its own storage, `--benchmark-compare-fail=mean:5%`, on a
clock that replays the samples (`--benchmark-timer`). The others are re-implementations of their rules, from
their sources and documentation: `peers_rules.py`.
"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import common
import gate_model as gm
import numpy as np
import peers_rules as rules
import recordings

from perfgate.gate.statistics.power import REGRESSION

SCENARIOS = ("same engine", "built anew", "2 % slower", "3 % slower", "5 % slower")
SLOWDOWN = {"2 % slower": 0.02, "3 % slower": 0.03, "5 % slower": 0.05}
MOST = 12
SAMPLES = 300
SCALE_NS = 540_000
# Name, rule, launches of base and head by default.
PEERS: tuple[tuple[str, rules.Rule, int, int], ...] = (
    ("github-action-benchmark, 200 % (re-implemented)", rules.github_action_benchmark, 1, 1),
    ("asv continuous, factor 1.1 (re-implemented)", rules.asv, 1, 1),
    ("criterion, noise 1 % (re-implemented)", rules.criterion, 1, 1),
    ("Google benchmark, U test (re-implemented)", rules.google_benchmark, 1, 1),
    ("Google benchmark, a process a repetition (re-impl.)", rules.google_benchmark_launches, MOST, MOST),
    ("Bencher, t test 0.99 (re-implemented)", rules.bencher, MOST, 1),
    ("nvbench-compare-robust (re-implemented)", rules.nvbench_robust, 1, 1),
)
REAL = "pytest-benchmark mean:5% (run for real)"


def inside(files: Sequence[dict[str, Any]], draw: Any) -> Any:
    """Samples relative to their launch's median."""
    pool = [
        np.array(row["samples_ns"]) / row["median_ns"]
        for file in files
        for row in file["loads"]
        if row.get("samples_ns") and not row["invalid"]
    ]
    return np.concatenate(pool) if pool else draw.normal(1, 0.0045, 100_000)


def trial(model: gm.Model, scenario: str, pool: Any, draw: Any) -> tuple[list[Any], list[Any]]:
    """Twelve launches a side, each an array of samples in nanoseconds."""
    sides = []
    for slower in (0.0, math.log1p(SLOWDOWN.get(scenario, 0.0))):
        build = float(model.builds(draw, 1)[0]) if scenario == "built anew" else 0.0
        medians = SCALE_NS * np.exp(model.launches(draw, MOST) + slower + build)
        sides.append([median * draw.choice(pool, SAMPLES) for median in medians])
    return sides[0], sides[1]


def run_pytest_benchmark(trials: Sequence[tuple[list[Any], list[Any]]], launches: int, folder: Path) -> float:
    """The share of trials that the real plugin fails."""
    options = (
        *("-q", "-p", "no:cacheprovider", "-p", "no:perfgate", "-c", os.devnull),
        *("--benchmark-timer", "peers_replay.timer", f"--benchmark-storage=file://{folder}/storage"),
        *("--benchmark-columns=mean", "--rootdir", str(common.HERE)),
    )
    output = ""
    for side, more in ((0, ("--benchmark-save=base",)), (1, _AGAINST)):
        samples = [[value / 1e9 for value in rules.pooled(one[side][:launches])] for one in trials]
        (folder / "samples.json").write_text(json.dumps(samples))
        done = subprocess.run(
            [sys.executable, "-m", "pytest", common.HERE / "peers_replay.py", *options, *more],
            cwd=folder,
            env={
                # A test worker's child is no worker: pytest-benchmark would measure nothing in one.
                **{key: text for key, text in os.environ.items() if not key.startswith("PYTEST_XDIST")},
                "PEERS_SAMPLES": str(folder / "samples.json"),
                "PYTHONPATH": str(common.HERE),
            },
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        output = done.stdout + done.stderr
        # Its regression is an exception that ends pytest before the line that counts the tests.
        if f"{len(trials)} passed" not in output and "PerformanceRegression" not in output:
            raise RuntimeError(f"pytest-benchmark did not measure: {output[-2000:]}")
    failed = set(re.findall(r"test_replay\[(\d+)\].*has failed", output))
    if bool(failed) is (done.returncode == 0):
        raise RuntimeError(f"exit code {done.returncode} with {len(failed)} regressions")
    return len(failed) / len(trials)


_AGAINST = ("--benchmark-compare=0001", "--benchmark-compare-fail=mean:5%")


def measure(options: common.Options) -> dict[str, Any]:
    files = recordings.read(options.data)
    models = gm.models(files)
    rows: list[dict[str, Any]] = []
    for world, model in models.items():
        draw = np.random.default_rng(options.seed)
        pool = inside(files if world == "as recorded" else (), draw)
        for scenario in SCENARIOS:
            trials = [trial(model, scenario, pool, draw) for _ in range(options.trials)]
            place = {"world": world, "scenario": scenario}
            for launches in (1, MOST):
                with tempfile.TemporaryDirectory(prefix="perfgate-peers-") as folder:
                    share = run_pytest_benchmark(trials, launches, Path(folder))
                rows.append({**place, "rule": REAL, "base": launches, "head": launches, "slower": share})
            for name, rule, base, head in PEERS:
                for counts in dict.fromkeys(((base, head), (MOST, MOST))):
                    hits = [rule(b[: counts[0]], h[: counts[1]], draw) for b, h in trials]
                    rows.append(
                        {
                            **place,
                            "rule": name,
                            "base": counts[0],
                            "head": counts[1],
                            "slower": float(np.mean(hits)),
                        }
                    )
            found = (
                gm.hold_rebuilt(model, 20_000, draw, gm.LUCK[-1])
                if scenario == "built anew"
                else gm.hold(model, gm.HISTORIES[0], 20_000, SLOWDOWN.get(scenario, 0.0), draw)
            )
            rows.append({**place, "rule": "perfgate", "slower": found.share(REGRESSION), **gm.cost(found, 0)})
            common.say(f"{world}: {scenario}")
    return {"models": gm.described(models), "trials": options.trials, "rows": rows}


def show(found: dict[str, Any]) -> str:
    head = ("rule", "launches", *SCENARIOS)
    blocks = []
    for world in found["models"]:
        table: dict[tuple[str, str], dict[str, float]] = {}
        for row in found["rows"]:
            if row["world"] == world:
                launches = f"{row['base']}+{row['head']}" if "base" in row else "as needed"
                table.setdefault((row["rule"], launches), {})[row["scenario"]] = row["slower"]
        rows = [
            (rule, launches, *(common.percent(shares[one], 1) for one in SCENARIOS))
            for (rule, launches), shares in table.items()
        ]
        blocks.append(f"{world}: called slower\n{common.text_table(head, rows)}")
    return "\n\n".join((*blocks, gm.sources(found["models"])))


if __name__ == "__main__":
    count = common.option("--trials", type=int, default=200, help="a head (default: %(default)s)")
    run = common.table_of("peers", measure, show)
    sys.exit(common.main(run, __doc__, gm.options(count, "peers.json")))
