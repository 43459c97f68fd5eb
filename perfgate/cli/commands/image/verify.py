"""`perfgate image verify`: check the image that runs."""

from pathlib import Path

import rich_click as click
from click.exceptions import Exit

from perfgate.cli.lookup import versions_here
from perfgate.errors import UsageError
from perfgate.image.lock import LOCK, read_lock, version_faults
from perfgate.image.reference import NGC, check_registry, parse_reference


@click.command()
@click.option("--lock", "path", type=click.Path(path_type=Path), default=LOCK, show_default=True)
@click.option("--reference", help="Check this image's reference too, such as the job's container.")
@click.option("--allow", multiple=True, metavar="REGISTRY", help="A registry beside NGC; repeatable.")
@click.option("--reference-only", is_flag=True, help="Only the references, not what runs here.")
def verify(path: Path, reference: str | None, allow: tuple[str, ...], reference_only: bool) -> None:
    """Check that this is the locked image: pinned, from an allowed registry, with the locked versions.

    Exit code 2 for a reference that is floating or foreign, 3 where something else runs than was locked.

    Example: perfgate image verify --reference-only
    """
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
    faults = version_faults(known, versions_here())
    for fault in faults:
        click.echo(f"perfgate: error: {fault.field} is {fault.head}, locked is {fault.base}", err=True)
    if faults:
        raise Exit(3)
    click.echo(f"this is {locked}")
