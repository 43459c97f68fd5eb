"""Image references: `registry/repository[:tag]@sha256:…`. A tag alone names another image tomorrow."""

from __future__ import annotations

import re
from collections.abc import Sequence

from perfgate.errors import UsageError
from perfgate.records import Record

NGC = "nvcr.io"
_HOST = r"(?P<registry>[a-z0-9](?:[a-z0-9.-]{0,250}[a-z0-9])?(?::[0-9]{1,5})?)"
_NAME = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
_REPOSITORY = rf"(?P<repository>{_NAME}(?:/{_NAME})*)"
_REFERENCE = re.compile(
    rf"{_HOST}/{_REPOSITORY}(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{{0,127}}))?@(?P<digest>sha256:[0-9a-f]{{64}})"
)


class Reference(Record):
    """A pinned image."""

    registry: str
    repository: str
    tag: str
    digest: str

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.registry}/{self.repository}{tag}@{self.digest}"


def parse_reference(text: str, *, where: str) -> Reference:
    """Raises `UsageError` for a floating tag, for a name without a registry, and for anything else."""
    found = _REFERENCE.fullmatch(text)
    if found is None:
        floating = text and "@" not in text
        raise UsageError(
            f"{text[:300]!r} is not pinned: a tag can be moved"
            if floating
            else "is not registry/name@sha256:…",
            where=where,
            fix="name the image by its digest: registry/name:tag@sha256:<64 digits>",
        )
    return Reference(
        registry=found["registry"],
        repository=found["repository"],
        tag=found["tag"] or "",
        digest=found["digest"],
    )


def check_registry(reference: Reference, allowed: Sequence[str]) -> None:
    """Raises `UsageError` for a foreign registry. An entry is a host, or a host with the path below it."""
    name = f"{reference.registry}/{reference.repository}"
    if any(name == entry or name.startswith(f"{entry.rstrip('/')}/") for entry in allowed):
        return
    raise UsageError(
        f"{name} is not from a registry that is allowed: {', '.join(allowed)}",
        where="image",
        fix=f"--allow {reference.registry}, if you trust whoever can push there",
    )
