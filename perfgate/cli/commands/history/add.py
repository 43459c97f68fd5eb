"""`perfgate history add`: add runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from perfgate.cli.lookup import open_history
from perfgate.cli.options import database_option
from perfgate.report.format import line
from perfgate.util.wording import counted

if TYPE_CHECKING:
    from perfgate.history import HistoryRun
    from perfgate.history.store import History


@click.command()
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--samples", is_flag=True, help="Keep every sample, not each launch's median alone.")
@click.option("--branch", default="", help="The branch that was measured.")
@database_option
def add(results: tuple[Path, ...], samples: bool, branch: str, database: str | None) -> None:
    """Add RESULTS: results files, or exports of another history. Adding a run twice changes nothing.

    Example: perfgate history add perfgate-out/results.json
    """
    added = known = 0
    with open_history(database) as store:
        newest = next((row.created for row in store.runs(limit=1)), "")
        for path in results:
            for entry in _entries(path, samples=samples, branch=branch):
                new = store.add_entry(entry)
                added, known = added + new, known + (not new)
                click.echo(f"{line(entry.result.run_id)}: {'added' if new else 'already there, unchanged'}")
                newest = _note_order(store, entry, newest) if new else newest
    click.echo(f"{counted(added, 'run')} added, {known} already there: {store.where}", err=True)


def _entries(path: Path, *, samples: bool, branch: str) -> Iterator[HistoryRun]:
    from perfgate.history.rows import history_run, is_export, read_export

    if is_export(path):
        yield from read_export(path)
    else:
        from perfgate.run.outputs import read_results

        yield history_run(read_results(path), samples=samples, branch=branch)


def _note_order(store: History, entry: HistoryRun, newest: str) -> str:
    """Say where a run is older than the newest one; returns the newest time."""
    created = store.run(entry.result.run_id).created
    if created < newest:
        click.echo(
            f"  note: created {created}, before the newest run ({newest}); runs are ordered by this time"
        )
    return max(created, newest)
