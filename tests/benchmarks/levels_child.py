"""The process of `levels.py`: it loads one engine several times and takes samples of each load."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from perfgate.engine import get_backend
from perfgate.engine.gpu import choose
from perfgate.engine.interface import Backend, Runner
from perfgate.measure.device_watch import watching
from perfgate.model.inputs import make_array
from perfgate.records import Case, InputData, Launch, Protocol, Record
from perfgate.util.process import serve

_PADDING_BYTES = 256 << 20


class LevelsRequest(Record):
    """What one process does: `loads` times load, warm up for `warmup_ns` and take `samples`."""

    engine: str
    case: Case
    folder: str
    device: str
    loads: int
    samples: int
    warmup_ns: int
    seed: int


class Load(Record):
    """One load: its samples, what they cost, and what the device did (mean SM clock in MHz)."""

    samples_ns: tuple[int, ...]
    load_ns: int
    sampling_ns: int
    padding_bytes: int
    sm_clock_mhz: float = 0.0
    invalid: str = ""


class LevelsReply(Record):
    loads: tuple[Load, ...]


def work(request: LevelsRequest) -> LevelsReply:
    """All loads of this process, each behind a padding of its own so that addresses move."""
    backend = get_backend(request.case.backend, request.device)
    choose(request.device)
    draw = random.Random(request.seed)
    protocol = Protocol(duration_ns=0, min_samples=request.samples, max_samples=request.samples)
    found = []
    # The watch first: it notes who was on the device before our own CUDA context.
    with watching(backend.kind, request.device, protocol) as watch, _allocator(backend) as pad:
        for _ in range(request.loads):
            size = draw.randrange(1, _PADDING_BYTES)
            with pad(size):
                found.append(_load(backend, request, watch, protocol, size))
    return LevelsReply(loads=tuple(found))


def _load(backend: Backend, request: LevelsRequest, watch: Any, protocol: Protocol, size: int) -> Load:
    started = time.perf_counter_ns()
    with backend.load(Path(request.engine), request.case) as runner:
        runner.bind(inputs_of(runner, request.case, Path(request.folder)))
        warm_until = time.perf_counter_ns() + request.warmup_ns
        runner.infer()
        while time.perf_counter_ns() < warm_until:
            runner.infer()
        load_ns = time.perf_counter_ns() - started
        samples = watch.around(lambda: runner.take(protocol))
    seen = watch.complete(
        Launch(samples_ns=samples.samples_ns, wall_ns=samples.wall_ns, load_ns=load_ns, first_inference_ns=0)
    )
    clocks = seen.telemetry.sm_clock_mhz if seen.telemetry else ()
    return Load(
        samples_ns=samples.samples_ns,
        load_ns=load_ns,
        sampling_ns=samples.wall_ns,
        padding_bytes=size,
        sm_clock_mhz=round(sum(clocks) / len(clocks), 1) if clocks else 0.0,
        invalid=seen.invalid,
    )


def inputs_of(runner: Runner, case: Case, folder: Path) -> dict[str, Any]:
    """The inputs as the case's spec says, bit for bit those of a launch."""
    return {
        tensor.name: make_array(tensor, case.inputs.get(tensor.name, InputData()), folder)
        for tensor in runner.inputs
    }


@contextlib.contextmanager
def _allocator(backend: Backend) -> Iterator[Callable[[int], contextlib.AbstractContextManager[None]]]:
    """What makes a padding of so many bytes, on the device where there is one.

    A GPU's context stays open meanwhile: closing the last one would free the padding with everything else.
    """
    if backend.kind == "cpu":
        yield _host_padding
        return
    from perfgate.engine.tensorrt.cuda import CudaContext

    context = CudaContext()

    @contextlib.contextmanager
    def device_padding(size: int) -> Iterator[None]:
        memory = context.cuda.mem_alloc(size)
        try:
            yield
        finally:
            memory.free()

    try:
        yield device_padding
    finally:
        context.close()


@contextlib.contextmanager
def _host_padding(size: int) -> Iterator[None]:
    kept = bytearray(size)
    yield
    del kept


if __name__ == "__main__":
    serve(LevelsRequest, work)
