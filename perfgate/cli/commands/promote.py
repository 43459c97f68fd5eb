"""`perfgate promote`: make measured launches the baseline."""

from pathlib import Path
from typing import Any

import rich_click as click
from msgspec.structs import replace

from perfgate.cli.options import keyword_option, load, settings_options
from perfgate.errors import UsageError


@click.command()
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--reason", required=True, help="Why these numbers are right; kept in the baseline.")
@keyword_option
@click.option("--accept", multiple=True, metavar="CASE", help="A regression or removal that is meant.")
@click.option("--allow-dirty", is_flag=True, help="Promote numbers of a tree with uncommitted changes.")
@click.option("--add", is_flag=True, help="Keep the stored runs of the same case, and add these.")
@settings_options("baselines")
def promote(
    results: tuple[Path, ...],
    reason: str,
    keyword: str,
    accept: tuple[str, ...],
    allow_dirty: bool,
    add: bool,
    **flags: Any,
) -> None:
    """Make the launches in RESULTS the baseline, and print what moved.

    Several files are runs of the same cases, on other days or machines of one kind: they are kept apart, and
    tell how far runs lie apart. With -k the other cases keep what is stored of them.

    Example: perfgate promote perfgate-out/results.json --reason "first baseline"
    """
    from perfgate.gate.policy.promote import PromotionTerms, promote as promote_results
    from perfgate.report.run.moves import render_moves
    from perfgate.run.outputs import read_results

    settings = load(flags)
    runs = [read_results(path) for path in results]
    chosen = [replace(run, cases=tuple(one for one in run.cases if keyword in one.case.id)) for run in runs]
    for path, run in zip(results, chosen, strict=True):
        if keyword and not run.cases:
            raise UsageError(f"selects no case of {path}: {keyword!r}", where="-k", fix="give part of an id")
    moves = promote_results(
        chosen,
        settings.path("baselines"),
        PromotionTerms(reason=reason, accept=accept, allow_dirty=allow_dirty, add=add),
        timing=results[0].parent / "timing",
    )
    click.echo(render_moves([(move.case_id, move.before_ns, move.after_ns) for move in moves]))
