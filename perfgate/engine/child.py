"""The child process `python -m perfgate.engine.child REQUEST REPLY`: it builds an engine, or says what one is
that was built elsewhere."""

from __future__ import annotations

from pathlib import Path

import msgspec

from perfgate.engine import get_backend
from perfgate.engine.interface import BuildRequest
from perfgate.records import EngineFacts
from perfgate.util.process import call_child, serve


def prebuilt_engine(request: BuildRequest, engine: Path, *, timeout_s: float) -> tuple[Path, EngineFacts]:
    """An engine that was built elsewhere with its facts, as far as the request's backend can tell them.

    Raises `CaseError` when it does not load, crashes the child or exceeds `timeout_s`.
    """
    asked = msgspec.structs.replace(request, engine=str(engine.resolve()), prebuilt=True)
    return engine, call_child("perfgate.engine.child", asked, EngineFacts, timeout_s=timeout_s)


def _work(request: BuildRequest) -> EngineFacts:
    backend = get_backend(request.backend, request.device)
    return backend.inspect(request) if request.prebuilt else backend.build(request)


if __name__ == "__main__":
    serve(BuildRequest, _work)
