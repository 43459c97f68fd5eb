"""The timing cache of a TensorRT build: loading it, and what the build added to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from perfgate.engine._trt_api import Api, first_error
from perfgate.engine.interface import BuildRequest


def load_timing_cache(
    api: Api, config: Any, request: BuildRequest, logger: Any
) -> tuple[Any, bytes, list[str]]:
    """The cache in use, the bytes that it was loaded from (empty for a fresh one), and notes."""
    loaded = Path(request.timing_cache).read_bytes() if request.timing_cache else b""
    editable = api.member("BuilderFlag", "EDITABLE_TIMING_CACHE")
    if editable is not None and not api.rtx:
        config.set_flag(editable)  # its keys can be listed, so hits and misses are known
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


def cache_growth(cache: Any, loaded: bytes, after: bytes) -> str:
    grown = f"timing cache: loaded {len(loaded)} bytes, grew by {len(after) - len(loaded)}"
    if not hasattr(cache, "queryKeys"):
        return f"{grown}; hits unknown in this version"
    try:
        return f"{grown}; {len(cache.queryKeys())} keys"
    except RuntimeError:
        return f"{grown}; its keys cannot be listed"
