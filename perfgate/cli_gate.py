"""The commands about the gate itself: release anchors, what it can see, and this machine's own noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rich_click as click


@click.command()
@click.argument("tag")
@click.option("--replace", is_flag=True, help="Also where this anchor is there already.")
@click.option("--baselines", help="Folder of baselines.  [default: baselines]")
def anchor(tag: str, replace: bool, **flags: Any) -> None:
    """Keep today's baselines aside as release TAG; `perfgate run --anchor TAG` holds a tree against it.

    Each commit may lose less than is caught, and many of them add up: against a release they are seen.
    """
    from perfgate.gate.anchor import store_anchor
    from perfgate.settings import load_settings

    settings = load_settings(flags, start=Path.cwd())
    for path in store_anchor(settings.path("baselines"), tag, replace=replace):
        click.echo(f"wrote {path}")
    click.echo(f"compare with it: perfgate run --anchor {tag}")
