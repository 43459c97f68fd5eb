"""The timing cache of a TensorRT build: loading it, and what the build added to it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perfgate.engine.interface import BuildRequest
from perfgate.engine.tensorrt.api import Api, first_error
from perfgate.records import TimingKeys


def load_timing_cache(
    api: Api, config: Any, request: BuildRequest, logger: Any
) -> tuple[Any, bytes, list[str]]:
    """The cache in use, the bytes that it was loaded from (empty for a fresh one), and notes."""
    loaded = Path(request.timing_cache).read_bytes() if request.timing_cache else b""
    editable = api.member("BuilderFlag", "EDITABLE_TIMING_CACHE")
    if editable is not None and not api.rtx:
        config.set_flag(editable)  # its keys can be listed, so misses are known
    if loaded:
        cache = config.create_timing_cache(loaded)
        if cache is not None and config.set_timing_cache(cache, False):
            return cache, loaded, []
        why = first_error(logger)
    cache = config.create_timing_cache(b"")
    if cache is None or not config.set_timing_cache(cache, False):
        raise api.lacks("a timing cache", first_error(logger))
    notes = [f"the timing cache was refused, so every tactic was timed anew: {why}"] if loaded else []
    return cache, b"", notes


def tactics(cache: Any) -> dict[str, int] | None:
    """The hash of the chosen tactic by key; None where this version lists no keys (before TensorRT 10.8, or
    without the flag EDITABLE_TIMING_CACHE)."""
    if not hasattr(cache, "queryKeys"):
        return None
    try:
        return {str(key): int(cache.query(key).tacticHash) for key in cache.queryKeys()}
    except RuntimeError:
        return None


def timing_keys(before: Mapping[str, int] | None, after: Mapping[str, int] | None) -> TimingKeys | None:
    """What a build did to its timing cache; None where a side's keys are unknown, or none are listed."""
    if before is None or not after:
        return None
    return TimingKeys(
        loaded=len(before),
        added=len(after.keys() - before.keys()),
        changed=sum(after.get(key, tactic) != tactic for key, tactic in before.items()),
    )


def cache_growth(loaded_bytes: int, after_bytes: int, keys: TimingKeys | None) -> str:
    """The growth in words."""
    grown = f"timing cache: loaded {loaded_bytes} bytes, grew by {after_bytes - loaded_bytes}"
    if keys is None:
        return f"{grown}; hits unknown in this version"
    return f"{grown}; {keys.loaded} keys loaded, {keys.added} added, {keys.changed} with another tactic"
