"""Build luck in a confirmation: where a verdict may be the build's doing, engines are built anew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from msgspec.structs import replace

from perfgate.bases import BaseEngine
from perfgate.engine.interface import BuildRequest
from perfgate.errors import CaseError
from perfgate.gate.build_luck import built_anew, draw_again, fastest, over_builds
from perfgate.gate.evidence import Fresh
from perfgate.gate.sequential import LEAST_LAUNCHES
from perfgate.measure.launch import EngineTarget, LaunchRequest
from perfgate.measure.schedule import Job
from perfgate.records import Draws, EngineFacts, Launch, Outcome, Record, Verdict

Build = Callable[[BuildRequest], tuple[Path, EngineFacts]]
Say = Callable[[str], None]


class Held(Record):
    """A trial: head's job, the base that it was held against, the outcome and what was found."""

    head: Job
    base: BaseEngine
    outcome: Outcome
    fresh: Fresh


# A trial of a head against a base, as `perfgate.trial.hold` answers.
Hold = Callable[[Job, BaseEngine], tuple[Outcome, Fresh | str | None]]


class Luck:
    """Draws builds of either side. `build_head` and `build_base` build by request, or take from the cache;
    `one` makes a launch, for the choice among base's builds."""

    def __init__(
        self, build_head: Build, build_base: Build, one: Callable[[LaunchRequest], Launch], say: Say
    ) -> None:
        self._build_head, self._build_base, self._one, self._say = build_head, build_base, one, say

    def settle(self, first: Held, draws: Draws, hold: Hold) -> Held:
        """The trial that counts, after as many more builds as its verdict needs.

        Nothing more is built where the timing cache told head's build, or where it passes and `pick` is
        `best`. Base, where it was built anew too, is then the best of as many builds (with `any`: as it is).
        """
        decisions = [first.fresh.decision]
        if not anew(first.head) or not draw_again(decisions, draws):
            return first
        base = first.base
        if draws.pick == "best" and anew(base.job):
            base = self._best_base(base, draws.builds)
        held, known = [first], {_digest(first.head): first}
        while draw_again([one.fresh.decision for one in held], draws):
            number = len(held)
            self._say(
                f"{first.head.case_id}: build {number + 1} of {draws.builds}, for the luck of the build"
            )
            try:
                head = draw(first.head, number, self._build_head)
            except CaseError as error:
                self._say(f"{first.head.case_id}: that build failed, and is left out: {error.what}")
                break
            again = known.get(_digest(head))
            if again is None:
                outcome, fresh = hold(head, base)
                if not isinstance(fresh, Fresh):
                    self._say(f"{head.case_id}: that build could not be launched, and is left out")
                    break
                again = known[_digest(head)] = Held(head=head, base=base, outcome=outcome, fresh=fresh)
            held.append(again)
        return _chosen(held, draws)

    def _best_base(self, base: BaseEngine, builds: int) -> BaseEngine:
        """The fastest of so many builds of base, by a few launches of each in turn."""
        drawn = {_digest(base.job): base.job}
        for number in range(1, builds):
            self._say(f"{base.job.case_id}: build {number + 1} of {builds} of base")
            try:
                job = draw(base.job, number, self._build_base)
            except CaseError as error:
                self._say(f"{base.job.case_id}: that build of base failed, and is left out: {error.what}")
                continue
            drawn.setdefault(_digest(job), job)
        if len(drawn) == 1:
            return base
        jobs = list(drawn.values())
        medians: list[list[float]] = [[] for _ in jobs]
        for _ in range(LEAST_LAUNCHES):
            for job, values in zip(jobs, medians, strict=True):
                launch = self._one(LaunchRequest(target=job.target, protocol=job.protocol))
                values += [] if launch.invalid else [launch.median_ns]
        best = jobs[fastest(medians)]
        return replace(base, job=best, notes=(*base.notes, f"base is the fastest of {builds} builds"))


def anew(job: Job) -> bool:
    """Whether the timing cache did not tell all of a job's engine."""
    request = job.request
    if request is None or not isinstance(job.target, EngineTarget):
        return False
    loaded = Path(request.timing_cache).stat().st_size if request.timing_cache else 0
    return built_anew(job.engine, loaded)


def draw(job: Job, number: int, build: Build) -> Job:
    """The same job with the engine of another build of its recipe. Raises `CaseError`."""
    assert job.request is not None and isinstance(job.target, EngineTarget)
    request = replace(job.request, recipe=replace(job.request.recipe, draw=number))
    engine, facts = build(request)
    target = replace(job.target, engine=str(engine.resolve()))
    return replace(job, target=target, engine=facts, request=request)


def _digest(job: Job) -> str:
    return job.engine.digest if job.engine else ""


def _chosen(held: list[Held], draws: Draws) -> Held:
    index, decision = over_builds([one.fresh.decision for one in held], draws)
    chosen = held[index]
    taken = {id(one): one.fresh.confirmation for one in held}.values()
    lines = [
        f"build {number + 1} of head: {(one.fresh.decision.ratio.estimate - 1) * 100:+.1f} %"
        for number, one in enumerate(held)
    ]
    confirmation = replace(
        chosen.fresh.confirmation,
        notes=(*chosen.fresh.confirmation.notes, *lines),
        gpu_ns=sum(one.gpu_ns for one in taken),
        decided=decision.verdict not in (None, Verdict.INCONCLUSIVE),
    )
    return replace(chosen, fresh=replace(chosen.fresh, decision=decision, confirmation=confirmation))
