"""PyTorch, eager (`torch`) and compiled (`torch-compile`): what a model ran on before TensorRT.

It runs the script's `torch_module(seed, **args)`, the twin of the ONNX graph that `write_onnx` writes, on
the graph's inputs, in the same modes and by the same loop as TensorRT. Its "engine" is a small JSON file
that says what to run and how. The work is in `module` (from script to function) and `run`.
torch is imported in `build` and `load` only; nothing else here needs more than its version.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import runpy
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from perfgate.engine.gpu import choose, device_name
from perfgate.engine.host import cpu_count, cpu_name
from perfgate.engine.interface import Axes, Backend, BuildRequest, Runner, Script, modes_of_one_stream, named
from perfgate.engine.tensorrt.onnx_names import concrete_shape
from perfgate.errors import CaseError, DataError, InfrastructureError
from perfgate.model.distributions import installed_version
from perfgate.model.graph import GraphInput, read_graph
from perfgate.records import Case, EngineFacts, Mode, Name, Precision, Record, Sha256, Tensor, Tf32
from perfgate.util.files import TEXT_LIMIT_BYTES, file_digest, read_record, record_json, write_text

# The modes of torch.compile that capture CUDA graphs by themselves are left out: a case's own mode says
# whether there is a graph, and the two would be one inside the other.
_COMPILE_MODES = ("default", "max-autotune-no-cudagraphs")
_OWN_OPTIONS = ("tf32", "noTF32", "compile_mode", "provider", "threads", "source")


class TorchEngine(Record, kw_only=True):
    """What to run. `outputs` are the ONNX graph's names, `compile_mode` is empty for eager, and `tf32` is
    None where PyTorch's own defaults hold. `source_digest` is of the script itself, `source` of all that
    making the module reads."""

    schema: Literal["perfgate-trt/torch-engine/v1"]
    onnx_digest: Sha256
    script: Script
    source_digest: Sha256
    source: str = ""
    precision: Precision
    provider: Literal["cpu", "gpu"]
    threads: int
    compile_mode: str = ""
    tf32: bool | None = None
    inputs: tuple[GraphInput, ...]
    outputs: tuple[Name, ...]


class TorchBackend(Backend):
    """PyTorch on the GPU where its build has CUDA, a GPU is visible and the device is not `cpu`.

    `name` is `torch` or `torch-compile`. A GPU that is visible and that PyTorch cannot use is an error when
    the model is loaded, never a quiet turn to the CPU.
    """

    def __init__(self, device: str = "auto", *, name: str = "torch") -> None:
        self.name = name
        self._device = device
        self._compiles = name == "torch-compile"

    def unavailable(self) -> str | None:
        facts = _torch_facts()
        if facts is None:
            return "the Python module torch is not installed; pip install torch"
        if self._device not in ("auto", "cpu"):
            if not facts.get("cuda"):
                return "this PyTorch is built without CUDA; install one from https://pytorch.org that has it"
            if device_name(self._device) is None:
                return "no NVIDIA GPU is visible (nvidia-smi and NVML show none)"
        return self._no_compiler() if self._compiles else None

    def _no_compiler(self) -> str | None:
        if self.kind == "gpu":
            found = importlib.util.find_spec("triton") is not None
            return None if found else "torch.compile needs Triton on a GPU; pip install triton"
        compiler = os.environ.get("CXX", "g++")
        if shutil.which(compiler) is None:
            return f"torch.compile needs a C++ compiler on a CPU, and {compiler!r} is not there; install g++"
        return None

    @functools.cached_property
    def kind(self) -> Literal["cpu", "gpu"]:
        if self._device != "auto":
            return "cpu" if self._device == "cpu" else "gpu"
        has_cuda = bool((_torch_facts() or {}).get("cuda"))
        return "gpu" if has_cuda and device_name() is not None else "cpu"

    def versions(self) -> dict[str, str]:
        """PyTorch's version with its CUDA's (`2.11.0+cu130`), and Triton's for `torch-compile`.

        Raises `InfrastructureError` without PyTorch.
        """
        facts = _torch_facts()
        if facts is None:
            raise InfrastructureError("PyTorch is not installed", fix="pip install torch")
        versions = {"torch": str(facts.get("__version__") or installed_version("torch"))}
        if self._compiles and (triton := installed_version("triton")) != "absent":
            versions["triton"] = triton
        return versions

    def takes_graph(self) -> bool:
        return False

    def modes(self) -> tuple[Mode, ...]:
        """A blocking call on a CPU; on a GPU all modes on one stream, as users run PyTorch first."""
        if self.kind == "cpu":
            return (Mode(drive="call"),)
        return modes_of_one_stream("enqueue", "graph")

    def build_options(self, source_digest: str = "") -> dict[str, str | int | float | bool]:
        """What this machine adds to a recipe: the device's kind, the threads of one inference (on a GPU
        left to PyTorch: they do not run the model), and the script, whose `torch_module` is what runs."""
        threads = cpu_count() if self.kind == "cpu" else 1
        return {"provider": self.kind, "threads": threads, "source": source_digest}

    def device(self) -> str:
        if self.kind == "cpu":
            return f"{cpu_name()} x{cpu_count()}"
        return device_name(self._device) or "unknown GPU"

    def refuses(self, case: Case) -> str | None:
        if case.precision.startswith("int8"):
            return "PyTorch measures the model in FP32 and FP16 here: its INT8 would be another network"
        if case.precision == "fp16" and self.kind == "cpu":
            return "PyTorch on a CPU emulates much of FP16, so its time would say nothing of FP16"
        if case.mode.streams > 1:
            return "PyTorch is measured on one stream: one Python process enqueues one query at a time"
        if case.mode not in self.modes():
            return f"PyTorch on a {self.kind.upper()} has no mode '{case.mode}'"
        return None

    def build(self, request: BuildRequest) -> EngineFacts:
        """Load the module once on the CPU to see that it is there and what it weighs, and write the engine.

        Nothing is compiled here: `torch.compile` does that in every launch, at its first inference.
        """
        from perfgate.engine.torch.module import load_module, script_digest, weight_facts

        if request.script is None:
            raise CaseError(
                "PyTorch needs the model as a script, and this one is an ONNX file",
                fix="name a script in source.script that defines write_onnx and torch_module",
            )
        engine = self._engine(request, request.script, script_digest(request.script))
        started = time.perf_counter_ns()
        module = load_module(request.script)
        module = module.half() if engine.precision == "fp16" else module
        build_ns = time.perf_counter_ns() - started
        weight_bytes, share = weight_facts(module)
        path = Path(request.engine)
        write_text(path, record_json(engine))
        return EngineFacts(
            digest=file_digest(path),
            engine_bytes=path.stat().st_size,
            build_ns=build_ns,
            layers=sum(1 for part in module.modules() if not any(part.children())),
            precision_share=share,
            tf32=tf32_of(engine.tf32) if engine.provider == "gpu" and engine.precision == "fp32" else None,
            notes=tuple(_notes(engine, request, weight_bytes)),
        )

    def _engine(self, request: BuildRequest, script: Script, source_digest: str) -> TorchEngine:
        from perfgate.engine.torch.run import TYPES

        options = request.recipe.options
        graph = read_graph(Path(request.onnx))
        for tensor in graph.inputs:
            if tensor.dtype not in TYPES:
                raise CaseError(f"input {tensor.name!r} is {tensor.dtype}, which no NumPy array can hold")
        return TorchEngine(
            schema="perfgate-trt/torch-engine/v1",
            onnx_digest=request.recipe.onnx_digest,
            script=script,
            source_digest=source_digest,
            source=str(options.get("source", "")),
            precision=request.recipe.precision,
            provider=self.kind,
            threads=int(options.get("threads", 1)),
            compile_mode=_compile_mode(options) if self._compiles else "",
            tf32=_tf32(options),
            inputs=graph.inputs,
            outputs=graph.outputs,
        )

    def load(self, engine: Path, case: Case, axes: Axes | None = None) -> Runner:
        """Run the script, move the module to its device and prepare the case's mode.

        Raises `CaseError`, `GraphCaptureError` among them, and `InfrastructureError` where PyTorch cannot
        use the GPU.
        """
        if reason := self.refuses(case):
            raise CaseError(reason, fix="measure it in another mode, precision or backend")
        try:
            plan = read_record(engine, TorchEngine, limit_bytes=TEXT_LIMIT_BYTES)
        except DataError as error:
            raise CaseError(f"PyTorch cannot load the engine: {error.what}", fix=error.fix) from error
        if plan.provider == "gpu":
            choose(self._device)
        from perfgate.engine.torch.module import load_module, script_digest

        if script_digest(plan.script) != plan.source_digest:
            raise CaseError(
                f"{plan.script.path} is not what this engine was made from",
                fix="remove .perfgate/engines and run again",
            )
        _prepare_torch(plan)
        return _runner(plan, load_module(plan.script), case)


def _prepare_torch(plan: TorchEngine) -> None:
    """Threads and TF32 as the engine says. Raises `InfrastructureError` where the GPU cannot be used."""
    import torch

    if plan.provider == "cpu":
        torch.set_num_threads(plan.threads)
        return
    if not torch.cuda.is_available():
        raise InfrastructureError(
            f"PyTorch {torch.__version__} cannot use the GPU",
            fix="the driver may be too old for its CUDA; python -c 'import torch; torch.zeros(1).cuda()'",
        )
    if plan.tf32 is not None:
        # These two names work from PyTorch 1.7 on; the newer ones break torch.compile where both are used.
        torch.backends.cuda.matmul.allow_tf32 = plan.tf32
        torch.backends.cudnn.allow_tf32 = plan.tf32


def _runner(plan: TorchEngine, module: Any, case: Case) -> Runner:
    import torch

    from perfgate.engine.torch.module import function_of
    from perfgate.engine.torch.run import CpuRunner, CudaRunner

    half = plan.precision == "fp16"
    with named("PyTorch cannot place the model on its device"):
        module = module.half() if half else module
        module = module.cuda() if plan.provider == "gpu" else module
        call: Callable[..., tuple[Any, ...]] = function_of(module, half=half, outputs=plan.outputs)
        if plan.compile_mode:
            call = torch.compile(call, mode=plan.compile_mode)
    inputs = tuple(
        Tensor(name=one.name, dtype=one.dtype, shape=concrete_shape(one.name, one.axes, case.shape))
        for one in plan.inputs
    )
    if plan.provider == "cpu":
        return CpuRunner(call, inputs, plan.outputs)
    return CudaRunner(call, inputs, plan.outputs, case.mode)


def _tf32(options: Mapping[str, Any]) -> bool | None:
    """Option `tf32`, or TensorRT's `noTF32`, so that one spec keeps it off on both sides."""
    for name in ("tf32", "noTF32"):
        if not isinstance(options.get(name, False), bool):
            raise CaseError(f"option {name} = {options[name]!r} is not true or false")
    off = options.get("noTF32", False)
    if off and options.get("tf32", False):
        raise CaseError("options tf32 and noTF32 contradict each other", fix="set one of them")
    return False if off else options.get("tf32")


