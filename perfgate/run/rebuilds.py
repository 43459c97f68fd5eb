"""Build luck in a confirmation: where a verdict may be the build's doing, engines are built anew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from msgspec.structs import replace

from perfgate.engine.interface import BuildRequest
from perfgate.errors import CaseError
from perfgate.gate.statistics.build_variance import fastest, good, over_builds
from perfgate.gate.statistics.sequential import LEAST_LAUNCHES
from perfgate.gate.verdict.evidence import ConfirmedLaunches
from perfgate.measure.launch import EngineTarget, LaunchRequest
from perfgate.measure.schedule import Job
from perfgate.records import EngineFacts, Launch, Outcome, RebuildPolicy, Record, Verdict
from perfgate.run.base_engine import BaseEngine
from perfgate.run.trial import engine_digest, untuned_share_of

Build = Callable[[BuildRequest], tuple[Path, EngineFacts]]
Say = Callable[[str], None]


class TrialResult(Record):
    """A trial: head's job, the base that it was held against, the outcome and what was found."""

    head: Job
    base: BaseEngine
    outcome: Outcome
    fresh: ConfirmedLaunches


# A trial of a head against a base, as `perfgate.run.trial.run_trial` answers.
RunTrial = Callable[[Job, BaseEngine], tuple[Outcome, ConfirmedLaunches | str | None]]


class Rebuilds:
    """Draws builds of either side. `build_head` and `build_base` build by request, or take from the cache;
    `one` makes a launch, for the choice among base's builds."""

    def __init__(
        self, build_head: Build, build_base: Build, one: Callable[[LaunchRequest], Launch], say: Say
    ) -> None:
        self._build_head, self._build_base, self._one, self._say = build_head, build_base, one, say

    def settle(self, first: TrialResult, draws: RebuildPolicy, hold: RunTrial) -> TrialResult:
        """The trial that counts, after as many more builds as its verdict needs, each with its own budget.

        Nothing more is built where the timing cache told both builds, or where both are the same bytes.
        """
        if draws.builds == 1 or engine_digest(first.head) == engine_digest(first.base.job):
            return first
        sitting = _CaseRebuilds(self, first, draws, hold)
        if draws.pick == "best":
            return sitting.best()
        return sitting.any() if has_untuned_layers(first.head) else first

    def head(self, job: Job, number: int, builds: int) -> Job | None:
        """Another build of head; None where it fails."""
        return self._drawn(job, number, self._build_head, f"build {number + 1} of {builds} of head")

    def best_base(self, base: BaseEngine, builds: int) -> tuple[BaseEngine, int]:
        """The fastest of so many builds of base, by a few launches of each in turn, and their time (ns)."""
        drawn = {engine_digest(base.job): base.job}
        for number in range(1, builds):
            job = self._drawn(base.job, number, self._build_base, f"build {number + 1} of {builds} of base")
            if job is not None:
                drawn.setdefault(engine_digest(job), job)
        jobs = list(drawn.values())
        medians: list[list[float]] = [[] for _ in jobs]
        spent_ns = 0
        for _ in range(LEAST_LAUNCHES if len(jobs) > 1 else 0):
            for job, values in zip(jobs, medians, strict=True):
                try:
                    launch = self._one(LaunchRequest(target=job.target, protocol=job.protocol))
                except CaseError as error:
                    self._say(f"{job.case_id}: a build of base does not launch: {error.what}")
                    continue
                spent_ns += launch.load_ns + launch.first_inference_ns + launch.wall_ns
                values += [] if launch.invalid else [launch.median_ns]
        best = jobs[fastest(medians)]
        note = f"base is the fastest of {len(jobs)} engines in {builds} builds"
        return replace(base, job=best, notes=(*base.notes, note)), spent_ns

    def _drawn(self, job: Job, number: int, build: Build, what: str) -> Job | None:
        self._say(f"{job.case_id}: {what}, for the luck of the build")
        try:
            return rebuild(job, number, build)
        except CaseError as error:
            self._say(f"{job.case_id}: that build failed, and is left out: {error.what}")
            return None


