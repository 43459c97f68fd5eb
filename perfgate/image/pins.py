"""What a project pins in `docker/image.lock`, held against what runs here."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path

from perfgate.image.lock import read_lock, version_faults
from perfgate.records import Difference

LOCK = Path("docker") / "image.lock"


def found_versions(backend: Mapping[str, str]) -> dict[str, str]:
    """The versions of a TensorRT backend as the lock names them; a library that is not there has no entry."""
    known = {
        "tensorrt": backend.get("tensorrt", ""),
        "cuda": os.environ.get("CUDA_VERSION", ""),  # NVIDIA's images set it
        "python": platform.python_version(),
    }
    return {name: version for name, version in known.items() if version}


def pin_faults(root: Path, backend: Mapping[str, str]) -> list[Difference]:
    """Where what runs here is not what the project pins; nothing where it pins nothing, or TensorRT is not
    what runs. Raises `DataError` for a damaged lock."""
    if not (root / LOCK).is_file() or "tensorrt" not in backend:
        return []
    lock = read_lock(root / LOCK)
    return version_faults(lock, found_versions(backend)) if lock.versions else []
