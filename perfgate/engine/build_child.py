"""The child process that builds one engine: `python -m perfgate.engine.build_child REQUEST REPLY`."""

from __future__ import annotations

from perfgate.children import serve
from perfgate.engine import get_backend
from perfgate.engine.interface import BuildRequest
from perfgate.records import EngineFacts


def build(request: BuildRequest) -> EngineFacts:
    return get_backend(request.backend, request.device).build(request)


if __name__ == "__main__":
    serve(BuildRequest, build)
