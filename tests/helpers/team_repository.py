"""A team's repository with `.github/` copied into it, and a runner that plays its workflows."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from fake_github import FakeGitHub
from play_runner import Runner

from perfgate.util.process import package_environment

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = """
[tool.perfgate]
backend = "onnxruntime"
device = "cpu"
launches = 2
duration_ms = 50
warmup_ms = 5
# The tests may share the machine; the planted regression is larger than any of its moods.
foreign_cpu_limit = 1.0
# What is explained, and how, has tests of its own.
explain = false
ignore = 0.9
catch = 1.8
"""


class Repository:
    """A repository of a team that copied `.github/`: tinyconv, promoted on this machine, on `main`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "models").mkdir(parents=True)
        for name in ("tinyconv.py", "tinyconv.toml", "_graph.py"):
            shutil.copy(ROOT / "models" / name, root / "models" / name)
        spec = root / "models/tinyconv.toml"
        spec.write_text(re.sub(r"^precisions = .*$", 'precisions = ["fp32"]', spec.read_text(), flags=re.M))
        shutil.copytree(ROOT / ".github", root / ".github")
        (root / "pyproject.toml").write_text(SETTINGS)
        (root / ".gitignore").write_text("perfgate-out/\n.perfgate/\n")
        self.git("init", "-q", "-b", "main")
        self.commit("models")
        self.perfgate("run")
        self.perfgate("promote", "perfgate-out/results.json", "--reason", "first baseline")
        self.base = self.commit("baselines")

    def git(self, *words: str) -> str:
        identity = [
            "-c",
            "user.name=dev",
            "-c",
            "user.email=dev@example.invalid",
            "-c",
            "commit.gpgsign=false",
        ]
        done = subprocess.run(
            ["git", *identity, *words], cwd=self.root, capture_output=True, text=True, timeout=60, check=True
        )
        return done.stdout.strip()

    def commit(self, message: str) -> str:
        self.git("add", "-A")
        self.git("commit", "-q", "-m", message)
        return self.git("rev-parse", "HEAD")

    def perfgate(self, *words: str) -> None:
        subprocess.run(
            [sys.executable, "-m", "perfgate", *words],
            cwd=self.root,
            env={**package_environment(), "PERFGATE_LOCK_DIR": str(self.root.parent)},
            capture_output=True,
            timeout=120,
            check=True,
        )

    def push(self, repeat: int) -> tuple[str, str]:
        """A commit on the branch that makes the network deeper, and GitHub's merge of it into main."""
        spec = self.root / "models/tinyconv.toml"
        branches = self.git("branch", "--list", "change")
        self.git("switch", "-q", *([] if branches else ["-c"]), "change")
        text = re.sub(
            r"seed = 0\n(args = .*\n)?",
            f"seed = 0\nargs = {{ repeat = {repeat} }}\n",
            spec.read_text(),
            count=1,
        )
        spec.write_text(text)
        head = self.commit(f"repeat {repeat}")
        self.git("switch", "-q", "--detach", "main")
        self.git("merge", "-q", "--no-ff", "-m", "merge", "change")
        merge = self.git("rev-parse", "HEAD")
        self.git("branch", "-f", "pr-merge", merge)
        self.git("switch", "-q", "main")
        return head, merge

    def runner(self, folder: Path, fake: FakeGitHub) -> Runner:
        """A machine whose `perfgate` is the one under test, as the image has it."""
        bin_ = folder / "bin"
        bin_.mkdir()
        shim = bin_ / "perfgate"
        shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m perfgate "$@"\n')
        shim.chmod(0o755)
        env = package_environment()
        kept = {name: text for name, text in env.items() if name in ("HOME", "LANG", "PYTHONPATH")}
        return Runner(
            repository=self.root,
            folder=folder / "run0",
            fake=fake,
            environment={**kept, "PATH": f"{bin_}:{env['PATH']}", "PERFGATE_LOCK_DIR": str(folder)},
            variables={
                "PERFGATE_LEGS": '["gpu-test"]',
                "PERFGATE_IMAGE": f"ghcr.io/acme/perfgate@sha256:{'e' * 64}",
            },
        )
