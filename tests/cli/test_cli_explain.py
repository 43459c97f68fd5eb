"""`run` explains what it confirms, `explain` shows it, `bundle` takes it away: for real, on the CPU."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import cli_project
import pytest
from cli_project import MODELS, Cli

from perfgate.run.outputs import read_results

CASE = "tinyconv/fp32/b1"


@pytest.fixture(scope="module")
def slower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git project with a promoted tinyconv, and a commit that makes it many times slower, already run."""
    root = tmp_path_factory.mktemp("slower")
    (root / "models").mkdir()
    for name in ("tinyconv.py", "tinyconv.toml", "_graph.py"):
        shutil.copy(MODELS / name, root / "models")
    (root / ".gitignore").write_text(".perfgate/\nperfgate-out/\n")
    (root / "pyproject.toml").write_text(
        '[tool.perfgate]\nbackend = "onnxruntime"\ndevice = "cpu"\nlaunches = 2\nduration_ms = 50\n'
        "warmup_ms = 10\nforeign_cpu_limit = 1.0\nignore = 0.5\ncatch = 1.5\n"
    )
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]

    def git(*words: str) -> None:
        subprocess.run(["git", *identity, *words], cwd=root, check=True, capture_output=True, timeout=60)

    cli = Cli(root)
    # A run with its confirmation and ten profiled loads is many processes, and the machine may be busy.
    patch = pytest.MonkeyPatch()
    patch.setattr(cli_project, "DEADLINE_S", 240)
    git("init", "-q", "-b", "main")
    git("add", "-A")
    git("commit", "-qm", "one")
    assert cli("run", "-k", CASE).returncode == 0
    assert cli("promote", "perfgate-out/results.json", "--reason", "first").returncode == 0
    git("add", "-A")
    git("commit", "-qm", "baseline")
    spec = root / "models" / "tinyconv.toml"
    spec.write_text(spec.read_text().replace("\nseed = 0", "\nseed = 0\nargs = { repeat = 12 }"))
    git("commit", "-qam", "slower")
    done = cli("run", "-k", CASE)
    patch.undo()
    assert done.returncode == 1, done.stdout + done.stderr
    return root


def test_a_regression_is_explained_in_the_run_that_confirms_it(slower: Path) -> None:
    found = read_results(slower / "perfgate-out" / "results.json").cases[0].explanation
    assert found is not None
    # Whether times tell depends on how busy this machine is; what changed does not.
    assert found.kind in ("new-layers", "not-explained")
    appeared = [change for change in found.layers if change.kind == "appeared"]
    assert len(appeared) == 22
    assert len([change for change in found.graph if change.kind == "added"]) == 44
    assert found.base_recipe is not None and found.base_engine is not None


def test_explain_shows_it(slower: Path) -> None:
    done = Cli(slower)("explain", "perfgate-out/results.json", CASE)
    assert done.returncode == 0
    assert done.stdout.startswith(f"{CASE}: ")
    # Which of the new layers come first depends on their times.
    assert ".relu_nchwc" in done.stdout
    assert "more in the results file" in done.stdout
    assert Cli(slower)("explain", "perfgate-out/results.json", "nothing").returncode == 2


def test_bundle_takes_both_sides_away(slower: Path, tmp_path: Path) -> None:
    import subprocess

    target = tmp_path / "bundle.zip"
    done = Cli(slower)("bundle", CASE, "--out", target)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(target) as archive:
        text = b"".join(archive.read(name) for name in archive.namelist())
        archive.extractall(tmp_path)
    assert str(slower).encode() not in text
    made = {}
    for side in ("base", "head"):
        command = [sys.executable, "generate.py"]
        here = tmp_path / "perfgate-bundle" / side
        ran = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=60)
        assert ran.returncode == 0, ran.stderr
        made[side] = (here / f"{side}.onnx").stat().st_size
    assert made["head"] > made["base"]
