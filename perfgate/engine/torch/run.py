"""Run a model's PyTorch twin: blocking calls on a CPU, queries queued on one CUDA stream on a GPU."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from perfgate.engine.interface import Runner, Samples, blocking_samples, named
from perfgate.engine.stream_loop import SLOTS, Lane, Slot, queued_samples
from perfgate.engine.tensorrt.cuda import GraphCaptureError
from perfgate.errors import CaseError
from perfgate.records import Mode, Protocol, Tensor

if TYPE_CHECKING:
    import numpy as np

# PyTorch's names of the ONNX element types that a NumPy array can hold.
TYPES = {
    "float": "float32", "float16": "float16", "double": "float64",
    "int8": "int8", "int16": "int16", "int32": "int32", "int64": "int64", "uint8": "uint8", "bool": "bool",
}  # fmt: skip
_WARMUPS = 3  # PyTorch's own advice before a capture; libraries and compilers set themselves up meanwhile
_FAILS = "PyTorch cannot run the model"

Call = Callable[..., tuple[Any, ...]]


class _TorchRunner(Runner):
    """What both runners share: the inputs, and arrays held against them."""

    def __init__(self, call: Call, inputs: tuple[Tensor, ...], outputs: tuple[str, ...]) -> None:
        import torch

        self._torch = torch
        self._call: Call | None = call
        self._inputs = inputs
        self._names = outputs
        self._found: tuple[Any, ...] = ()

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        return self._inputs

    def _checked(self, arrays: Mapping[str, np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
        """The arrays in the graph's order. Raises `CaseError` for one that does not fit."""
        if set(arrays) != {tensor.name for tensor in self._inputs}:
            names = sorted(tensor.name for tensor in self._inputs)
            raise CaseError(f"the model's inputs are {names} and it was given {sorted(arrays)}")
        for tensor in self._inputs:
            array = arrays[tensor.name]
            if array.shape != tensor.shape or array.dtype.name != TYPES[tensor.dtype]:
                raise CaseError(
                    f"input {tensor.name!r} is {TYPES[tensor.dtype]}{list(tensor.shape)}, "
                    f"not {array.dtype}{list(array.shape)}"
                )
        return [arrays[tensor.name] for tensor in self._inputs]


