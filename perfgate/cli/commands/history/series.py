"""`perfgate history series`: print a metric of a case over all runs."""

import rich_click as click

from perfgate.cli.lookup import open_history
from perfgate.cli.options import database_option, settings_options
from perfgate.cli.text import print_table
from perfgate.errors import UsageError


@click.command()
@click.argument("case")
@click.option("--metric", default="latency_ns", show_default=True, help="One of the launches' metrics.")
@settings_options("device")
@click.option("--toolchain", help="Only runs with this toolchain, such as tensorrt-10.13.")
@click.option("--since", help="Only runs from this day on, such as 2026-01-31.")
@click.option("--branch", help="Only runs of this branch.")
@database_option
def series(
    case: str,
    metric: str,
    device: str | None,
    toolchain: str | None,
    since: str | None,
    branch: str | None,
    database: str | None,
) -> None:
    """Print a metric of CASE over all its runs, oldest first: one line a run, in the metric's own unit.

    Example: perfgate history series resnet50/fp16/b8 --since 2026-01-31
    """
    with open_history(database, must_exist=True) as store:
        points = store.series(case, metric, device=device, toolchain=toolchain, since=since, branch=branch)
    if not points:
        raise UsageError(f"no run measured {case!r}", where="series", fix="perfgate history show RUN has ids")
    table = [("CREATED", "RUN", "COMMIT", "VERDICT", metric.upper(), "LAUNCHES")]
    table += [
        (one.created, one.run_id, one.commit[:10], one.verdict, f"{one.value:.10g}", str(len(one.values)))
        for one in points
    ]
    print_table(table)
