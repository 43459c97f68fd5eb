"""A project that is a real git repository: tinyconv with a promoted baseline on its main branch."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from cli_project import Cli

IDENTITY = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main")


class Repository(Cli):
    CASE = "tinyconv/fp32/b1"
    # Two busy cores vary up to twofold; what is planted is sixfold and more.
    WIDE = ("--ignore", "1.0", "--catch", "2.0")

    def git(self, *words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(self.root), *IDENTITY, *words],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return done.stdout.strip()

    def commit(self, text: str) -> str:
        self.git("add", "-A")
        self.git("commit", "-q", "-m", text)
        return self.git("rev-parse", "HEAD")

    def branch(self, name: str) -> None:
        self.git("checkout", "-q", "-b", name)


@pytest.fixture
def repository(promoted_cli: Path, tmp_path: Path) -> Repository:
    root = tmp_path / "project"
    shutil.copytree(promoted_cli, root)
    found = Repository(root)
    (root / ".gitignore").write_text("perfgate-out/\n.perfgate/\n*.lock\nlog\n")
    found.git("init", "-q")
    found.commit("as it should be")
    return found
