"""The README tells the truth: its console commands are run, its other ones parse, its settings exist."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from perfgate.cli.app import cli
from perfgate.records import Verdict
from perfgate.settings import options, table
from perfgate.util.process import package_environment

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def commands(language: str) -> list[str]:
    """The command lines of all fenced blocks of a language, without their comments."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)
    lines = [line.split("  #")[0].split(" #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


def test_console_commands_run_in_their_order(tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    for name in ("tinyconv.py", "tinyconv.toml", "_graph.py"):
        shutil.copy(ROOT / "models" / name, models)
    (tmp_path / "pyproject.toml").write_text("[tool.perfgate]\n")
    quick = {
        "PERFGATE_BACKEND": "onnxruntime",
        "PERFGATE_DEVICE": "cpu",
        "PERFGATE_LAUNCHES": "2",
        "PERFGATE_DURATION_MS": "50",
        "PERFGATE_FOREIGN_CPU_LIMIT": "1",
        "PERFGATE_IGNORE": "4",  # this test is about the commands, not about the machine's quiet
        "PERFGATE_CATCH": "9",
    }
    found = commands("console")
    assert len(found) >= 8
    for line in found:
        program, *rest = shlex.split(line)
        module = ["-m", "pytest", "-p", "no:cacheprovider"] if program == "pytest" else ["-m", "perfgate"]
        done = subprocess.run(
            [sys.executable, *module, *rest],
            cwd=tmp_path,
            env={**package_environment(), **quick},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("line", [line for line in commands("sh") if line.startswith("perfgate ")])
def test_other_commands_parse(line: str) -> None:
    _, name, *rest = shlex.split(line)
    command = cli.get_command(click.Context(cli), name)
    assert command is not None, line
    command.make_context(name, rest)


def test_make_targets_exist() -> None:
    targets = re.findall(r"^([a-z]+):.*##", (ROOT / "Makefile").read_text(), re.M)
    for line in commands("sh"):
        if line.startswith("make "):
            assert line.split()[1] in targets


def test_every_setting_is_documented_and_none_besides() -> None:
    shown = README.split("## Settings")[1].split("## Security")[0]
    rows = [line.split("|")[1] for line in shown.splitlines() if line.startswith("| `")]
    documented = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert documented == set(options())
    assert table() in shown, "made by perfgate.settings.table"


def test_every_verdict_is_documented_with_its_exit_code() -> None:
    rows = dict(re.findall(r"^\| ([A-Z]+) \| ([013]) \|", README, re.M))
    expected = {v.value: str(v.exit_code) for v in Verdict if v not in (Verdict.NOT_RUN, Verdict.WAIVED)}
    assert rows == expected


def test_the_picture_is_there() -> None:
    for path in re.findall(r"!\[.*?\]\((.*?)\)", README):
        assert (ROOT / path).stat().st_size > 10_000
