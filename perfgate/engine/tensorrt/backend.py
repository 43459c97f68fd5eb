"""TensorRT 8.5 to 11, and TensorRT for RTX: the backend as the rest of perfgate sees it.

The work is in the modules beside this one: `build` (parse, configure, build), `options` (trtexec's option
names), `facts` and `inspect` (what an engine is), `run`, `stream` and `cuda` (measuring).
Importing this imports no GPU library.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from perfgate.engine.gpu import choose, compute_capability, device_name
from perfgate.engine.interface import Axes, Backend, BuildRequest, LayerTimes, Runner, modes_of_one_stream
from perfgate.engine.tensorrt.api import MODULES, load_api
from perfgate.engine.tensorrt.inspect import Layers
from perfgate.errors import InfrastructureError
from perfgate.records import Case, EngineFacts, Mode, Tensor

if TYPE_CHECKING:
    import numpy as np

_MAX_STREAMS = 64
_RTX_CAPABILITIES = ((7, 5), (8, 6), (8, 9))  # and all of 12.x


class TensorRTBackend(Backend):
    """One code path for all versions; `name` is `tensorrt` or `tensorrt-rtx`.

    `device` is `auto`, or the index or UUID of a GPU. `build` and `load` start CUDA and so belong in
    child processes; nothing else here does.
    """

    def __init__(self, device: str = "auto", *, name: str = "tensorrt") -> None:
        self.name = name
        self._module = MODULES[name]
        self._device = device

    def unavailable(self) -> str | None:
        if self._device == "cpu":
            return "TensorRT runs on NVIDIA GPUs only, and the device asked for is the CPU"
        for module in (self._module, "pycuda"):
            if importlib.util.find_spec(module) is None:
                return f"the Python module {module} is not installed; pip install 'perfgate[tensorrt]'"
        try:
            load_api(self.name)
        except InfrastructureError as error:
            return error.what
        except Exception as error:
            return f"TensorRT cannot be used here: {error}"
        found = device_name(self._device)
        if not found:
            return "no NVIDIA GPU is visible (nvidia-smi and NVML show none)"
        capability = compute_capability(self._device) if self.name == "tensorrt-rtx" else None
        if capability is not None and capability not in _RTX_CAPABILITIES and capability[0] < 12:
            number = ".".join(map(str, capability))
            return f"TensorRT for RTX does not run on {found} (compute capability {number})"
        return None

    @property
    def kind(self) -> str:
        return "gpu"

    def versions(self) -> dict[str, str]:
        """The version of TensorRT as the module itself says. Raises `InfrastructureError` without it."""
        return {self.name: str(load_api(self.name).trt.__version__)}

    def modes(self) -> tuple[Mode, ...]:
        """All modes on one stream, trtexec 11's default first; each is also measured on 2 to 64 streams."""
        return modes_of_one_stream("graph", "enqueue")

    def build_options(self, source_digest: str = "") -> dict[str, str | int | float | bool]:
        """Nothing: TensorRT's defaults are the machine's own, and the device is a field of the recipe."""
        return {}

    def typing(self) -> Literal["weak", "strong"]:
        api = load_api(self.name)
        return "weak" if api.version < (10,) and not api.rtx else "strong"

    def device(self) -> str:
        """The GPU's name, read without a CUDA context. Raises `InfrastructureError` where there is none."""
        if found := device_name(self._device):
            return found
        raise InfrastructureError("no NVIDIA GPU is visible", fix="check nvidia-smi and CUDA_VISIBLE_DEVICES")

    def refuses(self, case: Case) -> str | None:
        if case.mode.drive == "call":
            return "TensorRT is measured in the modes 'graph' and 'enqueue', not as a blocking call"
        if case.mode.streams > _MAX_STREAMS:
            return f"TensorRT is measured on at most {_MAX_STREAMS} streams"
        if case.mode.drive == "graph" and not _has_graphs():
            return "CUDA graphs need the package cuda-bindings; pip install 'perfgate[tensorrt]'"
        return None

    def build(self, request: BuildRequest) -> EngineFacts:
        """Build, serialise and inspect. `timing_cache` is loaded where given and written to
        `timing_cache_out`. Raises `CaseError`, or `InfrastructureError` for the machine's faults."""
        from perfgate.engine.tensorrt.build import build_engine

        choose(self._device)
        return build_engine(load_api(self.name), request)

    def inspect(self, request: BuildRequest) -> EngineFacts:
        """Layers, precision and memory of an engine that was built elsewhere.

        Starts CUDA. Raises `CaseError`.
        """
        from perfgate.engine.tensorrt.facts import prebuilt_facts

        choose(self._device)
        return prebuilt_facts(load_api(self.name), request)

    def layers(self, engine: Path) -> Layers:
        """The layers of a built engine, for explaining a difference. Starts CUDA; raises `CaseError`."""
        from perfgate.engine.tensorrt.facts import inspect_engine

        choose(self._device)
        return inspect_engine(load_api(self.name), engine.read_bytes(), engine, [])[0]

    def load(self, engine: Path, case: Case, axes: Axes | None = None) -> Runner:
        """Deserialise, allocate, and capture the graphs where the mode is `graph`.

        Raises `CaseError`, `GraphCaptureError` among them, and `InfrastructureError` without a GPU.
        """
        from perfgate.engine.tensorrt.run import TensorRTRunner

        choose(self._device)
        return TensorRTRunner(load_api(self.name), engine, case, axes or {})

    def profile(
        self,
        engine: Path,
        case: Case,
        make: Callable[[Tensor], np.ndarray],
        *,
        queries: int,
        axes: Axes | None = None,
    ) -> LayerTimes:
        """TensorRT's `IProfiler` on enqueued queries. Raises `CaseError`."""
        from perfgate.engine.tensorrt.run import profile_engine

        choose(self._device)
        load = functools.partial(self.load, axes=axes)
        return profile_engine(load_api(self.name), load, engine, case, make, queries)


def _has_graphs() -> bool:
    try:
        return importlib.util.find_spec("cuda.bindings.driver") is not None
    except ImportError:  # the parent package is not there
        return False
