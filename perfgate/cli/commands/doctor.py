"""`perfgate doctor`: what this machine can do, and why not more."""

from typing import Any

import rich_click as click

from perfgate.cli.options import load, settings_options
from perfgate.errors import InfrastructureError


@click.command()
@settings_options("models", "baselines", "out", "backend", "device")
def doctor(**flags: Any) -> None:
    """Say what this machine can do, why not more, and the remedy.

    Example: perfgate doctor
    """
    from perfgate.engine import get_backend
    from perfgate.run.doctor import examine

    settings = load(flags)
    marks = {"ok": "✓", "note": "–", "broken": "✗"}
    for finding in examine(settings):
        click.echo(f"{marks[finding.state]} {finding.subject}: {finding.text}")
        if finding.remedy:
            click.echo(f"    remedy: {finding.remedy}")
    backend = get_backend(settings.backend, settings.device)
    if reason := backend.unavailable():
        raise InfrastructureError(f"no backend can run here: {reason}", fix="follow the remedies above")
    click.echo(f"Runs here: {backend.name} on {backend.device()}")
