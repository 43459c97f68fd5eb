"""The peer's process in `apart.py`: trtexec's loop, written against TensorRT and PyCUDA alone.

Of perfgate it uses the protocol of its children and the choice of a GPU; loading, buffers, capture, events
and the loop are its own.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from perfgate.engine.gpu import choose
from perfgate.records import Record
from perfgate.util.process import serve

_WARMUP_S, _DURATION_S, _LEAST = 0.2, 3.0, 10  # trtexec's defaults


class BareRequest(Record):
    """An engine, and the sizes of each input's dynamic axes, in order: all inputs have the same ones."""

    engine: str
    sizes: tuple[int, ...]
    graph: bool
    device: str


class BareReply(Record):
    """The median of the GPU's time for an execution, in nanoseconds, and how many there were."""

    median_ns: float
    samples: int


def work(request: BareRequest) -> BareReply:
    import pycuda.driver as cuda

    choose(request.device)
    cuda.init()
    context = cuda.Device(0).retain_primary_context()
    context.push()
    try:
        times_ms = _timed(cuda, request)
    finally:
        cuda.Context.pop()
    return BareReply(median_ns=statistics.median(times_ms) * 1e6, samples=len(times_ms))


def _timed(cuda: Any, request: BareRequest) -> list[float]:
    import tensorrt as trt

    runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
    engine = runtime.deserialize_cuda_engine(Path(request.engine).read_bytes())
    execution = engine.create_execution_context()
    memory = list(_memory(cuda, trt, engine, execution, iter(request.sizes * engine.num_io_tensors)))
    stream = cuda.Stream(1)  # non-blocking, as trtexec makes them

    def execute() -> None:
        assert execution.execute_async_v3(stream.handle), "TensorRT refuses to enqueue"

    execute()
    stream.synchronize()
    enqueue = _captured(stream, execute) if request.graph else execute
    times = _loop(cuda, stream, enqueue)
    for buffer in memory:
        buffer.free()
    return times


def _memory(cuda: Any, trt: Any, engine: Any, execution: Any, sizes: Iterator[int]) -> Iterator[Any]:
    """Device memory for every tensor; inputs are drawn from [-1, 1) as trtexec does, indices are 0."""
    import numpy as np

    draw = np.random.default_rng(0)
    types = {"FLOAT": np.float32, "HALF": np.float16}

    names = [engine.get_tensor_name(number) for number in range(engine.num_io_tensors)]
    inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    for name in inputs:
        shape = [next(sizes) if axis == -1 else axis for axis in engine.get_tensor_shape(name)]
        assert execution.set_input_shape(name, shape), f"TensorRT refuses {shape} for {name}"
    for name in names:
        count = int(np.prod(tuple(execution.get_tensor_shape(name)), dtype=np.int64))
        dtype = types.get(engine.get_tensor_dtype(name).name)
        # Eight bytes an element are enough for any other type.
        values = draw.uniform(-1, 1, count).astype(dtype) if dtype else np.zeros(count, np.int64)
        buffer = cuda.mem_alloc(values.nbytes)
        cuda.memcpy_htod(buffer, values)
        execution.set_tensor_address(name, int(buffer))
        yield buffer


def _captured(stream: Any, execute: Callable[[], None]) -> Callable[[], object]:
    from cuda.bindings import driver

    handle = driver.CUstream(int(stream.handle))
    (error,) = driver.cuStreamBeginCapture(
        handle, driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
    )
    assert int(error) == 0, error
    execute()
    error, graph = driver.cuStreamEndCapture(handle)
    assert int(error) == 0, error
    error, instance = driver.cuGraphInstantiate(graph, 0)
    assert int(error) == 0, error
    (error,) = driver.cuGraphLaunch(instance, handle)
    assert int(error) == 0, error
    return lambda: driver.cuGraphLaunch(instance, handle)


def _loop(cuda: Any, stream: Any, enqueue: Callable[[], object]) -> list[float]:
    """Milliseconds of each execution after the warm-up."""
    pairs = [(cuda.Event(), cuda.Event()) for _ in range(2)]
    times: list[float] = []
    began = time.perf_counter()
    warm_until, number = began + _WARMUP_S, 0
    while time.perf_counter() < warm_until + _DURATION_S or len(times) < _LEAST:
        begin, end = pairs[number % 2]
        if number >= 2:
            end.synchronize()
            if time.perf_counter() > warm_until:
                times.append(end.time_since(begin))
        begin.record(stream)
        enqueue()
        end.record(stream)
        number += 1
    stream.synchronize()
    return times


if __name__ == "__main__":
    serve(BareRequest, work)
