"""`perfgate image …`: lock the container image by digest, and check the one that runs."""

import rich_click as click

from perfgate.cli.commands.image.lock import lock
from perfgate.cli.commands.image.verify import verify


@click.group(commands=[lock, verify])
def image() -> None:
    """The container image that measures: pinned by digest, with known versions."""
