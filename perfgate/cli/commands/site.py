"""`perfgate site`: write a static site of all trends."""

from pathlib import Path
from typing import Any

import rich_click as click

from perfgate.cli.lookup import open_history
from perfgate.cli.options import load, trend_options


@click.command()
@click.option("--out", "folder", required=True, type=click.Path(path_type=Path), help="Folder to write to.")
@click.option("--title", default="Inference performance", show_default=True, help="Heading of the site.")
@trend_options
def site(folder: Path, title: str, database: str | None, **selection: Any) -> None:
    """Write a static site of all trends, for GitHub Pages or any other file server.

    It needs no script and asks no other host for anything. Files of earlier cases in the folder are left.

    Example: perfgate site --out site
    """
    from perfgate.history.trend import read_trends
    from perfgate.report.trend.site import render_site
    from perfgate.util.files import check_writable, write_text

    check_writable(folder)
    settings = load({})
    with open_history(database, must_exist=True) as history:
        found = list(read_trends(history, settings.path("baselines"), **selection))
    count = 0
    for name, text in render_site(found, title=title):
        write_text(folder / name, text)
        count += 1
    click.echo(f"wrote {count} files; open {folder / 'index.html'}")
