"""`perfgate history prune`: remove old runs."""

from datetime import datetime, timezone
from pathlib import Path

import rich_click as click

from perfgate.cli.lookup import open_history
from perfgate.cli.options import database_option, load
from perfgate.errors import UsageError
from perfgate.report.format import line
from perfgate.util.wording import counted


@click.command()
@click.option("--older-than", type=click.IntRange(0), required=True, metavar="DAYS", help="Age in days.")
@click.option("--keep-samples", is_flag=True, help="Keep the samples of old runs that stay.")
@click.option("--keep", multiple=True, metavar="RUN|COMMIT", help="A run, or a commit's runs, to keep.")
@click.option("--baselines", help="Runs that a baseline in this folder names stay.  [default: baselines]")
@database_option
def prune(
    older_than: int, keep_samples: bool, keep: tuple[str, ...], baselines: str | None, database: str | None
) -> None:
    """Remove runs older than DAYS. Promoted runs stay; of their samples the medians do.

    Example: perfgate history prune --older-than 365
    """
    from perfgate.history.rows import promotions

    folder = _baselines(baselines)
    now = f"{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%SZ}"
    with open_history(database, must_exist=True) as store:
        done = store.prune(
            older_than, now=now, keep=keep, promoted=promotions(folder), keep_samples=keep_samples
        )
    for run_id in done.removed:
        click.echo(f"{line(run_id)}: removed")
    for run_id in done.kept:
        click.echo(f"{line(run_id)}: kept{', its samples removed' if run_id in done.thinned else ''}")
    click.echo(f"{counted(len(done.removed), 'run')} removed, {len(done.kept)} older kept", err=True)


def _baselines(folder: str | None) -> Path:
    """An asked-for folder that is not there would silently keep nothing."""
    settings = load({})
    path = settings.path("baselines") if folder is None else Path(settings.root) / folder
    if folder is not None and not path.is_dir():
        raise UsageError("is not a folder", where=folder, fix="name the folder of baselines with --baselines")
    return path
