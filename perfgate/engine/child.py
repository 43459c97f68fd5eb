"""The child process that builds one engine: `python -m perfgate.engine.child REQUEST REPLY`."""

from __future__ import annotations

from perfgate.engine import get_backend
from perfgate.engine.interface import BuildRequest
from perfgate.records import EngineFacts
from perfgate.util.process import serve


def build(request: BuildRequest) -> EngineFacts:
    return get_backend(request.backend, request.device).build(request)


if __name__ == "__main__":
    serve(BuildRequest, build)
