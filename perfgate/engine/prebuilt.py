"""An engine that was built elsewhere: what it is, found out in a child process.

The child is `python -m perfgate.engine.prebuilt REQUEST REPLY`.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from perfgate.engine import get_backend
from perfgate.engine.interface import BuildRequest
from perfgate.records import EngineFacts
from perfgate.util.process import call_child, serve


def prebuilt_engine(request: BuildRequest, engine: Path, *, timeout_s: float) -> tuple[Path, EngineFacts]:
    """The engine with its facts, as far as the request's backend can tell them.

    Raises `CaseError` when it does not load, crashes the child or exceeds `timeout_s`.
    """
    asked = msgspec.structs.replace(request, engine=str(engine.resolve()))
    return engine, call_child("perfgate.engine.prebuilt", asked, EngineFacts, timeout_s=timeout_s)


def _inspect(request: BuildRequest) -> EngineFacts:
    return get_backend(request.backend, request.device).inspect(request)


if __name__ == "__main__":
    serve(BuildRequest, _inspect)
