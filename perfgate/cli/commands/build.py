"""`perfgate build`: build the engine of a case."""

from typing import Any

import rich_click as click

from perfgate.cli.lookup import pipeline_of
from perfgate.cli.options import settings_options


@click.command()
@click.argument("case")
@settings_options("models", "backend", "device")
def build(case: str, **flags: Any) -> None:
    """Build the engine of CASE, with the baseline's timing cache where there is one.

    Example: perfgate build resnet50/fp16/b8
    """
    with pipeline_of(case, flags) as (pipeline, selected):
        engine, facts, _ = pipeline.build(selected)
    state = "from the cache" if facts.cached else f"built in {facts.build_ns / 1e9:.1f} s"
    click.echo(f"{case}: {state}")
    click.echo(f"  engine    {engine}")
    click.echo(f"  sha-256   {facts.digest}")
    click.echo(f"  size      {facts.engine_bytes / (1 << 20):.1f} MiB, {facts.layers} layers")
    shares = ", ".join(f"{name} {share:.0%}" for name, share in facts.precision_share.items())
    click.echo(f"  precision {shares or 'unknown'}")
    for note in facts.notes:
        click.echo(f"  note      {note}")
