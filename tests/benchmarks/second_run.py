"""What the gate costs a commit that touches no model: the second `perfgate run` over 24 cases.

    python tests/benchmarks/second_run.py --out second_run.json

Makes a project of tinyconv at batch 1 to 8 in three modes, runs it, promotes it, and runs it again: a fresh
process, as CI would start it. The first run's launches also say how much launches of one engine differ, by
mode: the coefficient of variation of their medians, pooled over the batch sizes.

Targets: the second run ends within 10 s without a launch and finds every case UNCHANGED; launches of a CUDA
graph differ by less than 1.5 %.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import common

from perfgate.errors import CaseError
from perfgate.records import Measured, RunResult, Verdict
from perfgate.run.outputs import read_results
from perfgate.util.process import package_environment

TARGET_S = 10.0
TARGET_GRAPH_CV = 0.015
_PROFILE_MAX = 8
_TIMEOUT_S = 3600


def make_project(root: Path, options: common.Options) -> None:
    """tinyconv at every batch size and mode that was asked for, with short launches."""
    (root / "models").mkdir(parents=True)
    for name in ("tinyconv.py", "_graph.py"):
        shutil.copy(common.ROOT / "models" / name, root / "models" / name)
    text = (common.ROOT / "models/tinyconv.toml").read_text()
    batches = list(range(1, options.batches + 1))
    for pattern, value in (
        (r"^precisions = .*$", f'precisions = ["{options.precision}"]\nmodes = {options.modes!r}'),
        (r"^max = .*$", f"max = {max(_PROFILE_MAX, options.batches)}"),
        (r"^measure = .*$", f"measure = {batches}"),
    ):
        text, changed = re.subn(pattern, value.replace("'", '"'), text, flags=re.MULTILINE)
        assert changed == 1, f"models/tinyconv.toml has no single line like {pattern}"
    (root / "models/tinyconv.toml").write_text(text)
    (root / "pyproject.toml").write_text(
        f"[tool.perfgate]\nlaunches = {options.launches}\nduration_ms = {options.duration_ms}\n"
        f'warmup_ms = 100\nbackend = "{options.backend}"\ndevice = "{options.device}"\n'
        "foreign_cpu_limit = 1.0\n"
    )


def perfgate(root: Path, *args: str) -> float:
    """Run a command in the project; its wall time in seconds. Raises `CaseError` unless it exits with 0."""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "perfgate", *args],
        cwd=root,
        env=package_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_TIMEOUT_S,
    )
    seconds = time.monotonic() - started
    common.say(done.stdout[-1500:])
    if done.returncode:
        raise CaseError(
            f"perfgate {args[0]} ended with exit code {done.returncode}", stderr_tail=done.stdout[-6000:]
        )
    return seconds


def by_mode(result: RunResult) -> dict[str, dict[str, Any]]:
    """Medians and the launches' variation by mode."""
    medians: dict[str, dict[str, list[float]]] = {}
    for one in result.cases:
        if isinstance(one.outcome, Measured):
            mode = str(one.outcome.mode or one.case.mode)
            valid = [launch.median_ns for launch in one.outcome.launches if not launch.invalid]
            medians.setdefault(mode, {})[one.case.id] = valid
    return {
        mode: {
            "cv": common.launch_cv(cases),
            "worst_case_cv": max(
                (common.launch_cv({"": found}) or 0.0 for found in cases.values()), default=None
            ),
            "medians_ns": cases,
        }
        for mode, cases in medians.items()
    }


def measure(options: common.Options) -> dict[str, Any]:
    """Run, promote, run again, in a project of its own."""
    with tempfile.TemporaryDirectory(prefix="perfgate-second-run-") as name:
        body = two_runs(Path(name) / "project", options)
    return {**common.about(options.backend, options.device), **body}


def two_runs(root: Path, options: common.Options) -> dict[str, Any]:
    make_project(root, options)
    results = root / "perfgate-out/results.json"
    first_s = perfgate(root, "run")
    first = read_results(results)
    perfgate(root, "promote", "perfgate-out/results.json", "--reason", "the first run of a benchmark")
    second_s = perfgate(root, "run")
    second = read_results(results)
    launches = sum(len(one.outcome.launches) for one in second.cases if isinstance(one.outcome, Measured))
    unchanged = sum(
        one.judgement is not None and one.judgement.verdict is Verdict.UNCHANGED for one in second.cases
    )
    return {
        "cases": len(second.cases),
        "unchanged": unchanged,
        "first_run_s": first_s,
        "second_run_s": second_s,
        "second_run_launches": launches,
        "target_s": TARGET_S,
        "on_target": second_s < TARGET_S and not launches and unchanged == len(second.cases),
        "modes": by_mode(first),
        "launches": options.launches,
        "duration_ms": options.duration_ms,
    }


def show(body: Mapping[str, Any]) -> str:
    """The run, then the modes."""
    run = [
        ("cases", body["cases"], ""),
        ("of them unchanged", body["unchanged"], "all"),
        ("first run", f"{body['first_run_s']:.1f} s", ""),
        ("second run", f"{body['second_run_s']:.1f} s", "< 10 s"),
        ("launches in it", body["second_run_launches"], "0"),
    ]
    modes = [
        (
            mode,
            len(found["medians_ns"]),
            common.percent(found["cv"]),
            common.percent(found["worst_case_cv"]),
            f"< {common.percent(TARGET_GRAPH_CV, 1)}" if mode.startswith("graph") else "-",
        )
        for mode, found in body["modes"].items()
    ]
    head = ("mode", "cases", "CV of launches", "worst case", "target")
    return f"{common.text_table(('', 'seen', 'target'), run)}\n\n{common.text_table(head, modes)}"


OPTIONS = [
    common.option("--precision", default="fp32"),
    common.option("--batches", type=int, default=8, help="batch sizes, from 1 (default 8)"),
    common.option("--modes", nargs="+", default=["graph+spin", "enqueue+spin", "graph+transfers+spin"]),
    common.option("--launches", type=int, default=3),
    common.option("--duration-ms", type=int, default=300),
    *common.device_options("second_run.json"),
]

if __name__ == "__main__":
    sys.exit(common.main(common.table_of("second-run", measure, show), __doc__, OPTIONS))
