"""`perfgate trend`: show how cases moved from run to run."""

import sys
from typing import Any

import rich_click as click

from perfgate.cli.lookup import open_history
from perfgate.cli.options import load, trend_options


@click.command()
@click.argument("cases", nargs=-1, metavar="[CASE]...")
@trend_options
def trend(cases: tuple[str, ...], database: str | None, **selection: Any) -> None:
    """Show how cases moved from run to run: sparkline, last value, changes with their commits.

    A change that came with a new environment (a driver, a library) is told apart from a commit's.
    It is news, no verdict: the exit code is 0.

    Example: perfgate trend resnet50/fp16/b8 --since 2026-01-31
    """
    from perfgate.history.trend import read_trends
    from perfgate.report.trend.view import ASCII_BLOCKS, BLOCKS, terminal

    settings = load({})
    with open_history(database, must_exist=True) as history:
        found = list(read_trends(history, settings.path("baselines"), cases, **selection))
    click.echo(terminal(found, ascii_only=not _shows(BLOCKS + ASCII_BLOCKS)))


def _shows(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
