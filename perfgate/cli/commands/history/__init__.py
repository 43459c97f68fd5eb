"""`perfgate history …`: keep and show the history of runs."""

import rich_click as click

from perfgate.cli.commands.history.add import add
from perfgate.cli.commands.history.export import export
from perfgate.cli.commands.history.list import list_runs
from perfgate.cli.commands.history.prune import prune
from perfgate.cli.commands.history.series import series
from perfgate.cli.commands.history.show import show


@click.group(commands=[add, list_runs, show, series, export, prune])
def history() -> None:
    """Keep every run ever measured, in SQLite or PostgreSQL, and look at them."""
