"""What a backend is: it builds an engine from ONNX, loads it, runs it, and says what it built.

One module a backend. A backend imports its GPU library only when one of these methods is called, and
`build` and `load` are called in child processes only, so no CUDA context ever lives in the controller.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from perfgate.errors import CaseError, PerfgateError
from perfgate.records import Case, Count, EngineFacts, Mode, Protocol, Recipe, Record, Series, Tensor
from perfgate.util.files import file_digest
from perfgate.util.process import TAIL_BYTES

if TYPE_CHECKING:
    import numpy as np
    from typing_extensions import Self


# The axes of each input: sizes, and the names of dynamic dimensions.
Axes = Mapping[str, tuple[int | str, ...]]
PROGRESS_PREFIX = "perfgate-progress "
"""Begins each line in which a build says, on standard error, what it is at."""


class Script(Record):
    """A model script with the arguments of its functions."""

    path: str
    seed: int
    args: dict[str, int | float | str | bool] = {}


class Samples(Record):
    """What one timed loop yields; see `records.Launch` for the meaning of the fields."""

    samples_ns: Series
    wall_ns: int
    other_ns: dict[str, Series] = {}


class LayerTimes(Record):
    """What one profiled load yields: nanoseconds a query by layer, in the order of execution. A layer's time
    is a mean over part of its `queries` times, so that one interrupted query moves nothing."""

    layers_ns: dict[str, float]
    queries: Count


def middle_mean(values: Sequence[float]) -> float:
    """The interquartile mean: robust as the median is, and not stuck to the steps of a coarse clock."""
    ordered = sorted(values)
    quarter = len(ordered) // 4
    middle = ordered[quarter : len(ordered) - quarter]
    return sum(middle) / len(middle)


def faster_half_mean(values: Sequence[float]) -> float:
    """The mean of the faster half: on a CPU that others use too, what disturbs a query only adds to it."""
    ordered = sorted(values)
    half = ordered[: max(1, len(ordered) // 2)]
    return sum(half) / len(half)


class BuildRequest(Record):
    """One build, as it travels to the child process. Paths are absolute; the engine cache sets `engine` and
    `timing_cache_out`. `script` is the model script, for backends that run a model's PyTorch twin;
    `islands` are nodes that must stay in FP32; `plugins` are the recipe's libraries, in its order. `prebuilt`
    asks what `engine` is, which was built elsewhere."""

    backend: str
    recipe: Recipe
    onnx: str
    engine: str = ""
    device: str = "auto"
    script: Script | None = None
    timing_cache: str = ""
    timing_cache_out: str = ""
    islands: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()
    prebuilt: bool = False


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Without garbage collection: one in the middle of a sample would be Python's time, not the model's."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def blocking_samples(infer: Callable[[], None], protocol: Protocol) -> Samples:
    """Time blocking calls, one after another, with the host's monotonic clock (nanoseconds)."""
    clock = time.perf_counter_ns
    samples: list[int] = []
    with uncollected():
        started = before = clock()
        while (before - started < protocol.duration_ns or len(samples) < protocol.min_samples) and len(
            samples
        ) < protocol.max_samples:
            infer()
            after = clock()
            samples.append(max(1, after - before))
            before = after
    return Samples(samples_ns=tuple(samples), wall_ns=max(1, before - started))


@contextlib.contextmanager
def named(what: str, *, fix: str | None = None) -> Iterator[None]:
    """Whatever a library or the model raises is the case's fault: `CaseError` with the traceback's end."""
    try:
        yield
    except PerfgateError:
        raise
    except Exception as error:
        said = str(error).strip() or "no reason given"
        tail = traceback.format_exc()[-TAIL_BYTES:]
        raise CaseError(
            f"{what}: {type(error).__name__}: {said[:2000]}", stderr_tail=tail, fix=fix
        ) from error


_WAITS: tuple[Literal["spin", "block"], ...] = ("spin", "block")


def modes_of_one_stream(*drives: Literal["enqueue", "graph"]) -> tuple[Mode, ...]:
    """All modes of a GPU on one stream, these ways to drive it in their order."""
    modes = itertools.product((False, True), drives, _WAITS)
    return tuple(Mode(drive=drive, transfers=transfers, wait=wait) for transfers, drive, wait in modes)