class _CaseRebuilds:
    """One case's builds: those of head that were held, and the base that they are held against."""

    def __init__(self, luck: Rebuilds, first: TrialResult, draws: RebuildPolicy, hold: RunTrial) -> None:
        self._luck, self._draws, self._hold = luck, draws, hold
        self._first, self._base = first, first.base
        self._held = [first]
        self._known = {engine_digest(first.head): first}
        self._spent_ns = first.fresh.confirmation.gpu_ns
        # Told by its cache, head has one build.
        self._left = list(range(1, draws.builds)) if has_untuned_layers(first.head) else []

    def best(self) -> TrialResult:
        """Head's builds in turn until one passes, against the best of base's where that was built anew."""
        self._until_good()
        if good(self._held[-1].fresh.decision) and has_untuned_layers(self._base.job):
            # A slow build of base would let a slower head pass: only the best of base's builds excuses.
            lucky = self._held[-1].head
            self._base, spent_ns = self._luck.best_base(self._base, self._draws.builds)
            self._spent_ns += spent_ns
            if engine_digest(self._base.job) != engine_digest(self._first.base.job):
                self._held, self._known = [], {}
                self._take(lucky)
                self._until_good()
        return self._chosen()

    def any(self) -> TrialResult:
        """All of head's builds."""
        while self._left:
            self._next()
        return self._chosen()

    def _until_good(self) -> None:
        while self._left and self._held and not good(self._held[-1].fresh.decision):
            self._next(twice=True)

    def _next(self, *, twice: bool = False) -> None:
        head = self._luck.head(self._first.head, self._left.pop(0), self._draws.builds)
        if head is None:
            return
        if (again := self._known.get(engine_digest(head))) is not None:
            self._held.append(again)
            return
        self._take(head)
        if twice and self._held[-1].head is head and good(self._held[-1].fresh.decision):
            # One of six that passes by chance is likelier than one of one: it has to pass twice.
            self._held.pop()
            self._take(head)

    def _take(self, head: Job) -> None:
        outcome, fresh = self._hold(head, self._base)
        if isinstance(fresh, ConfirmedLaunches):
            held = TrialResult(head=head, base=self._base, outcome=outcome, fresh=fresh)
            self._spent_ns += fresh.confirmation.gpu_ns
            self._known[engine_digest(head)] = held
            self._held.append(held)

    def _chosen(self) -> TrialResult:
        """The trial of the build that is gated, with what all of them told and took."""
        held = self._held or [self._first]
        index, decision = over_builds([one.fresh.decision for one in held], self._draws)
        chosen, confirmation = held[index], held[index].fresh.confirmation
        lines: tuple[str, ...] = ()
        if len(held) > 1:
            lines = tuple(
                f"build {number + 1} of head: {(one.fresh.decision.ratio.estimate - 1) * 100:+.1f} %"
                for number, one in enumerate(held)
            )
        confirmation = replace(
            confirmation,
            notes=(*confirmation.notes, *lines),
            gpu_ns=self._spent_ns,
            decided=decision.verdict not in (None, Verdict.INCONCLUSIVE),
        )
        return replace(chosen, fresh=replace(chosen.fresh, decision=decision, confirmation=confirmation))


def has_untuned_layers(job: Job) -> bool:
    """Whether no timing cache told all of a job's engine, and it can be built again."""
    return untuned_share_of(job) > 0


def rebuild(job: Job, number: int, build: Build) -> Job:
    """The same job with the engine of another build of its recipe. Raises `CaseError`."""
    assert job.request is not None and isinstance(job.target, EngineTarget)
    request = replace(job.request, recipe=replace(job.request.recipe, draw=number))
    engine, facts = build(request)
    target = replace(job.target, engine=str(engine.resolve()))
    return replace(job, target=target, engine=facts, request=request)
