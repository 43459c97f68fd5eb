"""`perfgate selftest`: launch a case against itself."""

from typing import Any

import rich_click as click

from perfgate.cli.lookup import pipeline_of
from perfgate.cli.options import settings_options
from perfgate.cli.text import show_power


@click.command()
@click.argument("case")
@click.option(
    "--minutes",
    type=click.FloatRange(0, 600),
    default=5.0,
    show_default=True,
    help="How long to launch.",
)
@click.option(
    "--rebuilds", type=click.IntRange(0, 20), default=2, show_default=True, help="Engines built again."
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@settings_options("models", "backend", "device")
def selftest(case: str, minutes: float, rebuilds: int, as_json: bool, **flags: Any) -> None:
    """Launch CASE against itself for some minutes: what this machine's noise lets the gate see.

    Reports real A/A gates with the exact bound on false alarms, rebuilt engines, the smallest slowdown that
    is caught in 95 % of gates, and the launches and tolerance that it suggests.

    Example: perfgate selftest resnet50/fp16/b8 --minutes 5
    """
    from perfgate.run.analysis.aa import AABudget, measure_noise
    from perfgate.util.files import record_json

    with pipeline_of(case, flags) as (pipeline, selected):
        found = measure_noise(pipeline, selected, AABudget(minutes=minutes, rebuilds=rebuilds))
    if as_json:
        click.echo(record_json(found), nl=False)
        return
    alike = found.alike
    click.echo(
        f"{found.case}: {found.launches} valid launches in {found.seconds:.0f} s, {found.invalid} invalid"
    )
    click.echo(
        f"  A/A      {alike.gates} gates, {alike.alarms} false alarms (95 % bound {alike.upper:.2%}), "
        f"{alike.improvements} false gains, {alike.undecided} undecided"
    )
    for one in found.rebuilds:
        bytes_ = "the same bytes" if one.same_bytes else "other bytes"
        click.echo(f"  rebuilt         {bytes_}, {one.ratio - 1:+.2%} over {one.launches} launches")
    show_power(found.power)