class Runner(ABC):
    """A loaded engine with its buffers, ready to infer. Use as a context manager.

    What loading took of itself, in nanoseconds, None where that is not told apart: `deserialisation_ns` from
    the file's bytes to an engine, `first_inference_ns` for an execution that loading had to run (before a
    CUDA graph is captured): it is the first, and those that follow are warm.
    """

    deserialisation_ns: int | None = None
    first_inference_ns: int | None = None

    @property
    @abstractmethod
    def inputs(self) -> tuple[Tensor, ...]:
        """The inputs at the measured shape."""

    @abstractmethod
    def bind(self, inputs: Mapping[str, np.ndarray]) -> None:
        """Give the inputs, C-contiguous arrays of exactly the shapes and types in `inputs`."""

    @abstractmethod
    def infer(self) -> None:
        """One inference in the runner's mode; returns when its outputs are complete."""

    @abstractmethod
    def take(self, protocol: Protocol) -> Samples:
        """The timed loop: samples of the mode's latency, in nanoseconds."""

    @abstractmethod
    def outputs(self) -> dict[str, np.ndarray]:
        """The outputs of the last inference, on the host."""

    def close(self) -> None:  # noqa: B027
        """Free everything; safe to call twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Backend(ABC):
    """One way to run a model."""

    name: str

    @abstractmethod
    def unavailable(self) -> str | None:
        """Why this backend cannot run on this machine, or None. Must not raise."""

    @abstractmethod
    def versions(self) -> dict[str, str]:
        """The libraries that decide an engine's bytes, by distribution name."""

    @abstractmethod
    def modes(self) -> tuple[Mode, ...]:
        """The modes this backend can measure in, the default first."""

    @property
    @abstractmethod
    def kind(self) -> str:
        """`cpu` or `gpu`: what this backend runs on here."""

    @abstractmethod
    def build_options(self, source_digest: str = "") -> dict[str, str | int | float | bool]:
        """What this machine adds to every recipe; a spec's own options go over it. `source_digest` is the
        model script's, for backends that run more of the script than the ONNX file that it writes."""

    def typing(self) -> Literal["weak", "strong"]:
        """Whether precision is a builder's choice (`weak`, TensorRT before 10) or the graph's own."""
        return "strong"

    def takes_graph(self) -> bool:
        """Whether a case's precision is its ONNX graph's, converted beforehand; False where the backend runs
        something else than the graph."""
        return True

    @abstractmethod
    def device(self) -> str:
        """The name of the device that engines are built for, such as `NVIDIA H200` or the CPU's model."""

    @abstractmethod
    def refuses(self, case: Case) -> str | None:
        """Why a case is listed as not run on this backend and device, or None."""

    @abstractmethod
    def build(self, request: BuildRequest) -> EngineFacts:
        """Build and serialise the engine to `request.engine`. Raises `CaseError`."""

    def inspect(self, request: BuildRequest) -> EngineFacts:
        """What can be told of `request.engine`, which was built elsewhere. Raises `CaseError`."""
        path = Path(request.engine)
        return EngineFacts(
            digest=file_digest(path), engine_bytes=path.stat().st_size, notes=("built elsewhere",)
        )

    @abstractmethod
    def load(self, engine: Path, case: Case, axes: Axes | None = None) -> Runner:
        """Deserialise the engine and allocate its buffers for the case's shape and mode. `axes` are the
        graph's, for an engine that does not name its dimensions.

        Raises `CaseError`.
        """

    def profile(
        self,
        engine: Path,
        case: Case,
        make: Callable[[Tensor], np.ndarray],
        *,
        queries: int,
        axes: Axes | None = None,
    ) -> LayerTimes:
        """Load the engine as `load` does, run it with its own layer profiler on, and time each layer.

        Never part of a timed launch: a profiler slows an engine down and forbids a CUDA graph. Raises
        `CaseError`, also where the backend has no such profiler.
        """
        raise CaseError(f"the backend {self.name} has no profile of layers")
