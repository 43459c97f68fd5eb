"""`perfgate throughput`: measure a case on several streams."""

from typing import Any

import rich_click as click

from perfgate.cli.lookup import pipeline_of
from perfgate.cli.options import settings_options
from perfgate.errors import UsageError


@click.command()
@click.argument("case")
@click.option("--most", type=click.IntRange(1, 64), default=8, show_default=True, help="Streams at most.")
@click.option("--launches", type=int, help="Launches a number of streams.  [default: 5]")
@settings_options("models", "backend", "device")
@click.option("--mode", help="The mode that is spread over streams, such as graph+transfers.")
def throughput(case: str, most: int, **flags: Any) -> None:
    """Measure CASE on 1, 2, 4, … streams, and say at which its throughput is best. Judges nothing.

    Example: perfgate throughput resnet50/fp16/b8 --most 4
    """
    from perfgate.run.analysis.throughput import best, rate, stream_modes

    with pipeline_of(case, flags) as (pipeline, selected):
        spread = stream_modes(selected[1], most)
        if refused := next(filter(None, map(pipeline.backend.refuses, spread)), None):
            raise UsageError(refused, where=case, fix="--most 1, or a backend with streams")
        outcomes = pipeline.measure_modes(selected, [one.mode for one in spread])
    rates = [rate(outcome, one) for outcome, one in zip(outcomes, spread, strict=True)]
    click.echo("streams   queries/s     items/s")
    for one in rates:
        click.echo(f"{one.streams:7}  {one.queries_per_s:10,.0f}  {one.items_per_s:10,.0f}")
    click.echo(f"best: {best(rates).streams} streams, {best(rates).items_per_s:,.0f} items a second")
