"""A project to run the command line in: tinyconv with a promoted baseline, and what it wrote."""

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
COMMAND = [sys.executable, "-c", "from perfgate.cli.app import main; main()"]
SETTINGS = """
[tool.perfgate]
launches = 3
duration_ms = 100
warmup_ms = 10
# The tests may share the machine.
foreign_cpu_limit = 1.0
# What is explained, and how, has tests of its own.
explain = false
"""
DEADLINE_S = 120


class Cli:
    """Runs perfgate in a project, in a process of its own. No answer of it may hold a traceback."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __call__(self, *args: str | Path) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*COMMAND, *map(str, args)],
            cwd=self.root,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
        )
        assert "Traceback" not in done.stdout + done.stderr
        return done

    def start(self, *args: str, code: str = COMMAND[-1]) -> subprocess.Popen[bytes]:
        """Start a command whose messages go to `self.log`."""
        with self.log.open("wb") as sink:
            return subprocess.Popen(
                [*COMMAND[:2], code, *args], cwd=self.root, env=self.environment, stdout=sink, stderr=sink
            )

    @property
    def log(self) -> Path:
        return self.root / "log"

    @property
    def environment(self) -> dict[str, str]:
        kept = {key: text for key, text in os.environ.items() if not key.startswith("PERFGATE_")}
        # A variable that all descendants inherit: by it they are found.
        return {**kept, "PERFGATE_LOCK_DIR": str(self.root), "COLUMNS": "100"}

    @property
    def descendants(self) -> list[int]:
        """Processes of this machine that were started, at any depth, by a command of this project."""
        mark = f"PERFGATE_LOCK_DIR={self.root}\0".encode()
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                found += [int(path.parent.name)] if mark in path.read_bytes() else []
            except OSError:
                continue
        return found

    @property
    def results(self) -> Path:
        return self.root / "perfgate-out/results.json"

    def verdicts(self) -> dict[str, str]:
        table = json.loads(self.results.read_text())
        return {one["case"]["id"]: one["judgement"]["verdict"] for one in table["cases"]}

    def change(self, path: str, old: str, new: str) -> None:
        text = (self.root / path).read_text()
        assert old in text
        (self.root / path).write_text(text.replace(old, new))

    def slow_down(self) -> None:
        self.change("models/tinyconv.toml", "seed = 0", "seed = 0\nargs = { repeat = 8 }")

    def add_model(self, name: str) -> None:
        text = (self.root / "models/tinyconv.toml").read_text()
        (self.root / f"models/{name}.toml").write_text(text.replace('"tinyconv"', f'"{name}"'))

    def edit_baseline(self, edit: Callable[[Any], object]) -> None:
        path = next(self.root.glob("baselines/*/*/tinyconv.json"))
        table = json.loads(path.read_text())
        edit(table)
        path.write_text(json.dumps(table))


@pytest.fixture(scope="session")
def promoted_cli(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template: tinyconv measured and promoted; `perfgate-out` holds that first run, no store is left."""
    root = tmp_path_factory.mktemp("template") / "project"
    (root / "models").mkdir(parents=True)
    for name in ("tinyconv.py", "tinyconv.toml", "_graph.py"):
        shutil.copy(MODELS / name, root / "models" / name)
    (root / "pyproject.toml").write_text(SETTINGS)
    cli = Cli(root)
    first = cli("run")
    assert first.returncode == 0, first.stderr
    assert cli.verdicts()["tinyconv/fp32/b1"] == "NEW"
    done = cli("promote", "perfgate-out/results.json", "--reason", "as it should be")
    assert done.returncode == 0, done.stderr
    assert "tinyconv/fp32/b1: new, " in done.stdout
    shutil.rmtree(root / ".perfgate")
    return root


@pytest.fixture
def cli(promoted_cli: Path, tmp_path: Path) -> Cli:
    root = tmp_path / "project"
    shutil.copytree(promoted_cli, root)
    return Cli(root)
