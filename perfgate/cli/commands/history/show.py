"""`perfgate history show`: show one run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import rich_click as click

from perfgate.cli.lookup import open_history
from perfgate.cli.options import database_option
from perfgate.cli.text import commit_of, print_table
from perfgate.report.format import duration, line

if TYPE_CHECKING:
    from perfgate.history import CaseRow


@click.command()
@click.argument("run")
@database_option
def show(run: str, database: str | None) -> None:
    """Show what the history knows of RUN: its cases with verdict, ratio and latency.

    Example: perfgate history show 20260131T020000Z-0123abcd
    """
    with open_history(database, must_exist=True) as store:
        row, cases = store.run(run), store.cases(run)
    on = f" on {line(row.branch)}" if row.branch else ""
    click.echo(f"run          {line(row.run_id)}, {row.created}, perfgate {line(row.perfgate)}")
    click.echo(f"commit       {commit_of(row) or 'none'}{on}")
    click.echo(f"environment  {line(row.device)}, {line(row.toolchain)} ({row.environment[:12]})")
    click.echo(f"verdict      {row.verdict or 'not judged'} (exit {row.exit_code})")
    click.echo(f"samples      {'all kept' if row.sampled else 'the median of each launch'}\n")
    print_table([("CASE", "VERDICT", "RATIO", "INTERVAL", "LATENCY", "LAUNCHES"), *map(_case_line, cases)])


def _case_line(case: CaseRow) -> tuple[str, ...]:
    known = case.ratio is not None and case.low is not None and case.high is not None
    return (
        case.case_id,
        case.verdict or "-",
        f"{case.ratio:.4f}" if known else "-",
        f"{case.low:.4f} to {case.high:.4f}" if known else "-",
        "-" if case.latency_ns is None else duration(case.latency_ns),
        str(case.launches),
    )
