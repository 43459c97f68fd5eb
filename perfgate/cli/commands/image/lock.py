"""`perfgate image lock`: lock the image by digest."""

import os
from pathlib import Path

import rich_click as click

from perfgate.cli.lookup import versions_here
from perfgate.errors import UsageError
from perfgate.image.lock import LOCK, check_tag, moved, read_lock, with_versions, write_lock


@click.command()
@click.argument("tag", required=False)
@click.option("--inside", is_flag=True, help="Record the versions of this very container instead.")
@click.option("--lock", "path", type=click.Path(path_type=Path), default=LOCK, show_default=True)
def lock(tag: str | None, inside: bool, path: Path) -> None:
    """Look up the digest of TAG at the registry, and write it to the lock.

    Then run `perfgate image lock --inside` in that image: it records the versions that are found there. A
    registry that wants a login gets NGC_API_KEY from the environment.

    Example: perfgate image lock 26.05-py3
    """
    from perfgate.image.registry import resolve_digest

    if (tag is None) != inside:
        raise UsageError("needs one of TAG and --inside", where="image lock")
    known = read_lock(path)
    if tag is None:
        known.reference()
        after = with_versions(known, versions_here())
        click.echo(", ".join(f"{name} {version}" for name, version in after.versions.items()))
    else:
        key = os.environ.get("NGC_API_KEY", "").strip()
        digest = resolve_digest(
            known.registry,
            known.repository,
            check_tag(tag),
            credentials=("$oauthtoken", key) if key else None,
        )
        after = moved(known, tag, digest)
        click.echo(str(after.reference()))
    write_lock(path, after)
