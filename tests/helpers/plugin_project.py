"""A project to run pytest in: tinyconv with a promoted baseline, copied afresh for each test."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

MODELS = Path(__file__).resolve().parents[2] / "models"
SLOW = "\n[source]\nargs = { repeat = 8 }\n"
# Quick, and with launches enough to be judged.
SETTINGS = """
[tool.perfgate]
launches = 2
duration_ms = 40
warmup_ms = 10
# The tests may share the machine.
foreign_cpu_limit = 1.0
# What is explained, and how, has tests of its own.
explain = false

[tool.pytest.ini_options]
addopts = "-p no:cacheprovider -p no:hypothesispytest -p no:timeout"
"""
# Every Python process that starts writes what it was started for; and one case's launches may be killed.
SPY = """
import os, signal, sys
from pathlib import Path

argv = sys.orig_argv
# A model script's environment is scrubbed: what it runs is not spied on.
if "SPY_LOG" in os.environ:
    with open(os.environ["SPY_LOG"], "a") as log:
        log.write(" ".join(argv) + chr(10))
victim = os.environ.get("SPY_KILL")
if victim and "perfgate.measure.launch" in argv and victim in Path(argv[-2]).read_text():
    print("about to die", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""

Gate = Callable[..., pytest.RunResult]


class Project:
    """A folder with models, settings and baselines, and what perfgate left in it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def cli(self, *args: str) -> subprocess.CompletedProcess[str]:
        code = "from perfgate.cli.app import main; main()"
        return subprocess.run(
            [sys.executable, "-c", code, *args], cwd=self.root, capture_output=True, text=True, timeout=120
        )

    def promote(self, *args: str) -> None:
        done = self.cli("promote", "perfgate-out/results.json", "--reason", "as it should be", *args)
        assert done.returncode == 0, done.stderr

    def write(self, path: str, text: str) -> Path:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        return target

    def change(self, path: str, old: str, new: str) -> None:
        text = (self.root / path).read_text()
        assert old in text
        self.write(path, text.replace(old, new))

    def slow_down(self, model: str = "tinyconv") -> None:
        self.change(f"models/{model}.toml", "seed = 0", "seed = 0\nargs = { repeat = 8 }")

    def add_model(self, name: str) -> None:
        """Another model of the same script, so far without a baseline."""
        text = (self.root / "models/tinyconv.toml").read_text()
        self.write(f"models/{name}.toml", text.replace('name = "tinyconv"', f'name = "{name}"'))

    def drop_fp32(self) -> None:
        """The case that has a baseline is no longer made."""
        self.change("models/tinyconv.toml", '["fp32", "fp16"]', '["fp16"]')

    @property
    def baseline(self) -> Path:
        return next(self.root.glob("baselines/*/*/tinyconv.json"))

    def edit_baseline(self, edit: Callable[[Any], object]) -> None:
        table = json.loads(self.baseline.read_text())
        edit(table)
        self.baseline.write_text(json.dumps(table))

    def from_other_cpu(self) -> None:
        """The baseline as if another machine of the same name had measured it."""
        self.edit_baseline(
            lambda table: [e["key"].update(cpus="999") for e in table["environments"].values()]
        )

    def add_ghost(self, *ids: str) -> None:
        """Baseline cases that no spec makes."""
        self.edit_baseline(
            lambda table: [table["cases"].setdefault(i, table["cases"]["tinyconv/fp32/b1"]) for i in ids]
        )

    def results(self) -> Any:
        return json.loads((self.root / "perfgate-out/results.json").read_text())

    def verdicts(self) -> dict[str, str]:
        return {one["case"]["id"]: one["judgement"]["verdict"] for one in self.results()["cases"]}

    def started(self, module: str) -> int:
        """How many processes of this module were started since the project was copied."""
        log = Path(os.environ["SPY_LOG"])
        return sum(f"-m {module}" in line for line in log.read_text().splitlines()) if log.exists() else 0


def _settle(patch: pytest.MonkeyPatch, folder: Path, root: Path) -> None:
    """The spy lies in the project: what every Python of a model script loads counts as read by it."""
    for name in [name for name in os.environ if name.startswith(("PERFGATE_", "PYTEST_"))]:
        if name != "PYTEST_CURRENT_TEST":
            patch.delenv(name)
    folder.mkdir()
    (root / "spy").mkdir(parents=True, exist_ok=True)
    (root / "spy/sitecustomize.py").write_text(SPY)
    patch.setenv("SPY_LOG", str(folder / "spy.log"))
    patch.setenv("PERFGATE_LOCK_DIR", str(folder))
    patch.setenv("PYTHONPATH", str(root / "spy"), prepend=os.pathsep)


@pytest.fixture(scope="session")
def promoted_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template: tinyconv, its baseline, no store."""
    folder = tmp_path_factory.mktemp("template")
    project = Project(folder / "project")
    project.write("pyproject.toml", SETTINGS)
    (project.root / "models").mkdir()
    for name in ("tinyconv.py", "tinyconv.toml", "_graph.py"):
        shutil.copy(MODELS / name, project.root / "models" / name)
    with pytest.MonkeyPatch.context() as patch:
        _settle(patch, folder / "spy", project.root)
        # As pytester does, so that model scripts get the same variables there.
        patch.setenv("PYTHONPATH", str(project.root), prepend=os.pathsep)
        done = project.cli("run", "--launches", "3")
        assert done.returncode == 0, done.stderr
        project.promote()
    for left in (".perfgate", "perfgate-out"):
        shutil.rmtree(project.root / left)
    return project.root


@pytest.fixture
def project(
    promoted_project: Path,
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> Project:
    """The project, in pytester's folder."""
    _settle(monkeypatch, tmp_path_factory.mktemp("spy") / "spy", pytester.path)
    shutil.copytree(promoted_project, pytester.path, dirs_exist_ok=True)
    return Project(pytester.path)


@pytest.fixture
def gate(project: Project, pytester: pytest.Pytester) -> Gate:
    """Runs `pytest --perfgate …` in the project, in a process of its own; never with a traceback."""

    def run(*args: str) -> pytest.RunResult:
        result = pytester.runpytest_subprocess("--perfgate", *args, timeout=120)
        said = result.stdout.str() + result.stderr.str()
        assert "Traceback" not in said
        assert "INTERNALERROR" not in said
        return result

    return run
