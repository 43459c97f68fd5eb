"""`perfgate history list`: list the newest runs."""

import rich_click as click

from perfgate.cli.lookup import open_history
from perfgate.cli.options import database_option
from perfgate.cli.text import commit_of, print_table


@click.command("list")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="Newest runs to show.")
@database_option
def list_runs(limit: int, database: str | None) -> None:
    """List the newest runs, newest first.

    Example: perfgate history list --limit 10
    """
    with open_history(database, must_exist=True) as store:
        rows = store.runs(limit)
    table = [("RUN", "CREATED", "COMMIT", "VERDICT", "CASES", "DEVICE", "TOOLCHAIN", "BRANCH")]
    table += [
        (
            row.run_id,
            row.created,
            commit_of(row),
            row.verdict or "-",
            str(row.cases),
            row.device,
            row.toolchain,
            row.branch,
        )
        for row in rows
    ]
    print_table(table)
