"""A model's plugin libraries: they lie beside its engine, by digest, wherever the engine goes.

An engine loads only once its plugins are there. Which it needs stands inside it, by SHA-256; the files are
in the folder `plugins` beside it, so that it can be cached, exported and launched without the model's folder.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from perfgate.errors import CaseError
from perfgate.util.files import file_digest, write_bytes

FOLDER = "plugins"


def place(engine: Path, plugins: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """Copy libraries, given as (SHA-256, path), beside the engine; their paths there. Raises `CaseError` for
    one that is no longer what its digest says."""
    for digest, path in plugins:
        data = Path(path).read_bytes()
        if hashlib.sha256(data).hexdigest() != digest:
            raise CaseError(f"the plugin library {path} changed while it was used", fix="run again")
        write_bytes(_path(engine, digest), data)
    return tuple(str(_path(engine, digest).resolve()) for digest, _ in plugins)


def beside(engine: Path, digests: Sequence[str]) -> tuple[str, ...]:
    """The paths of the libraries that an engine needs. Raises `CaseError` for one that is not there, or is
    another file."""
    found = []
    for digest in digests:
        path = _path(engine, digest)
        if not path.is_file() or file_digest(path) != digest:
            raise CaseError(
                f"the plugin library {digest[:12]}… is not beside the engine",
                fix=f"put it at {path}, which is where a build and an export leave it",
            )
        found.append(str(path.resolve()))
    return tuple(found)


def move(source: Path, target: Path) -> None:
    """Take the libraries from beside one engine to beside another that is in the same file system."""
    shutil.rmtree(target.parent / FOLDER, ignore_errors=True)
    if (source.parent / FOLDER).is_dir():
        (source.parent / FOLDER).replace(target.parent / FOLDER)


def _path(engine: Path, digest: str) -> Path:
    return engine.parent / FOLDER / f"{digest}.so"
