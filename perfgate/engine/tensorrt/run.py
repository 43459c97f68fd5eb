"""Run a TensorRT engine: one lane a stream, timed by CUDA events, in every mode that `records.Mode` names."""

from __future__ import annotations

import gc
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perfgate.engine.interface import Axes, Runner, Samples
from perfgate.engine.plugin_libraries import beside
from perfgate.engine.stream_loop import queued_samples
from perfgate.engine.tensorrt.api import Api, load_plugins, logger_of, messages_of
from perfgate.engine.tensorrt.cuda import CudaContext
from perfgate.engine.tensorrt.onnx_names import plugins_in, read_network_name
from perfgate.engine.tensorrt.stream import SLOTS, Plan, Stream
from perfgate.errors import CaseError
from perfgate.records import Case, Protocol, Tensor

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
            said = messages_of(self._logger, warnings=True)
            raise CaseError(
                f"{self._api} cannot load the engine: {said.splitlines()[0] if said else 'no reason given'}",
                stderr_tail=said,
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
