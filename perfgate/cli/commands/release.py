"""`perfgate release`: keep the baselines of a release."""

from typing import Any

import rich_click as click

from perfgate.cli.options import load, settings_options


@click.command()
@click.argument("tag")
@click.option("--replace", is_flag=True, help="Also where this anchor is there already.")
@settings_options("baselines")
def release(tag: str, replace: bool, **flags: Any) -> None:
    """Keep today's baselines aside as release TAG; `perfgate run --release TAG` compares with it.

    Each commit may lose less than is caught, and many of them add up: against a release they are seen.

    Example: perfgate release v1.2
    """
    from perfgate.gate.policy.releases import store_release

    for path in store_release(load(flags).path("baselines"), tag, replace=replace):
        click.echo(f"wrote {path}")
    click.echo(f"compare with it: perfgate run --release {tag}")
