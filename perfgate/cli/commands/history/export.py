"""`perfgate history export`: export runs as JSON lines."""

from pathlib import Path

import rich_click as click

from perfgate.cli.lookup import open_history
from perfgate.cli.options import database_option
from perfgate.errors import UsageError
from perfgate.util.wording import counted


@click.command()
@click.argument("run", required=False)
@click.option("--all", "everything", is_flag=True, help="Every run, oldest first.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="File to write.")
@database_option
def export(run: str | None, everything: bool, output: Path, database: str | None) -> None:
    """Export RUN, or --all, as JSON lines that `perfgate history add` reads back to the same history.

    Example: perfgate history export --all -o history.jsonl
    """
    from perfgate.history.rows import write_export

    if (run is None) == (not everything):
        raise UsageError("needs a RUN or --all", where="history export", fix="one of them, not both")
    with open_history(database, must_exist=True) as store:
        written = write_export(output, store.entries() if run is None else [store.entry(run)])
    click.echo(f"wrote {output}: {counted(written, 'run')}", err=True)
