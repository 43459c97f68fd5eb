"""Release anchors: a release's baselines kept aside, so that many small losses cannot slip by one by one."""

from __future__ import annotations

import re
from pathlib import Path

from perfgate.errors import RefusedError, UsageError
from perfgate.gate.baselines import read_baseline
from perfgate.util.files import BASELINE_LIMIT_BYTES, TIMING_LIMIT_BYTES, read_bytes, write_bytes

# The folder of all anchors, beside the baselines of the devices.
ANCHORS = "anchors"
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def release_path(baselines: Path, tag: str) -> Path:
    """Where an anchor is kept. Raises `UsageError` for a name that cannot name a folder."""
    if not _TAG.fullmatch(tag):
        raise UsageError(f"{tag!r} cannot name an anchor", fix="letters, digits, dots and dashes: v1.2.0")
    return baselines / ANCHORS / tag


def store_release(baselines: Path, tag: str, *, replace: bool = False) -> list[Path]:
    """Copy every baseline with its timing caches into the anchor; returns the baselines' new paths.

    Raises `RefusedError` for an anchor that is there, unless it is to `replace`, and where nothing is stored;
    `DataError` for a baseline that cannot be read. Nothing is written then.
    """
    target = release_path(baselines, tag)
    if target.exists() and not replace:
        raise RefusedError("is there already", where=target, fix="another tag, or --replace")
    files = sorted(path for path in baselines.glob("*/*/*") if path.suffix in (".json", ".timing"))
    copies: dict[Path, bytes] = {}
    for path in files:
        if path.suffix == ".json":
            read_baseline(path)
        limit = BASELINE_LIMIT_BYTES if path.suffix == ".json" else TIMING_LIMIT_BYTES
        copies[target / path.relative_to(baselines)] = read_bytes(path, limit_bytes=limit)
    if not any(path.suffix == ".json" for path in copies):
        raise RefusedError("holds no baseline", where=baselines, fix="perfgate promote first")
    gone = [path for path in target.glob("*/*/*") if path.is_file() and path not in copies]
    for path, data in copies.items():
        write_bytes(path, data)
    for path in gone:
        path.unlink()
    return [path for path in copies if path.suffix == ".json"]


def find_release(baselines: Path, tag: str) -> Path:
    """The folder of a stored anchor. Raises `UsageError` that names those there are."""
    found = release_path(baselines, tag)
    if not found.is_dir():
        known = sorted(path.name for path in (baselines / ANCHORS).glob("*") if path.is_dir())
        raise UsageError(
            f"no such anchor: {tag}",
            where=found.parent,
            fix=f"one of: {', '.join(known) or 'none stored yet'}",
        )
    return found
