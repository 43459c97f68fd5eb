"""`perfgate report`: render a results file."""

from pathlib import Path

import rich_click as click

from perfgate.cli.lookup import open_history
from perfgate.cli.options import load, output_option, settings_options, show
from perfgate.errors import UsageError
from perfgate.report import FORMATS


@click.command()
@click.argument("results", type=click.Path(path_type=Path))
@click.option("--format", "kind", type=click.Choice(FORMATS), default="terminal", show_default=True)
@output_option
@settings_options("language")
@click.option("--history", "database", help="Show how each case moved, from this history. HTML only.")
def report(results: Path, kind: str, output: Path | None, language: str | None, database: str | None) -> None:
    """Render a results file; computes nothing and needs no GPU.

    Example: perfgate report perfgate-out/results.json --format html -o report.html
    """
    from perfgate.report import render
    from perfgate.run.outputs import read_results
    from perfgate.util.files import write_text

    result = read_results(results)
    spoken = language or load({}).language
    if database and kind != "html":
        raise UsageError("is for HTML only", where="--history", fix="--format html, or perfgate trend")
    if kind == "terminal" and output is None:
        show(result, spoken)
        return
    if database:
        from perfgate.history.trend import run_trends
        from perfgate.report.run import html

        settings = load({})
        with open_history(database, must_exist=True) as history:
            trends = run_trends(result, history, settings.path("baselines"))
        text = html.render(result, spoken, trends)
    else:
        text = render(result, kind, spoken)
    if output is not None:
        write_text(output, text)
    else:
        click.echo(text, nl=False)
