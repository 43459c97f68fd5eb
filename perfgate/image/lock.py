"""`docker/image.lock`: which image, by digest, and the versions that were found inside it, held against what
runs here."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

from msgspec import Meta
from msgspec.structs import replace

from perfgate.errors import DataError, RefusedError
from perfgate.image.reference import Reference, parse_reference
from perfgate.records import Difference, Facts, Name, Record
from perfgate.util.files import TEXT_LIMIT_BYTES, read_record, record_json, write_text

LOCK = Path("docker") / "image.lock"
VERSIONS: Final = ("tensorrt", "cuda", "python")


class ImageLock(Record, kw_only=True):
    """An empty `digest` or `versions` is one that nobody has looked up yet: `verify` refuses it."""

    schema: Literal["perfgate-trt/image/v1"]
    registry: Name
    repository: Name
    tag: Name
    digest: Annotated[str, Meta(pattern=r"^(sha256:[0-9a-f]{64})?$")] = ""
    versions: Facts = {}

    def reference(self) -> Reference:
        """Raises `RefusedError` while no digest is known."""
        if not self.digest:
            raise RefusedError(
                f"has no digest for {self.registry}/{self.repository}:{self.tag}",
                where="docker/image.lock",
                fix=f"perfgate image lock {self.tag}, where the registry can be reached",
            )
        text = f"{self.registry}/{self.repository}:{self.tag}@{self.digest}"
        return parse_reference(text, where="docker/image.lock")


def read_lock(path: Path) -> ImageLock:
    """Raises `DataError`."""
    return read_record(path, ImageLock, limit_bytes=TEXT_LIMIT_BYTES)


def write_lock(path: Path, lock: ImageLock) -> None:
    """Every field is written, the empty ones too: a reader sees what is not known."""
    write_text(path, record_json({name: getattr(lock, name) for name in lock.__struct_fields__}))


def moved(lock: ImageLock, tag: str, digest: str) -> ImageLock:
    """The lock of another digest; versions belong to a digest, and go with it."""
    kept = lock.versions if digest == lock.digest else {}
    return replace(lock, tag=tag, digest=digest, versions=kept)


def with_versions(lock: ImageLock, found: dict[str, str]) -> ImageLock:
    """The lock with what runs here. Raises `DataError` where something could not be found out."""
    if absent := [name for name in VERSIONS if not found.get(name)]:
        raise DataError(f"runs no {absent[0]} whose version can be read", where="this machine")
    return replace(lock, versions={name: found[name] for name in VERSIONS})


def version_faults(lock: ImageLock, found: dict[str, str]) -> list[Difference]:
    """Where what runs here is not what is locked."""
    return [
        Difference(field=name, base=lock.versions.get(name, "unknown"), head=found.get(name, "absent"))
        for name in VERSIONS
        if lock.versions.get(name) != found.get(name)
    ]


def check_tag(tag: str) -> str:
    """Raises `DataError` for what no registry takes for a tag, and for `latest`."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", tag) or tag == "latest":
        raise DataError(f"is not a tag that says what it is: {tag[:200]!r}", where="TAG", fix="26.05-py3")
    return tag


def found_versions(backend: Mapping[str, str]) -> dict[str, str]:
    """The versions of a TensorRT backend as the lock names them; a library that is not there has no entry."""
    known = {
        "tensorrt": backend.get("tensorrt", ""),
        "cuda": os.environ.get("CUDA_VERSION", ""),  # NVIDIA's images set it
        "python": platform.python_version(),
    }
    return {name: version for name, version in known.items() if version}


def pin_faults(root: Path, backend: Mapping[str, str]) -> list[Difference]:
    """Where what runs here is not what the project pins; nothing where it pins nothing, or TensorRT is not
    what runs. Raises `DataError` for a damaged lock."""
    if not (root / LOCK).is_file() or "tensorrt" not in backend:
        return []
    lock = read_lock(root / LOCK)
    return version_faults(lock, found_versions(backend)) if lock.versions else []
