"""ONNX Runtime on its CPU and CUDA providers.

An engine is the model as ONNX Runtime optimised and serialised it. Loading it runs no optimiser again.
"""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perfgate.engine.gpu import choose, device_name
from perfgate.engine.host import cpu_count, cpu_name
from perfgate.engine.interface import (
    Axes,
    Backend,
    BuildRequest,
    LayerTimes,
    Runner,
    Samples,
    blocking_samples,
    named,
)
from perfgate.engine.onnxruntime.layers import profile_nodes, read_ort_layers
from perfgate.engine.tensorrt.inspect import pack_layers, shares
from perfgate.errors import CaseError
from perfgate.records import Case, EngineFacts, Mode, Protocol, Tensor, Tf32
from perfgate.util.files import file_digest

if TYPE_CHECKING:
    import numpy as np

_PROVIDERS = {"cpu": "CPUExecutionProvider", "gpu": "CUDAExecutionProvider"}
_ERROR_ONLY = 3


class OnnxRuntimeBackend(Backend):
    """ONNX Runtime; on the GPU where its CUDA provider is there and the device is not `cpu`."""

    name = "onnxruntime"

    def __init__(self, device: str = "auto") -> None:
        self._device = device

    def unavailable(self) -> str | None:
        try:
            import onnxruntime
        except ImportError as error:
            return f"onnxruntime cannot be imported ({error}); pip install 'perfgate[cpu]' or 'perfgate[gpu]'"
        wanted = _PROVIDERS["cpu" if self._device in ("auto", "cpu") else "gpu"]
        if wanted not in onnxruntime.get_available_providers():
            return f"this onnxruntime has no {wanted}; pip install 'perfgate[gpu]' in place of onnxruntime"
        return None

    @property
    def kind(self) -> str:
        if self._device == "cpu":
            return "cpu"
        import onnxruntime

        has_cuda = _PROVIDERS["gpu"] in onnxruntime.get_available_providers()
        return "gpu" if has_cuda and (self._device != "auto" or device_name() is not None) else "cpu"

    def versions(self) -> dict[str, str]:
        import onnxruntime

        return {"onnxruntime": onnxruntime.__version__}

    def modes(self) -> tuple[Mode, ...]:
        plain = (Mode(drive="call"),)
        return plain if self.kind == "cpu" else (*plain, Mode(drive="call", transfers=True))

    def device(self) -> str:
        if self.kind == "cpu":
            return f"{cpu_name()} x{cpu_count()}"
        return device_name(self._device) or "unknown GPU"

    def build_options(self, source_digest: str = "") -> dict[str, str | int | float | bool]:
        """What this machine adds to a recipe: the provider, and the threads that one inference may use."""
        return {"provider": self.kind, "threads": cpu_count() if self.kind == "cpu" else 1}

    def refuses(self, case: Case) -> str | None:
        if case.mode not in self.modes():
            return f"ONNX Runtime on a {self.kind.upper()} has no mode '{case.mode}'"
        return None

    def build(self, request: BuildRequest) -> EngineFacts:
        self._choose()
        options = _session_options(request.recipe.options, optimise=True)
        options.optimized_model_filepath = request.engine
        started = time.perf_counter_ns()
        with named("ONNX Runtime cannot build the model"):
            session = _session(request.onnx, options, request.recipe.options)
        build_ns = time.perf_counter_ns() - started
        layers, share = _inspect(request.engine)
        return EngineFacts(
            digest=file_digest(Path(request.engine)),
            engine_bytes=Path(request.engine).stat().st_size,
            build_ns=build_ns,
            layers=layers,
            precision_share=share,
            layer_record=pack_layers(read_ort_layers(Path(request.engine), Path(request.onnx))),
            tf32=_tf32(session, request.recipe.precision),
            notes=_notes(request.recipe.precision, self.kind),
        )

    def load(self, engine: Path, case: Case, axes: Axes | None = None) -> Runner:
        return self._open(engine, case)[1]

    def profile(
        self,
        engine: Path,
        case: Case,
        make: Callable[[Tensor], np.ndarray],
        *,
        queries: int,
        axes: Axes | None = None,
    ) -> LayerTimes:
        """ONNX Runtime's own profile of nodes. Raises `CaseError`."""
        return profile_nodes(lambda prefix: self._open(engine, case, profile=prefix), make, queries)

    def _open(self, engine: Path, case: Case, *, profile: str = "") -> tuple[Any, Runner]:
        """A session of a built engine, with its runner; `profile` begins the name of its profile's file."""
        self._choose()
        built = self.build_options()
        options = _session_options(built, optimise=False)
        options.enable_profiling, options.profile_file_prefix = bool(profile), profile
        with named("ONNX Runtime cannot load the engine"):
            session = _session(str(engine), options, built)
        return session, _SessionRunner(session, case, on_gpu=self.kind == "gpu")

    def _choose(self) -> None:
        if self.kind == "gpu":
            choose(self._device)


