"""What an exported engine is, for the service that runs it: `perfgate.engine.metadata("resnet50.engine")`.

It reads the sidecar that `perfgate export` wrote and checks that it belongs to the engine's very bytes. The
engine is hashed, never deserialised: no GPU library is imported and no native code parses it.
"""

from __future__ import annotations

import sys
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import Final

from perfgate.engine.export import SIDECAR_SCHEMA, Sidecar
from perfgate.errors import DataError
from perfgate.records import Commit, Dimension, Facts, Name, Precision, Record, Share, Text, Verdict
from perfgate.util.files import TEXT_LIMIT_BYTES, file_digest, read_record

__all__ = ["SIDECAR_SCHEMA", "EngineMetadata", "metadata"]
_SHORT: Final = 12


class EngineMetadata(Record, kw_only=True):
    """An engine's identity and what the gate said of it. `shape` was measured, `profile` is what it takes.

    `version` names the build in a few characters: the commit, marked where its tree was dirty, or the
    engine's own digest where there was no commit. `versions` are the libraries that built it.
    """

    version: Name
    case: Name
    verdict: Verdict
    precision_asked: Precision
    precision_realised: dict[Name, Share] = {}
    shape: dict[Name, int] = {}
    profile: dict[Name, Dimension] = {}
    mode: Text
    device: Name
    versions: Facts
    engine_digest: str
    engine_bytes: int
    onnx_digest: str
    recipe_digest: str
    case_digest: str
    commit: Commit
    run_id: Name
    created: Name

    def labels(self) -> dict[str, str]:
        """The identity as flat text: the labels of an info metric, or the fields of a log line."""
        return {
            "version": self.version,
            "case": self.case,
            "verdict": self.verdict.value,
            "precision": self.precision_asked,
            "shape": ",".join(f"{name}={size}" for name, size in sorted(self.shape.items())),
            "device": self.device,
            "engine_digest": self.engine_digest,
        }


def metadata(engine: str | PathLike[str]) -> EngineMetadata:
    """The metadata of an exported engine, from `<engine>.json` beside it.

    Raises `DataError` when a file is missing or damaged, or the sidecar is another engine's.
    """
    path = Path(engine)
    beside = path.with_name(f"{path.name}.json")
    sidecar = read_record(beside, Sidecar, limit_bytes=TEXT_LIMIT_BYTES)
    try:
        size = path.stat().st_size
        # The size is compared first: a truncated engine of many GiB need not be read to be refused.
        found = file_digest(path) if size == sidecar.engine_bytes else None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=path) from error
    if found != sidecar.engine_digest:
        what = f"is {size} bytes" if found is None else f"is {found[:_SHORT]}"
        said = f"{sidecar.engine_bytes} bytes, {sidecar.engine_digest[:_SHORT]}"
        raise DataError(
            f"{what}, but its sidecar describes another engine ({said})",
            where=path,
            fix="perfgate export writes both files together; deploy both",
        )
    return _metadata(sidecar)


def _metadata(sidecar: Sidecar) -> EngineMetadata:
    commit = sidecar.commit
    version = commit.sha[:_SHORT] + ("+dirty" if commit.dirty else "") if commit.sha else ""
    shared = set(EngineMetadata.__struct_fields__) & set(Sidecar.__struct_fields__)
    fields = {name: getattr(sidecar, name) for name in shared}
    return EngineMetadata(version=version or f"engine-{sidecar.engine_digest[:_SHORT]}", **fields)


class _Callable(ModuleType):
    """Importing a submodule binds it to its name in the package: without this, `perfgate.engine.metadata(path)`
    would work or fail by what else was imported before."""

    def __call__(self, engine: str | PathLike[str]) -> EngineMetadata:
        return metadata(engine)


sys.modules[__name__].__class__ = _Callable
