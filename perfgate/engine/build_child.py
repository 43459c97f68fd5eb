"""The child process that builds one engine: `python -m perfgate.engine.build_child REQUEST REPLY`."""

from __future__ import annotations

import os

from perfgate.children import serve
from perfgate.engine import get_backend
from perfgate.engine.interface import BuildRequest
from perfgate.records import EngineFacts


def build(request: BuildRequest) -> EngineFacts:
    # A builder brings 1.6 GB of kernels and runs few; before CUDA 12.2 all are loaded when it starts.
    os.environ.setdefault("CUDA_MODULE_LOADING", "LAZY")
    return get_backend(request.backend, request.device).build(request)


if __name__ == "__main__":
    serve(BuildRequest, build)