class _SessionRunner(Runner):
    """A session with its inputs bound where the mode wants them: on the device, or on the host."""

    def __init__(self, session: Any, case: Case, *, on_gpu: bool) -> None:
        self._session = session
        self._case = case
        self._on_gpu = on_gpu
        self._binding = session.io_binding()
        self._names = [value.name for value in session.get_outputs()]
        self._kept: list[Any] = []

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        return tuple(_tensor(value, self._case.shape) for value in self._session.get_inputs())

    def bind(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> None:
        from onnxruntime import OrtValue

        resident = self._on_gpu and not self._case.mode.transfers
        device = "cuda" if resident else "cpu"
        self._kept = [OrtValue.ortvalue_from_numpy(array, device, 0) for array in inputs.values()]
        for name, value in zip(inputs, self._kept, strict=True):
            self._binding.bind_ortvalue_input(name, value)
        for name in self._names:
            self._binding.bind_output(name, device)

    def infer(self) -> None:
        self._session.run_with_iobinding(self._binding)
        if self._on_gpu:
            self._binding.synchronize_outputs()

    def take(self, protocol: Protocol) -> Samples:
        return blocking_samples(self.infer, protocol)

    def outputs(self) -> dict[str, np.ndarray[Any, Any]]:
        return dict(zip(self._names, self._binding.copy_outputs_to_cpu(), strict=True))


def _tensor(value: Any, shape: Mapping[str, int]) -> Tensor:
    axes = tuple(shape[axis] if isinstance(axis, str) else axis for axis in value.shape)
    return Tensor(name=value.name, dtype=value.type.removeprefix("tensor(").rstrip(")"), shape=axes)


def _session_options(built: Mapping[str, Any], *, optimise: bool) -> Any:
    import onnxruntime

    levels = onnxruntime.GraphOptimizationLevel
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimise else levels.ORT_DISABLE_ALL
    options.log_severity_level = _ERROR_ONLY
    options.intra_op_num_threads = int(built.get("threads", 1))
    options.inter_op_num_threads = 1
    # Without VNNI the fast INT8 kernels of x86 saturate 16-bit sums: ResNet-50 lost 6 dB to it.
    options.add_session_config_entry("session.x64quantprecision", "1")
    return options


def _session(model: str, options: Any, built: Mapping[str, Any]) -> Any:
    """A session on the provider that was asked for.

    Where CUDA's libraries are missing ONNX Runtime warns and computes on the CPU: that would be a CPU's time
    under a GPU's name. Raises `CaseError`.
    """
    import onnxruntime

    # The CPU provider stays behind CUDA: shape arithmetic runs there in ONNX Runtime's own design.
    kinds = ("gpu", "cpu") if built.get("provider") == "gpu" else ("cpu",)
    wanted = [_PROVIDERS[kind] for kind in kinds]
    if wanted[0] == _PROVIDERS["gpu"] and hasattr(onnxruntime, "preload_dlls"):  # since 1.21
        # From the NVIDIA packages beside it, as PyTorch does; what it cannot find it prints.
        with contextlib.redirect_stdout(sys.stderr):
            onnxruntime.preload_dlls()
    session = onnxruntime.InferenceSession(model, options, providers=wanted)
    if wanted[0] not in session.get_providers():
        raise CaseError(
            f"ONNX Runtime could not start its {wanted[0]}, and would have computed on the CPU",
            fix="pip install 'onnxruntime-gpu[cuda,cudnn]', or name their folder in LD_LIBRARY_PATH",
        )
    return session


def _notes(precision: str, kind: str) -> tuple[str, ...]:
    notes = ["precision is the share of weights: ONNX Runtime tells no more"]
    if kind == "gpu":
        notes.append("TF32 is on (ONNX Runtime's default): FP32 products may round to it")
    elif precision.endswith("fp16"):
        notes.append(
            "ONNX Runtime has no FP16 arithmetic on a CPU: it computes in FP32, and this is its time"
        )
    return tuple(notes)


def _tf32(session: Any, precision: str) -> Tf32 | None:
    """Whether FP32 products may round to TF32: the CUDA provider's own setting, on where it tells none."""
    options = session.get_provider_options().get(_PROVIDERS["gpu"])
    if options is None or precision.endswith("fp16"):
        return None
    return "off" if options.get("use_tf32") == "0" else "on"


def _inspect(engine: str) -> tuple[int, dict[str, float]]:
    """Nodes after optimisation, and the share of weights (elements) by type."""
    import onnx

    graph = onnx.load(engine, load_external_data=False).graph
    counts: Counter[str] = Counter()
    for tensor in graph.initializer:
        counts[onnx.TensorProto.DataType.Name(tensor.data_type).lower()] += math.prod(tensor.dims)
    return len(graph.node), shares(counts)
