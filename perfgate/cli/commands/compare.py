"""`perfgate compare`: judge one results file against another."""

from pathlib import Path

import rich_click as click

from perfgate.cli.options import leave, load, show


@click.command()
@click.argument("base", type=click.Path(path_type=Path))
@click.argument("head", type=click.Path(path_type=Path))
def compare(base: Path, head: Path) -> None:
    """Judge the results file HEAD against the results file BASE; measures nothing.

    Example: perfgate compare before/results.json perfgate-out/results.json
    """
    from perfgate.gate.verdict.compare_results import compare_results
    from perfgate.run.outputs import read_results

    result = compare_results(read_results(base), read_results(head), results=str(head))
    show(result, load({}).language)
    leave(result)
