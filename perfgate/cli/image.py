"""`perfgate image …`: lock the container image by digest, and check the one that runs."""

from __future__ import annotations

import os
from pathlib import Path

import rich_click as click
from click.exceptions import Exit

from perfgate.errors import PerfgateError, UsageError

LOCK = Path("docker/image.lock")


@click.group()
def image() -> None:
    """The container image that measures: pinned by digest, with known versions."""


@image.command()
@click.argument("tag", required=False)
@click.option("--inside", is_flag=True, help="Record the versions of this very container instead.")
@click.option("--lock", "path", type=click.Path(path_type=Path), default=LOCK, show_default=True)
def lock(tag: str | None, inside: bool, path: Path) -> None:
    """Look up the digest of TAG at the registry, and write it to the lock.

    Then run `perfgate image lock --inside` in that image: it records the versions that are found there. A
    registry that wants a login gets NGC_API_KEY from the environment.
    """
    from perfgate.image.lock import check_tag, moved, read_lock, with_versions, write_lock
    from perfgate.image.registry import resolve_digest

    if (tag is None) != inside:
        raise UsageError("needs one of TAG and --inside", where="image lock")
    known = read_lock(path)
    if tag is None:
        known.reference()
        after = with_versions(known, _versions())
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


@image.command()
@click.option("--lock", "path", type=click.Path(path_type=Path), default=LOCK, show_default=True)
@click.option("--reference", help="Check this image's reference too, such as the job's container.")
@click.option("--allow", multiple=True, metavar="REGISTRY", help="A registry beside NGC; repeatable.")
@click.option("--reference-only", is_flag=True, help="Only the references, not what runs here.")
def verify(path: Path, reference: str | None, allow: tuple[str, ...], reference_only: bool) -> None:
    """Check that this is the locked image: pinned, from an allowed registry, with the locked versions.

    Exit code 2 for a reference that is floating or foreign, 3 where something else runs than was locked.
    """
    from perfgate.image.lock import read_lock, version_faults
    from perfgate.image.reference import NGC, check_registry, parse_reference

    known = read_lock(path)
    allowed = (NGC, *allow)
    locked = known.reference()
    check_registry(locked, allowed)
    if reference is not None:
        check_registry(parse_reference(reference, where="--reference"), allowed)
    if reference_only:
        click.echo(f"pinned: {reference or locked}")
        return
    if not known.versions:
        raise UsageError(
            "has no versions", where=path, fix="perfgate image lock --inside, in the image it names"
        )
    faults = version_faults(known, _versions())
    for fault in faults:
        click.echo(f"perfgate: error: {fault.field} is {fault.head}, locked is {fault.base}", err=True)
    if faults:
        raise Exit(3)
    click.echo(f"this is {locked}")


def _versions() -> dict[str, str]:
    """What runs here; a library that is not there has no entry."""
    from perfgate.engine import get_backend
    from perfgate.image.pins import found_versions

    try:
        found = get_backend("tensorrt", "auto").versions()
    except PerfgateError:
        found = {}
    return found_versions(found)
