"""What commands share: options made from the table of settings, and how a result is shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import rich_click as click
from click.exceptions import Exit
from rich.console import Console

from perfgate.records import RunResult
from perfgate.settings import Option, Settings, load_settings, options, variable

F = TypeVar("F", bound=Callable[..., Any])


def settings_options(*names: str) -> Callable[[F], F]:
    """The options of these settings, in this order."""

    def decorate(command: F) -> F:
        for name in reversed(names):
            command = _option(options()[name])(command)
        return command

    return decorate


def _option(option: Option) -> Callable[[F], F]:
    default = f"  [default: {option.default}]" if option.default else ""
    kind: dict[str, Any] = {"type": click.Choice(option.choices) if option.choices else option.kind}
    if option.kind is bool:
        kind = {"is_flag": True, "default": None}
    return click.option(f"--{option.flag}", option.name, help=f"{option.description}{default}", **kind)


# `-k`, which selects cases.
keyword_option = click.option("-k", "keyword", default="", help="Only cases whose id contains this text.")
# `-o`, a file in place of the screen.
output_option = click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Write to a file instead of the screen."
)
_HISTORY = options()["history"]
# `--database`, the history to use.
database_option = click.option(
    "--database", envvar=variable("history"), help=f"{_HISTORY.description}  [default: {_HISTORY.default}]"
)


def trend_options(command: F) -> F:
    """What selects trends of the history."""
    metric = click.option(
        "--metric", default="latency_ns", show_default=True, help="A metric of the stored runs."
    )
    since = click.option("--since", metavar="DATE", help="Leave out older runs, such as 2026-01-31.")
    branch = click.option("--branch", help="Only runs of this branch.  [default: all]")
    return database_option(metric(since(branch(command))))


def load(flags: dict[str, Any]) -> Settings:
    """The settings of this folder, with these flags over them."""
    return load_settings(flags, start=Path.cwd())


def show(result: RunResult, language: str) -> None:
    """Print a result to the terminal."""
    from perfgate.report.run.terminal import print_result

    print_result(result, Console(), language)


def leave(result: RunResult) -> NoReturn:
    """End with the exit code of a result."""
    raise Exit(result.summary.exit_code if result.summary else 0)
