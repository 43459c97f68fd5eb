"""Reading untrusted JSON within bounds, and writing files so that no reader sees half of one."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from perfgate.errors import DataError, InfrastructureError, OutputError, PerfgateError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")

RESULTS_LIMIT_BYTES = 64 << 20
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
BASELINE_LIMIT_BYTES = 8 << 20
TIMING_LIMIT_BYTES = 64 << 20
TEXT_LIMIT_BYTES = 1 << 20
STORE_FIX = "choose a writable folder with the setting store: PERFGATE_STORE, or store in [tool.perfgate]"


def read_bytes(path: Path, *, limit_bytes: int) -> bytes:
    """The whole file, at most `limit_bytes`. Raises `DataError` when it is larger or unreadable."""
    try:
        with path.open("rb") as source:
            data = source.read(limit_bytes + 1)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=path) from error
    if len(data) > limit_bytes:
        raise DataError(f"is larger than {limit_bytes >> 20} MiB and was not parsed", where=path)
    return data


def read_record(path: Path, kind: type[T], *, limit_bytes: int) -> T:
    """Decode a JSON file strictly as `kind`.

    Unknown and repeated keys, wrong types, NaN, truncation and absurd lengths raise `DataError` that names
    the file and the path inside it.
    """
    data = read_bytes(path, limit_bytes=limit_bytes)
    try:
        record = msgspec.json.decode(data, type=kind)
        refuse_repeated_keys(data)
        return record
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise DataError(
            f"is not a valid {kind.__name__}: {error}",
            where=path,
            fix="restore the file from git or make it anew; it is not meant to be edited by hand",
        ) from error


def refuse_repeated_keys(data: bytes) -> None:
    """Raises `ValueError` for JSON that has a key twice in one object.

    msgspec lets the last of two equal keys win, so that a reader of the text may see another value.
    """
    json.loads(data, object_pairs_hook=_refuse_repeated)


def _refuse_repeated(pairs: list[tuple[str, Any]]) -> None:
    seen = set()
    for key, _ in pairs:
        if key in seen:
            raise ValueError(f"the key {key!r} is there twice")
        seen.add(key)


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes, read in chunks."""
    hashed = hashlib.sha256()
    with path.open("rb") as source:
        while chunk := source.read(1 << 20):
            hashed.update(chunk)
    return hashed.hexdigest()


def record_json(record: object) -> str:
    """Canonical, reviewable JSON: sorted keys, one entry a line, a list of scalars on one line.

    Raises `ValueError` for NaN or infinity, which JSON cannot say.
    """
    return _format(msgspec.to_builtins(record), "") + "\n"


def _format(value: Any, indent: str) -> str:
    inner = indent + "  "
    if isinstance(value, dict) and value:
        rows = [f"{inner}{json.dumps(key)}: {_format(value[key], inner)}" for key in sorted(value)]
        # The schema opens every file, so that a reader knows what follows.
        rows.sort(key=lambda row: not row.startswith(f'{inner}"schema"'))
        return "{\n" + ",\n".join(rows) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        return "[\n" + ",\n".join(inner + _format(item, inner) for item in value) + f"\n{indent}]"
    return json.dumps(value, allow_nan=False, ensure_ascii=False)


def write_text(path: Path, text: str) -> None:
    """Write atomically: a temporary file in the same folder, flushed, then `os.replace`."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write atomically. Raises `OutputError`, or `InfrastructureError` when the disk is full."""
    write_chunks(path, (data,))


def write_chunks(path: Path, chunks: Iterable[bytes]) -> int:
    """Write atomically, one chunk at a time; returns how many. Raises as `write_bytes` does."""
    temporary, count = None, 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(descriptor, "wb") as sink:
            for chunk in chunks:
                sink.write(chunk)
                count += 1
            sink.flush()
            os.fsync(sink.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
        return count
    except BaseException as error:  # also an interrupt leaves no temporary file behind
        if temporary is not None:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
        if isinstance(error, OSError):
            raise write_error(path, error) from error
        raise


def check_writable(folder: Path, *, fix: str = "choose a writable folder with --out") -> None:
    """Fail before long work, not after it: raises what writing into `folder` would raise."""
    probe = folder / f".probe-{os.getpid()}"
    try:
        write_bytes(probe, b"")
    except PerfgateError as error:
        error.where = str(folder)
        if isinstance(error, OutputError):
            error.fix = fix
        raise
    probe.unlink(missing_ok=True)


def store_folder(path: Path) -> Path:
    """A folder of the store, made where it is not there. Raises as `write_error` does."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(path, error, fix=STORE_FIX) from error
    return path


@contextlib.contextmanager
def store_lock(home: Path) -> Iterator[None]:
    """A folder of the store, made where it is not there and held by this process alone. Raises as
    `write_error` does."""
    from filelock import FileLock

    lock = FileLock(store_folder(home) / "lock")
    try:
        lock.acquire()
    except OSError as error:
        raise write_error(home, error, fix=STORE_FIX) from error
    try:
        yield
    finally:
        lock.release()


def write_error(
    path: Path, error: OSError, *, fix: str = "choose a place that can be written to"
) -> PerfgateError:
    """The perfgate error for a write that failed; `fix` is the remedy, unless the disk is full."""
    if error.errno in FULL_DISK:
        return InfrastructureError(
            f"no space left on the device ({error.strerror})", where=path, fix="free some space, run again"
        )
    return OutputError(f"cannot be written: {error.strerror}", where=path, fix=fix)


def parse_toml(data: bytes) -> dict[str, Any]:
    """A TOML document. Raises `ValueError` for anything else, and `RecursionError` for one too deep."""
    table: dict[str, Any] = tomllib.loads(data.decode())
    return table


def toml_fix(error: Exception) -> str:
    """The remedy for a file that is not valid TOML: its parser names a line, or the end, or nothing."""
    said = str(error)
    if "at line" in said:
        return "correct the line it names"
    if "end of document" in said:
        return "the file ends too early: complete its last entry"
    if isinstance(error, UnicodeDecodeError):
        return "save the file as UTF-8 text"
    return "correct the file"
