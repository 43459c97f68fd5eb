"""A launch: one fresh process that loads, warms up, and takes samples.

`launch` is the controller's side; `python -m perfgate.measure.launch` is the process itself, which speaks
the protocol of `perfgate.util.process`.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from perfgate.engine import get_backend
from perfgate.engine.interface import Runner, Samples, blocking_samples
from perfgate.errors import CaseError
from perfgate.measure.device_watch import watching
from perfgate.model.inputs import make_array
from perfgate.records import Case, InputData, Launch, Mode, Name, Protocol, Record
from perfgate.util.interpreter import HERE, Interpreter
from perfgate.util.process import call_child, serve
from perfgate.util.user_script import load_script


class EngineTarget(Record, tag="engine"):
    """An engine file, run by the case's backend on inputs made as the case says. `axes` are the graph's, for
    an engine that was built elsewhere and does not name its dimensions."""

    engine: str
    case: Case
    folder: str
    device: str = "auto"
    axes: dict[Name, tuple[int | str, ...]] = {}

    def in_mode(self, mode: Mode) -> EngineTarget:
        return msgspec.structs.replace(self, case=msgspec.structs.replace(self.case, mode=mode))

    def enqueued(self) -> EngineTarget:
        """The same with the execution enqueued, where no CUDA graph can hold it."""
        return self.in_mode(msgspec.structs.replace(self.case.mode, drive="enqueue"))


class CallableTarget(Record, tag="callable"):
    """A function of a Python file. Called once, it loads and returns the callable that is timed."""

    file: str
    function: Name


class LaunchRequest(Record):
    target: EngineTarget | CallableTarget
    protocol: Protocol


def launch(request: LaunchRequest, python: Interpreter = HERE) -> Launch:
    """One launch, a process of `python`. Raises `CaseError` when it crashes, hangs past its timeout or prints
    garbage."""
    timeout_s = request.protocol.timeout_s
    return call_child("perfgate.measure.launch", request, Launch, timeout_s=timeout_s, python=python)


def _serve(request: LaunchRequest) -> Launch:
    target = request.target
    if isinstance(target, EngineTarget):
        return _launch_engine(target, request.protocol)
    return _launch_callable(target, request.protocol)


def _launch_engine(target: EngineTarget, protocol: Protocol) -> Launch:
    backend = get_backend(target.case.backend, target.device)
    with watching(backend.kind, target.device, protocol) as watch:
        started = time.perf_counter_ns()
        with backend.load(Path(target.engine), target.case, target.axes) as runner:
            load_ns = time.perf_counter_ns() - started
            runner.bind(_inputs(runner, target))
            result = _measure(
                runner.infer, lambda: watch.around(lambda: runner.take(protocol)), load_ns, protocol
            )
            result = msgspec.structs.replace(
                result,
                deserialisation_ns=runner.deserialisation_ns,
                first_inference_ns=runner.first_inference_ns or result.first_inference_ns,
            )
        return watch.complete(result)


def _inputs(runner: Runner, target: EngineTarget) -> dict[str, Any]:
    return {
        tensor.name: make_array(tensor, target.case.inputs.get(tensor.name, InputData()), Path(target.folder))
        for tensor in runner.inputs
    }


def _launch_callable(target: CallableTarget, protocol: Protocol) -> Launch:
    started = time.perf_counter_ns()
    module = load_script(Path(target.file))
    work = getattr(module, target.function)()
    if not callable(work):
        raise CaseError(
            f"{target.function} returned {type(work).__name__}, not a callable",
            fix="it must load what it needs and return the function to time",
        )
    load_ns = time.perf_counter_ns() - started
    with watching("cpu", "cpu", protocol) as watch:
        take = functools.partial(watch.around, lambda: blocking_samples(work, protocol))
        return watch.complete(_measure(work, take, load_ns, protocol))


def _measure(
    infer: Callable[[], object], take: Callable[[], Samples], load_ns: int, protocol: Protocol
) -> Launch:
    """First inference, warm-up, then the timed loop."""
    started = time.perf_counter_ns()
    infer()
    first_ns = time.perf_counter_ns() - started
    while time.perf_counter_ns() - started < protocol.warmup_ns:
        infer()
    samples = take()
    return Launch(
        samples_ns=samples.samples_ns,
        wall_ns=samples.wall_ns,
        load_ns=load_ns,
        first_inference_ns=first_ns,
        peak_memory_bytes=_peak_memory_bytes(),
        other_ns=samples.other_ns,
    )


def _peak_memory_bytes() -> int:
    """This process's peak resident set. Not `ru_maxrss`: Linux carries the parent's over an exec."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


if __name__ == "__main__":
    serve(LaunchRequest, _serve)
