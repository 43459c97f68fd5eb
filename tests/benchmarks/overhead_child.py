"""The process of `overhead.py`: one engine, perfgate's own timed loop and bare loops in turn.

A bare loop is what anybody would write with CUDA events: record, execute, record, synchronise. It drives the
same execution context, buffers and stream, so that only the measuring differs.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from levels_child import inputs_of

from perfgate.engine import get_backend
from perfgate.engine.gpu import choose
from perfgate.engine.interface import Runner
from perfgate.measure.device_watch import watching
from perfgate.records import Case, Protocol, Record
from perfgate.util.process import serve

Loop = Callable[[], float]


class OverheadRequest(Record):
    """`rounds` times all contestants in a random order, `samples` each."""

    engine: str
    case: Case
    folder: str
    device: str
    rounds: int
    samples: int
    warmup_ns: int
    seed: int


class OverheadReply(Record):
    """Medians in nanoseconds by contestant, one a round."""

    medians_ns: dict[str, tuple[float, ...]]


def work(request: OverheadRequest) -> OverheadReply:
    """Load once, warm up, and let the contestants take turns."""
    backend = get_backend(request.case.backend, request.device)
    choose(request.device)
    protocol = Protocol(duration_ns=0, min_samples=request.samples, max_samples=request.samples)
    medians: dict[str, list[float]] = {}
    with (
        watching(backend.kind, request.device, protocol) as watch,
        backend.load(Path(request.engine), request.case) as runner,
    ):
        runner.bind(inputs_of(runner, request.case, Path(request.folder)))
        loops = {
            "perfgate": lambda: statistics.median(runner.take(protocol).samples_ns),
            "perfgate+telemetry": lambda: statistics.median(
                watch.around(lambda: runner.take(protocol)).samples_ns
            ),
            **_bare_loops(runner, request.samples, on_gpu=backend.kind == "gpu"),
        }
        warm_until = time.perf_counter_ns() + request.warmup_ns
        while time.perf_counter_ns() < warm_until:
            runner.infer()
        draw = random.Random(request.seed)
        for _ in range(request.rounds):
            turn = list(loops)
            draw.shuffle(turn)
            for name in turn:
                medians.setdefault(name, []).append(loops[name]())
        loops.clear()  # they hold CUDA objects, which must go before the context does
    return OverheadReply(medians_ns={name: tuple(values) for name, values in medians.items()})


def _bare_loops(runner: Runner, samples: int, *, on_gpu: bool) -> dict[str, Loop]:
    if not on_gpu:
        return {"bare": lambda: _host_loop(runner.infer, samples)}
    return {
        "bare": lambda: _queued_loop(runner, samples),
        "bare, one at a time": lambda: _closed_loop(runner, samples),
    }


def _host_loop(infer: Callable[[], None], samples: int) -> float:
    times: list[float] = []
    for _ in range(samples):
        before = time.perf_counter_ns()
        infer()
        times.append(time.perf_counter_ns() - before)
    return statistics.median(times)


def _execution(runner: Any) -> tuple[Any, Callable[[], object]]:
    """The runner's stream, and what puts one execution on it: TensorRT's own call, or CUDA's for a graph."""
    lane = runner._lanes[0]
    if lane.graph is not None:
        from cuda.bindings import driver

        graph, handle = lane.graph._exec, driver.CUstream(int(lane.stream.handle))
        return lane.stream, lambda: driver.cuGraphLaunch(graph, handle)
    return lane.stream, lambda: lane.context.execute_async_v3(lane.stream.handle)


def _closed_loop(runner: Any, samples: int) -> float:
    """One query at a time. Between its first event and its first kernel the device waits for the host,
    which is the loop's time and not the network's."""
    import pycuda.driver as cuda

    stream, execute = _execution(runner)
    begin, end = cuda.Event(), cuda.Event()
    times: list[float] = []
    for _ in range(samples):
        begin.record(stream)
        execute()
        end.record(stream)
        end.synchronize()
        times.append(end.time_since(begin) * 1e6)
    return statistics.median(times)


def _queued_loop(runner: Any, samples: int) -> float:
    """The same with the next query enqueued before the last one is waited for, as trtexec does."""
    import pycuda.driver as cuda

    stream, execute = _execution(runner)
    pairs = [(cuda.Event(), cuda.Event()) for _ in range(2)]
    times: list[float] = []
    for number in range(samples + 2):
        if number >= 2:
            begin, end = pairs[number % 2]
            end.synchronize()
            times.append(end.time_since(begin) * 1e6)
        begin, end = pairs[number % 2]
        begin.record(stream)
        execute()
        end.record(stream)
    stream.synchronize()
    return statistics.median(times[1:])


if __name__ == "__main__":
    serve(OverheadRequest, work)
