"""The fingerprint of a machine and toolchain: what must match, and what is only noted."""

from __future__ import annotations

import os
import platform
import re

from perfgate._version import __version__
from perfgate.engine.gpu import open_gpu
from perfgate.engine.host import cpu_count, cpu_name
from perfgate.engine.interface import Backend
from perfgate.errors import InfrastructureError
from perfgate.measure.nvml import describe
from perfgate.records import Difference, Environment

# Variables that change what a library computes or how fast; part of a case's digest where they are set.
MATTERING_VARIABLES = (
    "CUBLAS_WORKSPACE_CONFIG",
    "CUDA_DEVICE_MAX_CONNECTIONS",
    "CUDA_LAUNCH_BLOCKING",
    "CUDA_MODULE_LOADING",
    "CUDNN_LOGINFO_DBG",
    "GOMP_CPU_AFFINITY",
    "KMP_AFFINITY",
    "KMP_BLOCKTIME",
    "MKL_NUM_THREADS",
    "NVIDIA_TF32_OVERRIDE",
    "OMP_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "OPENBLAS_NUM_THREADS",
    "TORCHINDUCTOR_MAX_AUTOTUNE",
)


def fingerprint(backend: Backend, device: str = "auto", *, locked_mhz: int | None = None) -> Environment:
    """The environment of a backend on this machine; `device` is the setting that chose it, `locked_mhz` the
    clock that this run locks the GPU to."""
    versions = backend.versions()
    noted = {
        "python": platform.python_version(),
        "kernel": platform.release(),
        "perfgate": __version__,
        "cpu": cpu_name(),
        "cpus": str(cpu_count()),
    }
    key = dict(versions)
    image = os.environ.get("PERFGATE_IMAGE_DIGEST", "")
    if image:
        key["image"] = image
    if backend.kind == "cpu":
        key |= {"cpu": noted.pop("cpu"), "cpus": noted.pop("cpus")}
    else:
        key["gpu"] = backend.device()
        gpu_key, gpu_noted = _describe_gpu(device, locked_mhz)
        key |= gpu_key
        noted |= gpu_noted
    main = next(iter(versions))
    return Environment(
        device=slug(("cpu " if backend.kind == "cpu" else "") + backend.device()),
        toolchain=slug(f"{backend.name}-{versions[main]}"),
        key=key,
        noted=noted,
    )


def _describe_gpu(device: str, locked_mhz: int | None) -> tuple[dict[str, str], dict[str, str]]:
    """Key and noted fields from NVML. Where it does not answer, that is noted, and only the name is key."""
    try:
        with open_gpu(device) as opened:
            key, noted, unavailable = describe(opened, locked_mhz=locked_mhz)
    except InfrastructureError as error:
        return {}, {"nvml": error.what}
    return key, {**noted, **{name: f"unknown: {why}" for name, why in unavailable.items() if name not in key}}


def mattering_variables() -> dict[str, str]:
    """Those of `MATTERING_VARIABLES` that are set."""
    return {name: os.environ[name] for name in MATTERING_VARIABLES if name in os.environ}


def slug(text: str) -> str:
    """A folder's name: lower case letters, digits, dots and single dashes."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")


def differences(base: dict[str, str], head: dict[str, str]) -> tuple[Difference, ...]:
    """The fields that differ, sorted; a field that one side lacks reads `absent` there."""
    return tuple(
        Difference(field=name, base=base.get(name, "absent"), head=head.get(name, "absent"))
        for name in sorted(base.keys() | head.keys())
        if base.get(name) != head.get(name)
    )
