"""The order of launches: interleaved across cases in rounds, so that drift spreads over all of them."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol as Shape

from perfgate.engine.interface import BuildRequest
from perfgate.errors import CaseError
from perfgate.measure.launch import CallableTarget, EngineTarget, LaunchRequest, launch
from perfgate.records import EngineFacts, Failed, Launch, Measured, Mode, Name, Outcome, Protocol, Record

RETRIES = 3
_CRASHES = ("SIGABRT", "SIGSEGV")


class Job(Record, kw_only=True):
    """One case to measure: what to launch, the engine's facts to report beside the launches, and how it
    was built (None where it was given, or only kept). The request's ONNX file lasts as long as the run.
    `onnx_digest` is the graph of this side of the change; empty where the engine is known by its own
    bytes."""

    case_id: Name
    target: EngineTarget | CallableTarget
    protocol: Protocol
    engine: EngineFacts | None = None
    request: BuildRequest | None = None
    onnx_digest: str = ""

    def launch_request(self) -> LaunchRequest:
        """Raises `CaseError` where the engine was built for another graph than this side's."""
        built_for = self.engine.onnx_digest if self.engine else ""
        if self.onnx_digest and built_for and built_for != self.onnx_digest:
            raise CaseError(
                f"the engine was built for the graph {built_for[:12]}, and this side's is "
                f"{self.onnx_digest[:12]}: a fault of perfgate's own",
                fix="please report it; until then remove .perfgate/engines and run again",
            )
        return LaunchRequest(target=self.target, protocol=self.protocol)


class Progress(Shape):
    """Told about each launch; a terminal draws a bar, a log gets lines."""

    def start(self, total: int) -> None: ...
    def step(self, case_id: str, note: str) -> None: ...


def measure(
    jobs: Sequence[Job],
    progress: Progress,
    *,
    checkpoint: Callable[[dict[str, Outcome]], None] = lambda _: None,
    one: Callable[[LaunchRequest], Launch] = launch,
) -> tuple[dict[str, Outcome], bool]:
    """Measure all jobs. Returns the outcome by case id, and whether Ctrl-C cut it short.

    A case whose launch fails is `Failed` and is launched no more; the others go on. An invalid launch (the
    device was slowed down, or not ours alone) is kept and measured again, at most `RETRIES` times a case.
    What was measured before an interrupt is kept, though it is fewer launches than the protocol asks for.
    """
    done: dict[str, list[Launch]] = {job.case_id: [] for job in jobs}
    failed: dict[str, Failed] = {}
    interrupted = False
    progress.start(sum(job.protocol.launches for job in jobs))
    try:
        queue = deque(order(jobs))
        again = {job.case_id: RETRIES for job in jobs}
        while queue:
            job = queue.popleft()
            if job.case_id in failed:
                progress.step(job.case_id, "skipped: an earlier launch failed")
                continue
            try:
                result = one(job.launch_request())
            except CaseError as error:
                failed[job.case_id] = launch_failed(error, job.target)
                progress.step(job.case_id, f"failed: {error.what}")
                continue
            done[job.case_id].append(result)
            note = f"{result.median_ns / 1e6:.4g} ms"
            if result.invalid:
                note = f"invalid: {result.invalid}"
            if result.invalid and again[job.case_id]:
                again[job.case_id] -= 1
                queue.append(job)
                note = f"invalid, to be measured again: {result.invalid}"
            progress.step(job.case_id, note)
            checkpoint({job.case_id: _outcome(job, done[job.case_id], failed) for job in jobs})
    except KeyboardInterrupt:
        interrupted = True
    return {job.case_id: _outcome(job, done[job.case_id], failed) for job in jobs}, interrupted


def launch_failed(error: CaseError, target: EngineTarget | CallableTarget) -> Failed:
    """A launch's failure, at the capture of its CUDA graph where that is why."""
    captured = isinstance(target, EngineTarget) and not_capturable(error, target.case.mode)
    return Failed.by("capture" if captured else "launch", error)


def not_capturable(error: CaseError, mode: Mode) -> bool:
    """Whether the network may be one that no CUDA graph can hold. TensorRT aborts at the capture of some,
    such as one that chooses between branches, so that in a graph's mode a crash counts as that."""
    return error.kind == "GraphCaptureError" or (mode.drive == "graph" and error.kind in _CRASHES)


def order(jobs: Sequence[Job]) -> list[Job]:
    """Rounds over all jobs, each round in a random order of its own, the same in every run."""
    rounds = []
    for number in range(max((job.protocol.launches for job in jobs), default=0)):
        turn = [job for job in jobs if number < job.protocol.launches]
        random.Random(number).shuffle(turn)  # noqa: S311
        rounds += turn
    return rounds


def _outcome(job: Job, launches: list[Launch], failed: dict[str, Failed]) -> Outcome:
    if job.case_id in failed:
        return failed[job.case_id]
    if not launches:
        return Failed(stage="interrupted", reason="interrupted before its first launch")
    return Measured(engine=job.engine, launches=tuple(launches))
