"""What it costs to know that a model is unchanged: the observer, and runs in a fresh clone.

    python tests/benchmarks/observation.py --out observation.json

*The observer*: the script of tinyconv, and one that imports PyTorch where it is installed, each run in a
child with and without the observer, by turns; the median wall time of each, imports included.

*A fresh clone*: projects of 20 and 2,000 cases whose baselines hold the manifests of their model scripts; the
time of `perfgate run` with an empty store, in which no model is generated.

Targets: observed at most twice as long; 20 cases under 10 s, 2,000 under 12 s.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import common

from perfgate.engine import get_backend
from perfgate.gate.baselines import baseline_path, write_baseline
from perfgate.measure.environment import fingerprint
from perfgate.model.cases import expand
from perfgate.model.read import read_specs
from perfgate.records import BASELINE_SCHEMA, Baseline, BaselineCase, digest
from perfgate.run.outputs import read_results
from perfgate.run.prepare import Preparation
from perfgate.settings import Settings
from perfgate.util.observe import Observer
from perfgate.util.process import run_child, scrubbed_environment

TARGET_RATIO, TARGETS_S = 2.0, {20: 10.0, 2_000: 12.0}
_TINYCONV = "import tinyconv\ndef write_onnx(path, seed):\n    tinyconv.write_onnx(path, seed)\n"
SCRIPTS = {"tinyconv": _TINYCONV, "import torch": f"import torch\n{_TINYCONV}"}


def generate_s(script: Path, *, observed: bool) -> float:
    """Seconds that a child takes to run a model script."""
    with tempfile.TemporaryDirectory(prefix="perfgate-observation-") as name:
        room = Path(name).resolve()
        request = {
            "script": str(script), "project": str(script.parent), "replaces": "",
            "seed": 0, "args": {}, "limit_bytes": 1 << 30,
        }  # fmt: skip
        (room / "request.json").write_text(json.dumps(request))
        observer = Observer() if observed else None
        started = time.monotonic()
        done = run_child(
            [sys.executable, "-m", "perfgate.model.script_child", room / "request.json"],
            timeout_s=300,
            env=scrubbed_environment(home=room),
            cwd=room,
            observer=observer,
        )
        seconds = time.monotonic() - started
        if observer:
            assert not observer.finish().fault
        assert done.failure is None, done.stderr_tail
        return seconds


def observer_cost(folder: Path, rounds: int) -> dict[str, Any]:
    found = {}
    for name, text in SCRIPTS.items():
        if (
            name == "import torch"
            and subprocess.run([sys.executable, "-c", "import torch"], check=False).returncode
        ):
            continue
        script = folder / f"{name.split()[-1]}_script.py"
        script.write_text(text)
        times: dict[bool, list[float]] = {False: [], True: []}
        for number in range(2 * rounds + 2):
            seconds = generate_s(script, observed=bool(number % 2))
            times[bool(number % 2)] += [seconds] if number > 1 else []
        plain_s, observed_s = statistics.median(times[False]), statistics.median(times[True])
        found[name] = {"plain_s": plain_s, "observed_s": observed_s, "ratio": observed_s / plain_s}
    return found


def make_project(root: Path, models: int, cases: int) -> None:
    """A repository of `models` scripts with `cases` cases in all."""
    (root / "models").mkdir(parents=True)
    for name in ("tinyconv.py", "_graph.py"):
        shutil.copy(common.ROOT / "models" / name, root / "models" / name)
    sizes = list(range(1, cases // models + 1))
    for number in range(models):
        (root / f"models/net{number}.py").write_text(f"# {number}\n{SCRIPTS['tinyconv']}")
        (root / f"models/net{number}.toml").write_text(
            f'schema = "perfgate-trt/model/v1"\nname = "net{number}"\nprecisions = ["fp32"]\n'
            f'[source]\nscript = "net{number}.py"\n'
            f"[dims.b]\nmin = 1\nopt = 1\nmax = {sizes[-1]}\nmeasure = {sizes}\n"
        )
    (root / "pyproject.toml").write_text('[tool.perfgate]\nbackend = "onnxruntime"\ndevice = "cpu"\n')
    (root / ".gitignore").write_text(".perfgate/\nperfgate-out/\n")


def promote(root: Path) -> None:
    """Baselines as a run and `promote` would write them, without a launch."""
    settings = Settings(root=str(root), backend="onnxruntime", device="cpu")
    backend = get_backend("onnxruntime", "cpu")
    environment = fingerprint(backend, "cpu")
    from perfgate.gate.baselines import Baselines

    preparation = Preparation(settings, backend, environment, Baselines(root=""), lambda _: None)
    key = digest(environment)[:12]
    for spec in read_specs([root / "models"]):
        cases = {}
        for case in expand(
            spec,
            backend=backend.name,
            default_mode=backend.modes()[0],
            tolerance=settings.tolerance("cpu"),
            source=os.path.relpath(spec.path, root),
        ):
            result, request = preparation.one_case(spec, case)
            cases[case.id] = BaselineCase(
                case_digest=result.case_digest,
                usage_digest=result.usage_digest,
                onnx_digest=request.recipe.onnx_digest,
                environment=key,
                metrics={"latency_ns": (1e6, 1e6, 1e6)},
                promoted="2026-01-01T00:00:00Z",
                reason="made for a benchmark",
            )
        write_baseline(
            baseline_path(root / "baselines", environment, spec.name),
            Baseline(
                schema=BASELINE_SCHEMA,
                model=spec.name,
                environments={key: environment},
                cases=cases,
                manifests=tuple(preparation.sources.used[spec.name].values()),
            ),
        )


def fresh_clone_s(folder: Path, cases: int) -> dict[str, Any]:
    """`perfgate run` in a clone of a project whose cases are all unchanged."""
    root, clone = folder / f"project-{cases}", folder / f"clone-{cases}"
    make_project(root, 20, cases)
    git = ["git", "-c", "user.name=b", "-c", "user.email=b@example.org"]
    subprocess.run([*git, "init", "-q", str(root)], check=True)
    promote(root)
    subprocess.run([*git, "-C", str(root), "add", "-A"], check=True)
    subprocess.run([*git, "-C", str(root), "commit", "-qm", "baselines"], check=True)
    subprocess.run([*git, "clone", "-q", str(root), str(clone)], check=True)
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "perfgate", "run", "--require-baseline"],
        cwd=clone, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    seconds = time.monotonic() - started
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    counts = read_results(clone / "perfgate-out/results.json").summary
    assert counts is not None and counts.counts == {"UNCHANGED": cases}, counts
    assert not (clone / ".perfgate/models").exists(), "a model was generated"
    return {"seconds": seconds, "target_s": TARGETS_S[cases]}


def measure(options: common.Options) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="perfgate-observation-") as name:
        folder = Path(name).resolve()
        for file in ("tinyconv.py", "_graph.py"):
            shutil.copy(common.ROOT / "models" / file, folder / file)
        observer = observer_cost(folder, options.rounds)
        clones = {str(cases): fresh_clone_s(folder, cases) for cases in TARGETS_S}
    return {**common.about("onnxruntime", "cpu"), "observer": observer, "clones": clones}


def show(body: Mapping[str, Any]) -> str:
    observed = [
        (name, f"{one['plain_s']:.2f} s", f"{one['observed_s']:.2f} s", f"{one['ratio']:.2f} ×", "≤ 2 ×")
        for name, one in body["observer"].items()
    ]
    clones = [
        (cases, f"{one['seconds']:.1f} s", f"< {one['target_s']:g} s")
        for cases, one in body["clones"].items()
    ]
    head = ("script", "plain", "observed", "ratio", "target")
    return (
        f"{common.text_table(head, observed)}\n\n"
        f"{common.text_table(('unchanged cases', 'fresh clone', 'target'), clones)}"
    )


OPTIONS = [common.option("--rounds", type=int, default=9), common.out_option("observation.json")]

if __name__ == "__main__":
    sys.exit(common.main(common.table_of("observation", measure, show), __doc__, OPTIONS))
