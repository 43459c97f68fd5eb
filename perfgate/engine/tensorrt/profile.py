"""TensorRT's own times of layers, from a load that is profiled and never timed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from perfgate.engine.interface import LayerTimes, Runner, middle_mean
from perfgate.engine.tensorrt.api import Api
from perfgate.engine.tensorrt.run import TensorRTRunner
from perfgate.errors import CaseError
from perfgate.records import Case, Mode, Tensor

if TYPE_CHECKING:
    import numpy as np

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
