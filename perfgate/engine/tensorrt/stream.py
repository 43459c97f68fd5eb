"""One CUDA stream with its execution context, buffers and events; and the tensors that all streams share."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from perfgate.engine.stream_loop import SLOTS, Lane, Slot
from perfgate.engine.tensorrt.api import Api, messages_of
from perfgate.engine.tensorrt.cuda import Buffer, CudaContext, Graph, GraphCaptureError
from perfgate.engine.tensorrt.onnx_names import Dims, concrete_shape
from perfgate.errors import CaseError
from perfgate.records import Case, Mode, Record, Tensor

if TYPE_CHECKING:
    import numpy as np

# TensorRT's element types: the ONNX name, and NumPy's or ml_dtypes'.
_TYPES = {
    "FLOAT": ("float", "float32"),
    "HALF": ("float16", "float16"),
    "BF16": ("bfloat16", "bfloat16"),
    "INT8": ("int8", "int8"),
    "INT32": ("int32", "int32"),
    "INT64": ("int64", "int64"),
    "UINT8": ("uint8", "uint8"),
    "BOOL": ("bool", "bool"),
    "FP8": ("float8e4m3fn", "float8_e4m3fn"),
}


class Plan(Record):
    """The inputs at the measured shape, which of them are dynamic in the engine, and the outputs' names
    with their ONNX types."""

    inputs: tuple[Tensor, ...]
    dynamic: frozenset[str]
    outputs: dict[str, str]

    @classmethod
    def of(cls, api: Api, engine: Any, case: Case, dims: Mapping[str, Dims]) -> Plan:
        """Read the engine's tensors; `dims` are its inputs' axes.

        Raises `CaseError` for a shape outside the profile, a tensor that lives on the host, and an element
        type that a host array cannot hold.
        """
        inputs: list[Tensor] = []
        dynamic: set[str] = set()
        outputs: dict[str, str] = {}
        for number in range(engine.num_io_tensors):
            name = engine.get_tensor_name(number)
            if engine.get_tensor_location(name) == api.trt.TensorLocation.HOST:
                raise CaseError(
                    f"tensor {name!r} lives on the host (it holds a shape), which is not measured"
                )
            dtype = _onnx_type(name, engine.get_tensor_dtype(name))
            if engine.get_tensor_mode(name) != api.trt.TensorIOMode.INPUT:
                outputs[name] = dtype
                continue
            shape = tuple(int(axis) for axis in engine.get_tensor_shape(name))
            if -1 in shape:
                dynamic.add(name)
                shape = _measured_shape(engine, name, dims.get(name), case)
            inputs.append(Tensor(name=name, dtype=dtype, shape=shape))
        return cls(inputs=tuple(inputs), dynamic=frozenset(dynamic), outputs=outputs)


def _onnx_type(name: str, found: Any) -> str:
    known = _TYPES.get(str(found).rpartition(".")[2])
    if known is None:
        raise CaseError(f"tensor {name!r} is of type {found}, which perfgate cannot fill or read")
    return known[0]


def numpy_type(dtype: str) -> np.dtype[Any]:
    """The NumPy type of an ONNX element type; `ml_dtypes` (onnx brings it) has what NumPy has not."""
    import numpy as np

    name = next(array for onnx_name, array in _TYPES.values() if onnx_name == dtype)
    try:
        return np.dtype(name)
    except TypeError:
        pass
    try:
        import ml_dtypes

        extended: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
    except (ImportError, AttributeError) as error:
        fix = "pip install ml_dtypes"
        raise CaseError(f"arrays of {dtype} need the package ml_dtypes", fix=fix) from error
    return extended


def _measured_shape(engine: Any, name: str, dims: Dims | None, case: Case) -> tuple[int, ...]:
    if dims is None:
        raise CaseError(
            f"input {name!r} is dynamic, and neither the engine nor the model's graph names its dimensions",
            fix="build the engine with perfgate, or from this model's ONNX file",
        )
    shape = concrete_shape(name, dims, case.shape)
    least, _, most = (tuple(limit) for limit in engine.get_tensor_profile_shape(name, 0))
    if len(least) != len(shape):
        raise CaseError(
            f"input {name!r} has {len(least)} dimensions in the engine and {len(shape)} in the graph",
            fix="build the engine from this model's ONNX file",
        )
    for axis, size, low, high in zip(dims, shape, least, most, strict=True):
        if not low <= size <= high:
            raise CaseError(
                f"input {name!r}: {axis} = {size} is outside the engine's profile ({low} to {high})",
                fix="widen the profile in the model's TOML, or measure another shape",
            )
    return shape


class Stream(Lane):
    """A stream, an execution context, the buffers, and two slots for queries. `open` makes them.

    `launch` enqueues one execution, or launches the graph where there is one; False when it was refused.
    """

    def __init__(self, api: Api, cuda: CudaContext, plan: Plan, mode: Mode, logger: Any) -> None:
        self.plan = plan
        self.mode = mode
        self._api = api
        self._cuda = cuda
        self._logger = logger
        self.graph: Graph | None = None
        self.slots: list[Slot] = []
        self.inputs: dict[str, Buffer] = {}
        self.results: dict[str, Buffer] = {}
        self.stream: Any = None
        self.context: Any = None
        self.first_inference_ns: int | None = None
        self.launch: Callable[[], bool] = self._enqueue

    def open(self, engine: Any, number: int) -> None:
        """Make everything for the engine's context `number`; `close` frees what was made, also after an
        error. Raises `CaseError`."""
        self.stream = self._cuda.stream()
        self.context = engine.create_execution_context()
        if self.context is None:
            raise self._failed("cannot create an execution context")
        if number > 0 and engine.num_optimization_profiles > 0:
            # Only an engine's first context takes profile 0 by itself.
            if not self.context.set_optimization_profile_async(0, self.stream.handle):
                raise self._failed("refuses the profile for another stream")
            self.stream.synchronize()
        self._allocate()
        self.slots = [Slot(self, self.mode) for _ in range(SLOTS)]
        if self.mode.drive == "graph":
            self._capture()

    def event(self) -> Any:
        return self._cuda.event(blocking=self.mode.wait == "block")

    def elapsed_ms(self, begin: Any, end: Any) -> float:
        return float(end.time_since(begin))

    def _failed(self, what: str) -> CaseError:
        said = messages_of(self._logger, warnings=True)
        return CaseError(
            f"{self._api} {what}: {said.splitlines()[-1] if said else 'no reason given'}", stderr_tail=said
        )

    def _allocate(self) -> None:
        for tensor in self.plan.inputs:
            if tensor.name not in self.plan.dynamic:
                continue
            if not self.context.set_input_shape(tensor.name, tensor.shape):
                raise self._failed(f"refuses shape {tensor.shape} for input {tensor.name!r}")
        missing = self.context.infer_shapes()
        if missing:
            raise self._failed(f"cannot infer shapes, {', '.join(missing)} being unknown")
        for tensor in self.plan.inputs:
            self.inputs[tensor.name] = Buffer(self._cuda, tensor.shape, numpy_type(tensor.dtype))
        for name, dtype in self.plan.outputs.items():
            shape = tuple(int(axis) for axis in self.context.get_tensor_shape(name))
            if any(axis < 0 for axis in shape):
                raise CaseError(
                    f"output {name!r} has a shape that depends on the data, so its buffer has no fixed size",
                    fix="cut the model before that output (NonZero, NMS), or pad it to a fixed size",
                )
            self.results[name] = Buffer(self._cuda, shape, numpy_type(dtype))
        for name, buffer in (*self.inputs.items(), *self.results.items()):
            if not self.context.set_tensor_address(name, buffer.address):
                raise self._failed(f"refuses the buffer of {name!r}")

    def _capture(self) -> None:
        # TensorRT's late set-up is in the first enqueue after a change of shape: it must not be captured.
        started = time.perf_counter_ns()
        if not self._enqueue():
            raise self._failed("refuses to enqueue")
        self.stream.synchronize()
        self.first_inference_ns = time.perf_counter_ns() - started
        try:
            self.graph = Graph(self.stream, self._enqueue)
        except GraphCaptureError as error:
            said = messages_of(self._logger, warnings=True)
            raise GraphCaptureError(error.why, stderr_tail=said) from error
        self.launch = self.graph.launch

    def _enqueue(self) -> bool:
        return bool(self.context.execute_async_v3(self.stream.handle))

    def refused(self) -> CaseError:
        """The error for a launch that was refused."""
        return self._failed("refuses to " + ("launch the graph" if self.graph else "enqueue"))

    def bind(self, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Copy the inputs to page-locked memory and on to the device. Raises `CaseError`."""
        if set(arrays) != set(self.inputs):
            raise CaseError(
                f"the engine's inputs are {sorted(self.inputs)} and it was given {sorted(arrays)}"
            )
        self.stream.synchronize()
        for name, array in arrays.items():
            host = self.inputs[name].host
            if array.shape != host.shape or array.dtype != host.dtype:
                raise CaseError(
                    f"input {name!r} is {host.dtype}{list(host.shape)}, not {array.dtype}{list(array.shape)}"
                )
            host[...] = array
        self.send()
        self.stream.synchronize()

    def send(self) -> None:
        for buffer in self.inputs.values():
            buffer.to_device(self.stream)

    def fetch(self) -> None:
        for buffer in self.results.values():
            buffer.to_host(self.stream)

    def outputs(self) -> dict[str, np.ndarray[Any, Any]]:
        """Copies of the last query's outputs."""
        self.fetch()
        self.stream.synchronize()
        return {name: buffer.host.copy() for name, buffer in self.results.items()}

    def close(self) -> None:
        """Wait for the stream, then free graph, context, events, buffers and stream in that order."""
        if self.stream is None:
            return
        try:
            self.stream.synchronize()
            if self.graph is not None:
                self.graph.close()
        finally:
            self.launch = self._enqueue  # the graph's own method would keep it alive
            self.graph = self.context = None
            self.slots.clear()
            for buffer in (*self.inputs.values(), *self.results.values()):
                buffer.close()
            self.inputs.clear()
            self.results.clear()
            self.stream = None