class CpuRunner(_TorchRunner):
    """Blocking calls; a sample is the host's time for one call, its new output tensors included."""

    _given: tuple[Any, ...] = ()

    def bind(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> None:
        self._given = tuple(self._torch.from_numpy(array.copy()) for array in self._checked(inputs))

    def infer(self) -> None:
        with named(_FAILS), self._torch.inference_mode():
            self._step()

    def _step(self) -> None:
        assert self._call is not None
        self._found = self._call(*self._given)

    def take(self, protocol: Protocol) -> Samples:
        with named(_FAILS), self._torch.inference_mode():
            return blocking_samples(self._step, protocol)

    def outputs(self) -> dict[str, np.ndarray[Any, Any]]:
        return {name: y.numpy().copy() for name, y in zip(self._names, self._found, strict=True)}

    def close(self) -> None:
        self._call, self._given, self._found = None, (), ()


class CudaRunner(_TorchRunner, Lane):
    """Queries on one stream, timed by CUDA events, in nanoseconds.

    Without transfers a sample is the GPU's time from the first kernel's turn to the last one's end, pauses
    between kernels that wait for Python included, with inputs resident on the device; with transfers it
    spans copy in from page-locked memory, execution and copy out. `take` keeps two queries in flight, as
    TensorRT's runner does, and `infer` is one query in closed loop.
    """

    def __init__(self, call: Call, inputs: tuple[Tensor, ...], outputs: tuple[str, ...], mode: Mode) -> None:
        super().__init__(call, inputs, outputs)
        self._mode = mode
        self._graph: Any = None
        self._host: list[Any] = []
        with named("PyTorch cannot prepare the model on the GPU"):
            self.stream: Any = self._torch.cuda.Stream()
            with self._inside():
                self._pinned = [self._zeros(tensor, pin_memory=True) for tensor in inputs]
                self._device = [self._zeros(tensor, device="cuda") for tensor in inputs]
            self._torch.cuda.synchronize()  # weights and zeros were written on the default stream
            self._slots = [Slot(self, mode) for _ in range(SLOTS)]
            if mode.drive == "graph":
                self._capture()

    def _zeros(self, tensor: Tensor, **where: Any) -> Any:
        dtype = getattr(self._torch, TYPES[tensor.dtype])
        return self._torch.zeros(tensor.shape, dtype=dtype, **where)

    def event(self) -> Any:
        return self._torch.cuda.Event(enable_timing=True, blocking=self._mode.wait == "block")

    def elapsed_ms(self, begin: Any, end: Any) -> float:
        return float(begin.elapsed_time(end))

    @contextlib.contextmanager
    def _inside(self) -> Iterator[None]:
        with self._torch.inference_mode(), self._torch.cuda.stream(self.stream):
            yield

    def _capture(self) -> None:
        """Capture one execution. Raises `GraphCaptureError`; what fails uncaptured is a plain `CaseError`."""
        with self._inside():
            started = time.perf_counter_ns()
            self.launch()
            self.stream.synchronize()
            self.first_inference_ns = time.perf_counter_ns() - started
            for _ in range(_WARMUPS - 1):
                self.launch()
            self.stream.synchronize()
            graph = self._torch.cuda.CUDAGraph()
            try:
                # Thread-local: another thread's allocation must not spoil the capture.
                with self._torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
                    self.launch()
            except Exception as error:
                raise GraphCaptureError(f"{type(error).__name__}: {str(error)[:1000]}") from error
            self._graph = graph

    def bind(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Copy the inputs to page-locked memory and on to the device. Raises `CaseError`."""
        arrays = self._checked(inputs)
        self.stream.synchronize()
        with self._inside():
            for pinned, array in zip(self._pinned, arrays, strict=True):
                pinned.copy_(self._torch.from_numpy(array.copy()))
            self.send()
        self.stream.synchronize()

    def send(self) -> None:
        """Enqueue the copies in."""
        for device, pinned in zip(self._device, self._pinned, strict=True):
            device.copy_(pinned, non_blocking=True)

    def launch(self) -> bool:
        """Enqueue one execution, or one replay of the graph; what PyTorch refuses, it raises."""
        if self._graph is not None:
            self._graph.replay()
        else:
            assert self._call is not None
            self._found = self._call(*self._device)
        return True

    def fetch(self) -> None:
        """Enqueue the copies out, to page-locked memory that the first query allocates."""
        if not self._host:
            torch = self._torch
            self._host = [torch.empty(y.shape, dtype=y.dtype, pin_memory=True) for y in self._found]
        for host, y in zip(self._host, self._found, strict=True):
            host.copy_(y, non_blocking=True)

    def infer(self) -> None:
        with named(_FAILS), self._inside():
            self._slots[0].issue()
            self._slots[0].wait()

    def take(self, protocol: Protocol) -> Samples:
        """The timed loop, as `queued_samples` has it."""
        with named(_FAILS), self._inside():
            return queued_samples(self._slots, protocol, transfers=self._mode.transfers)

    def outputs(self) -> dict[str, np.ndarray[Any, Any]]:
        self.stream.synchronize()
        return {name: y.cpu().numpy().copy() for name, y in zip(self._names, self._found, strict=True)}

    def close(self) -> None:
        """Wait for the stream, then free the graph, the tensors and what PyTorch's allocator keeps."""
        if self._call is None:
            return
        with contextlib.suppress(RuntimeError):  # a device that failed has said so already
            self.stream.synchronize()
        self._graph = self._call = None
        self._found = ()
        for kept in (self._slots, self._host, self._pinned, self._device):
            kept.clear()
        gc.collect()
        with contextlib.suppress(RuntimeError):
            self._torch.cuda.empty_cache()
