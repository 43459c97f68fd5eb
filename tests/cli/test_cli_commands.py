"""The commands as a whole: every one is in a group, former names work, and options come from one table."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from perfgate.cli.app import ALIASES, GROUPS, cli
from perfgate.settings import options
from perfgate.util.process import package_environment

CONTEXT = click.Context(cli)
NAMES = [name for names in GROUPS.values() for name in names]


@pytest.mark.parametrize("name", NAMES)
def test_every_command_is_in_a_file_of_its_own_and_has_help(name: str) -> None:
    command = cli.get_command(CONTEXT, name)
    assert command is not None and command.callback is not None
    assert command.callback.__module__.startswith(f"perfgate.cli.commands.{name.replace('-', '_')}")
    assert command.get_short_help_str(200)
    done = CliRunner().invoke(cli, [name, "--help"])
    assert done.exit_code == 0 and "Usage" in done.output


@pytest.mark.parametrize(("former", "name"), ALIASES.items())
def test_a_former_name_is_the_same_command_and_is_not_listed(former: str, name: str) -> None:
    assert cli.get_command(CONTEXT, former) is cli.get_command(CONTEXT, name)
    assert former not in cli.list_commands(CONTEXT)
    assert CliRunner().invoke(cli, [former, "--help"]).exit_code == 0


def test_help_lists_the_groups_with_all_their_commands() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "perfgate", "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**package_environment(), "COLUMNS": "120", "PYTHONIOENCODING": "utf-8"},
    )
    places = [done.stdout.index(f" {title} ──") for title in GROUPS]
    assert places == sorted(places)
    for name in NAMES:
        assert re.search(rf"^│ {name} ", done.stdout, re.M), name
    assert "perfgate promote perfgate-out/results.json --reason" in done.stdout, "examples"


def test_an_unknown_command_is_exit_2() -> None:
    assert CliRunner().invoke(cli, ["rnu"]).exit_code == 2


@pytest.mark.parametrize("name", ["backend", "launches", "all_cases", "lock_clocks_mhz", "language"])
def test_an_option_says_what_the_table_of_settings_says(name: str) -> None:
    run = cli.get_command(CONTEXT, "run")
    assert run is not None
    (found,) = [one for one in run.params if one.name == name]
    assert isinstance(found, click.Option)
    assert found.opts == [f"--{options()[name].flag}"]
    assert (found.help or "").startswith(options()[name].description)


@pytest.mark.parametrize("name", NAMES)
def test_every_command_has_an_example_that_parses(name: str) -> None:
    command = cli.get_command(CONTEXT, name)
    assert command is not None
    if isinstance(command, click.Group):
        leaves = [command.commands[leaf] for leaf in command.commands]
    else:
        leaves = [command]
    if name == "github":
        return  # its commands take all from a job's environment
    for leaf in leaves:
        found = re.search(r"Example: perfgate (.*)", leaf.help or "")
        assert found, leaf.name
        words = shlex.split(found[1])
        assert words[: 1 + (leaf is not command)] == [name, leaf.name][: 1 + (leaf is not command)]
        leaf.make_context(str(leaf.name), words[1 + (leaf is not command) :])