def _compile_mode(options: Mapping[str, Any]) -> str:
    mode = str(options.get("compile_mode", "default"))
    if mode not in _COMPILE_MODES:
        raise CaseError(
            f"option compile_mode = {mode!r} is not measured",
            fix=f"one of {', '.join(_COMPILE_MODES)}; for CUDA graphs measure the mode 'graph'",
        )
    return mode


def _notes(engine: TorchEngine, request: BuildRequest, weight_bytes: int) -> list[str]:
    """What a reader must know of how the model was run, beyond the case's mode."""
    import torch

    notes = [
        f"the engine file only names the script; weights and buffers take {weight_bytes} bytes",
        "layers are the module's leaves, and precision is the share of weights",
    ]
    if engine.compile_mode:
        notes.append(
            f"torch.compile, mode {engine.compile_mode}: compiled for the measured shape in every launch, "
            "at its first inference; PyTorch's own caches on disk may shorten that"
        )
    if engine.precision == "fp16":
        notes.append("FP16 by .half(); the casts of inputs and outputs from and to FP32 are timed")
    if engine.provider == "gpu":
        known = "is" if engine.tf32 is not None else "as PyTorch has it:"
        notes.append(f"TF32 {known} {tf32_of(engine.tf32)}; cuDNN {torch.backends.cudnn.version()}")
        notes.append("cudnn.benchmark is left at PyTorch's default, off")
    else:
        notes.append(f"{engine.threads} threads in one operator, PyTorch's default between operators")
    if elsewhere := sorted(set(request.recipe.options) - set(_OWN_OPTIONS)):
        notes.append(f"options for other backends, without effect here: {', '.join(elsewhere)}")
    return notes


def tf32_of(asked: bool | None) -> Tf32:
    """Which FP32 products may round to TF32, as PyTorch has it where nothing is `asked`."""
    import torch

    if asked is not None:
        return "on" if asked else "off"
    states: dict[tuple[bool, bool], Tf32] = {
        (True, True): "on",
        (True, False): "convolutions only",
        (False, True): "matrix products only",
        (False, False): "off",
    }
    return states[bool(torch.backends.cudnn.allow_tf32), bool(torch.backends.cuda.matmul.allow_tf32)]


def _torch_facts() -> dict[str, Any] | None:
    """What `torch/version.py` says, without importing torch, which takes seconds; None without PyTorch."""
    try:
        found = importlib.util.find_spec("torch")
        if found is None or found.origin is None:
            return None
        return runpy.run_path(str(Path(found.origin).with_name("version.py")))
    except Exception:  # half installed, or another package of that name
        return None
