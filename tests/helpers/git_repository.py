"""Real git repositories for tests: git with an identity, and commits in one call."""

from __future__ import annotations

import subprocess
from pathlib import Path

# Submodules of a test are cloned from the disk, which git refuses unless it is told.
IDENTITY = (
    *("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"),
    *("-c", "protocol.file.allow=always", "-c", "commit.gpgsign=false"),
)


def git(folder: Path, *words: str | Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *IDENTITY, *map(str, words)],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def commit(folder: Path, text: str, name: str = "file") -> str:
    """A commit that writes its own subject into a file."""
    (folder / name).write_text(text)
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", text)
    return git(folder, "rev-parse", "HEAD")


def start(folder: Path, *texts: str) -> Path:
    """A new repository with these commits on main."""
    folder.mkdir(parents=True)
    git(folder, "init", "-q")
    for text in texts:
        commit(folder, text)
    return folder
