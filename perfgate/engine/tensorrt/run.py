"""Run a TensorRT engine: one lane a stream, timed by CUDA events, in every mode that `records.Mode` names.

TensorRT's own times of layers come from a load that is profiled and never timed.
"""

from __future__ import annotations

import gc
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from perfgate.engine.interface import Axes, LayerTimes, Runner, Samples, middle_mean
from perfgate.engine.plugin_libraries import beside
from perfgate.engine.stream_loop import SLOTS, queued_samples
from perfgate.engine.tensorrt.api import Api, first_error, load_plugins, logger_of, messages_of
from perfgate.engine.tensorrt.cuda import CudaContext
from perfgate.engine.tensorrt.onnx_names import plugins_in, read_network_name
from perfgate.engine.tensorrt.stream import Plan, Stream
from perfgate.errors import CaseError
from perfgate.records import Case, Mode, Protocol, Tensor

if TYPE_CHECKING:
    import numpy as np


class TensorRTRunner(Runner):
    """A loaded engine on one stream or several.

    Times are those of CUDA events on the query's own stream, in nanoseconds (their resolution is about
    half a microsecond). Without transfers a sample is the GPU's time for the execution alone, with inputs
    resident on the device; with transfers it spans copy in, execution and copy out. `take` keeps two
    queries queued a stream, as trtexec does: the start event of one waits on the device behind the other,
    so that a sample holds no pause of the host's. `infer` is one query in closed loop.
    """

    def __init__(self, api: Api, engine: Path, case: Case, axes: Axes) -> None:
        self._api = api
        self._mode = case.mode
        self._logger = logger_of(api)
        self._logger.forget()
        self._lanes: list[Stream] = []
        self._engines: list[Any] = []
        self._runtime: Any = None
        self._cuda: CudaContext | None = CudaContext()
        try:
            self._load(engine, case, axes)
        except BaseException as error:
            # The frames of what failed hold TensorRT's objects, which must go before the CUDA context.
            traceback.clear_frames(error.__traceback__)
            self.close()
            raise

    def _load(self, path: Path, case: Case, axes: Axes) -> None:
        assert self._cuda is not None
        data = path.read_bytes()
        # Before the engine is loaded, because it cannot be without its plugins.
        load_plugins(self._api, beside(path, plugins_in(data)), self._logger)
        self._runtime = self._api.trt.Runtime(self._logger)
        if hasattr(self._runtime, "engine_host_code_allowed"):
            self._runtime.engine_host_code_allowed = True  # version-compatible engines carry their runtime
        started = time.perf_counter_ns()
        first = self._deserialize(data)
        self.deserialisation_ns = time.perf_counter_ns() - started
        named, _ = read_network_name(str(first.name or ""))
        plan = Plan.of(self._api, first, case, named or axes)
        dynamic = bool(plan.dynamic) or any(isinstance(axis, str) for dims in named.values() for axis in dims)
        # Before TensorRT 10 two contexts of one engine cannot share a profile: an engine a stream then.
        alone = dynamic and not self._api.rtx and self._api.version < (10,)
        for number in range(self._mode.streams):
            engine = first if number == 0 or not alone else self._deserialize(data)
            self._lanes.append(Stream(self._api, self._cuda, plan, self._mode, self._logger))
            self._lanes[-1].open(engine, 0 if alone else number)
        self.first_inference_ns = self._lanes[0].first_inference_ns

    def _deserialize(self, data: bytes) -> Any:
        engine = self._runtime.deserialize_cuda_engine(data)
        if engine is None:
            raise CaseError(
                f"{self._api} cannot load the engine: {first_error(self._logger)}",
                stderr_tail=messages_of(self._logger, warnings=True),
                fix="an engine loads only with the TensorRT and the GPU that built it: build it again",
            )
        self._engines.append(engine)
        return engine

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        return self._lanes[0].plan.inputs

    @property
    def context(self) -> Any:
        """TensorRT's execution context of the first stream, for a profiler."""
        return self._lanes[0].context

    def bind(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Copy the inputs to every stream's buffers.

        Raises `CaseError` for an input that is missing, unknown, or of another shape or type.
        """
        for lane in self._lanes:
            lane.bind(inputs)

    def infer(self) -> None:
        slot = self._lanes[0].slots[0]
        slot.issue()
        slot.wait()

    def take(self, protocol: Protocol) -> Samples:
        """The timed loop, as `queued_samples` has it: two queries in flight a stream."""
        ring = [lane.slots[turn] for turn in range(SLOTS) for lane in self._lanes]
        return queued_samples(ring, protocol, transfers=self._mode.transfers)

    def outputs(self) -> dict[str, np.ndarray[Any, Any]]:
        return self._lanes[0].outputs()

    def close(self) -> None:
        """Free execution contexts, engines, the runtime, the CUDA context, in this order; safe twice."""
        if self._cuda is None:
            return
        lanes, self._lanes = self._lanes, []
        try:
            for lane in lanes:
                lane.close()
        finally:
            self._drop_everything(lanes)

    def _drop_everything(self, lanes: list[Stream]) -> None:
        lanes.clear()
        self._engines.clear()
        self._runtime = None
        cuda, self._cuda = self._cuda, None
        # Lanes and slots refer to each other, and none of their CUDA objects may outlive the context.
        gc.collect()
        if cuda is not None:
            cuda.close()


_WARMUP = 20


def profile_engine(
    api: Api,
    load: Callable[[Path, Case], Runner],
    engine: Path,
    case: Case,
    make: Callable[[Tensor], np.ndarray],
    queries: int,
) -> LayerTimes:
    """Enqueue `queries` queries one by one with an `IProfiler` attached. Raises `CaseError`.

    Enqueued, whatever the case's mode is: a CUDA graph reports no layers. An engine built without names of
    layers reports numbered ones, which match nothing later.
    """
    plain = msgspec.structs.replace(case, mode=Mode(drive="enqueue", wait="block"))
    profiler = _make_profiler(api)
    with load(engine, plain) as runner:
        assert isinstance(runner, TensorRTRunner)
        runner.bind({tensor.name: make(tensor) for tensor in runner.inputs})
        for _ in range(_WARMUP):
            runner.infer()
        context = runner.context
        context.profiler = profiler
        # Reported apart from the enqueue where this TensorRT can: then the enqueue does not wait for it.
        apart = hasattr(context, "report_to_profiler") and hasattr(context, "enqueue_emits_profile")
        if apart:
            context.enqueue_emits_profile = False
        for _ in range(queries):
            runner.infer()
            if apart and not context.report_to_profiler():
                raise CaseError(f"{api} does not report to its profiler")
            profiler.next_query()
        # The context goes before the profiler that it calls.
        del context
    if not profiler.rows:
        raise CaseError(f"{api} reported no layer to its profiler")
    times_ns = {
        name: middle_mean([row.get(name, 0.0) for row in profiler.rows]) * 1e6 for name in profiler.names
    }
    return LayerTimes(layers_ns=times_ns, queries=len(profiler.rows))


def _make_profiler(api: Api) -> Any:
    """A profiler object; its class is made here, because its base exists only where TensorRT does."""

    class Profiler(api.trt.IProfiler):  # type: ignore[misc, name-defined]
        """Milliseconds by layer for each query. A layer that is reported twice in a query is summed."""

        def __init__(self) -> None:
            api.trt.IProfiler.__init__(self)
            self.names: dict[str, None] = {}
            self.rows: list[dict[str, float]] = []
            self._row: dict[str, float] = defaultdict(float)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.names.setdefault(layer_name)
            self._row[layer_name] += ms

        def next_query(self) -> None:
            if self._row:
                self.rows.append(self._row)
            self._row = defaultdict(float)

    return Profiler()
