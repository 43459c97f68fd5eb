"""What an exported engine is, for the service that runs it: `perfgate.metadata("resnet50.engine")`.

It reads the sidecar that `perfgate export` wrote and checks that it belongs to the engine's very bytes. The
engine is hashed, never deserialised: no GPU library is imported and no native code parses it.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from perfgate.engine.export import Sidecar
from perfgate.errors import DataError
from perfgate.util.files import TEXT_LIMIT_BYTES, file_digest, read_record


def metadata(engine: str | PathLike[str]) -> Sidecar:
    """The metadata of an exported engine, from `<engine>.json` beside it.

    Raises `DataError` when a file is missing or damaged, or the sidecar is another engine's.
    """
    path = Path(engine)
    sidecar = read_record(path.with_name(f"{path.name}.json"), Sidecar, limit_bytes=TEXT_LIMIT_BYTES)
    try:
        size = path.stat().st_size
        # The size is compared first: a truncated engine of many GiB need not be read to be refused.
        found = file_digest(path) if size == sidecar.engine_bytes else None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=path) from error
    if found != sidecar.engine_digest:
        what = f"is {size} bytes" if found is None else f"is {found[:12]}"
        raise DataError(
            f"{what}, but its sidecar describes another engine "
            f"({sidecar.engine_bytes} bytes, {sidecar.engine_digest[:12]})",
            where=path,
            fix="perfgate export writes both files together; deploy both",
        )
    return sidecar
