"""Two toolchains side by side: another interpreter, another revision, and a container's argument list."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from repository import Repository

pytest_plugins = ["cli_project", "repository"]


@pytest.fixture(scope="module")
def other_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment of its own that finds our libraries, but no perfgate."""
    home = tmp_path_factory.mktemp("other") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True, timeout=120)
    packages = next(home.glob("lib/*/site-packages"))
    ours = next(path for path in map(Path, sys.path) if (path / "msgspec").is_dir())
    # Not as a .pth of a .pth: an editable perfgate of ours is not to be found there.
    (packages / "libraries.pth").write_text(f"{ours}\n")
    return home / "bin/python"


def case_of(repository: Repository) -> dict[str, Any]:
    result = json.loads(repository.results.read_text())
    found: dict[str, Any] = next(one for one in result["cases"] if one["case"]["id"] == repository.CASE)
    return {**found, "run": result}


def test_another_interpreter_and_an_older_revision_are_launched_in_turn(
    repository: Repository, other_python: Path, tmp_path: Path
) -> None:
    base = repository.git("rev-parse", "HEAD")
    repository.slow_down()
    repository.commit("deeper")
    traced = tmp_path / "python"
    traced.write_text(f'#!/bin/sh\necho "$*" >> {tmp_path}/seen\nexec {other_python} "$@"\n')
    traced.chmod(0o755)
    done = repository("run", "--paired", base, "--base-python", str(traced), *repository.WIDE)
    assert done.returncode == 1, done.stdout + done.stderr
    found = case_of(repository)
    assert found["judgement"]["verdict"] == "REGRESSION"
    assert found["judgement"]["ratio"]["estimate"] > 3
    assert found["run"]["base"]["sha"] == base
    assert found["run"]["base_environment"]["toolchain"].startswith("onnxruntime-")
    seen = (tmp_path / "seen").read_text()
    launched = found["judgement"]["confirmation"]["base_launches"]
    assert seen.count("perfgate.measure.launch") >= launched >= 2
    assert seen.count("perfgate.measure.other_interpreter") >= 1
    assert len(repository.git("worktree", "list").splitlines()) == 1
    # Promoting across is what this result is for; the loss must still be named.
    refused = repository("promote", repository.results, "--reason", "x")
    assert refused.returncode == 2
    assert "REGRESSION" in refused.stderr


def test_the_same_tree_with_another_interpreter_is_no_regression(
    repository: Repository, other_python: Path
) -> None:
    done = repository("run", "--paired", ".", "--base-python", str(other_python), *repository.WIDE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert repository.verdicts()[repository.CASE] in ("PASS", "IMPROVEMENT")
    promoted = repository(
        "promote", repository.results, "--reason", "the new toolchain, proven", "--allow-dirty"
    )
    assert promoted.returncode == 0, promoted.stderr


DOCKER = """#!{python}
import json, os, sys
words = sys.argv[1:]
with open({log!r}, "a") as log:
    log.write(json.dumps(words) + "\\n")
if words[0] == "rm":
    sys.exit(0)
variables = dict(words[i + 1].split("=", 1) for i, word in enumerate(words) if word == "--env")
mounts = [words[i + 1].split(":") for i, word in enumerate(words) if word == "--volume"]
package = next(mount[0] for mount in mounts if mount[1] == "/perfgate-package/perfgate")
variables["PYTHONPATH"] = os.path.dirname(package)
program = words[words.index("example/trt@sha256:1") + 2:]
os.execve({python!r}, [{python!r}, *program], {{**variables, "PATH": os.environ["PATH"]}})
"""


def test_a_container_gets_its_folders_and_no_network_and_is_removed(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The argument list is what is tested: a stand-in for docker runs the program on this machine."""
    log = tmp_path / "docker.log"
    fake = tmp_path / "bin/docker"
    fake.parent.mkdir()
    fake.write_text(DOCKER.format(python=sys.executable, log=str(log)))
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}{os.pathsep}{os.environ['PATH']}")
    base = repository.git("rev-parse", "HEAD")
    repository.slow_down()
    done = repository("run", "--paired", base, "--base-image", "example/trt@sha256:1", *repository.WIDE)
    assert done.returncode == 1, done.stdout + done.stderr
    assert case_of(repository)["judgement"]["verdict"] == "REGRESSION"
    calls = [json.loads(line) for line in log.read_text().splitlines()]
    started = [words for words in calls if words[0] == "run"]
    removed = [words[-1] for words in calls if words[0] == "rm"]
    assert {words[words.index("--name") + 1] for words in started} == set(removed)
    for words in started:
        assert words[words.index("--network") + 1] == "none"
        assert words[words.index("--user") + 1] == f"{os.getuid()}:{os.getgid()}"
        assert "--gpus" not in words, "the backend runs on a CPU here"
        mounts = [words[index + 1] for index, word in enumerate(words) if word == "--volume"]
        assert f"{repository.root}/.perfgate:{repository.root}/.perfgate" in mounts
        assert sum(mount.endswith(":ro") for mount in mounts) == 2
        assert words[words.index("example/trt@sha256:1") + 1] == "python3"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--paired", "."), "is head itself"),
        (("--paired", "v9.9"), "no such commit"),
        (("--base-python", "python3"), "goes with --paired"),
        (("--paired", "HEAD", "--base-python", "a", "--base-image", "b"), "takes one of"),
    ],
)
def test_a_base_that_is_none_is_a_usage_error(
    repository: Repository, args: tuple[str, ...], said: str
) -> None:
    done = repository("run", *args)
    assert done.returncode == 2
    assert said in done.stderr


def test_an_interpreter_that_is_none_or_lacks_the_backend_is_said(repository: Repository) -> None:
    done = repository("run", "--paired", ".", "--base-python", "/nowhere/python")
    assert done.returncode == 2
    assert "/nowhere/python: cannot be started" in done.stderr
    bare = repository.root / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True, timeout=120)
    done = repository("run", "--paired", ".", "--base-python", str(bare / "bin/python"))
    assert done.returncode == 3
    assert "No module named 'msgspec'" in done.stderr
