"""Screen, then confirm: what is clearly as fast as its baseline passes; anything else is launched anew, base
and head in turn, until a sequential test has decided or the budget is spent."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence

import msgspec

from perfgate.gate.baselines import Baselines, Stored, days_of, runs_of
from perfgate.gate.statistics.build_variance import untuned_share
from perfgate.gate.statistics.noise import Spread, spread_of
from perfgate.gate.statistics.sequential import screen, worth_screening
from perfgate.gate.verdict.evidence import NONE, ConfirmedLaunches, Evidence
from perfgate.gate.verdict.judge import judge, kind_of
from perfgate.measure.environment import differences
from perfgate.measure.launch import CallableTarget, EngineTarget, LaunchRequest, launch
from perfgate.measure.schedule import Job, Progress, measure
from perfgate.records import (
    CaseResult,
    Confirmation,
    Environment,
    Failed,
    Judgement,
    Launch,
    Measured,
    Mode,
    Outcome,
    Protocol,
    Record,
    Verdict,
)
from perfgate.run.base_engine import BaseEngine, BaseEngines
from perfgate.run.rebuilds import Build, Rebuilds, TrialResult, has_untuned_layers
from perfgate.run.trial import Trial, TrialInterrupted, TrialTerms, run_trial

_SUSPECT = (Verdict.REGRESSION, Verdict.INCONCLUSIVE, Verdict.IMPROVEMENT)


class ConfirmContext(Record):
    """What a run is judged by. `budget` is launches a side, or seconds; the other is None."""

    baselines: Baselines
    environment: Environment
    protocol: Protocol
    default_mode: Mode
    budget: tuple[int | None, int | None]
    run_id: str


class Measurements(Record):
    """Outcomes by case id, what the gate is to know of each, where no base could be launched, why, and where
    another build than the first is gated, that one."""

    outcomes: dict[str, Outcome] = {}
    evidence: dict[str, Evidence] = {}
    without_base: dict[str, str] = {}
    builds: dict[str, Job] = {}
    interrupted: bool = False


class _Confirmed(Record):
    """A confirmation: without an outcome base could not be launched, and `why` says why."""

    outcome: Outcome | None = None
    evidence: Evidence = NONE
    build: Job | None = None
    why: str = ""
    interrupted: bool = False


class Measurer:
    """Measures the jobs of one run, under the device's lock. `build` makes another engine of head by its
    request, `one` a launch."""

    def __init__(
        self,
        court: ConfirmContext,
        bases: BaseEngines,
        progress: Progress,
        say: Callable[[str], None],
        build: Build,
        one: Callable[[LaunchRequest], Launch] | None = None,
    ) -> None:
        self._court, self._bases, self._progress, self._say = court, bases, progress, say
        # Looked up now, not when this file was read, so that a launch can be stood in for.
        self._one = one or launch
        self._luck = Rebuilds(build, bases.build, self._one, say)
        self._spread: dict[str, Spread] = {}

    def run(
        self,
        jobs: Sequence[Job],
        cases: Mapping[str, CaseResult],
        checkpoint: Callable[[dict[str, Outcome]], None],
    ) -> Measurements:
        """Every job measured, and its suspects confirmed. Ctrl-C keeps what was measured until then."""
        at_once = [job for job in jobs if self._at_once(job, cases[job.case_id])]
        first = [job for job in jobs if job not in at_once]
        outcomes, interrupted = self._screen(first, checkpoint)
        evidence = {key: self._screened(cases[key], outcome) for key, outcome in outcomes.items()}
        found = Measurements(outcomes=outcomes, evidence=evidence, interrupted=interrupted)
        suspects = [
            job
            for job in first
            if self._suspect(cases[job.case_id], outcomes[job.case_id], evidence[job.case_id])
        ]
        pending = [job for job in jobs if job in at_once or job in suspects]
        if interrupted:
            return _cut_short(found, [job.case_id for job in at_once], suspects=False)
        return self._confirm_all(pending, cases, found, checkpoint)

    def _confirm_all(
        self,
        pending: Sequence[Job],
        cases: Mapping[str, CaseResult],
        found: Measurements,
        checkpoint: Callable[[dict[str, Outcome]], None],
    ) -> Measurements:
        alone: dict[str, Job] = {}
        uncaptured: list[Job] = []
        left = [job.case_id for job in pending]
        try:
            for job in pending:
                case, first = cases[job.case_id], found.outcomes.get(job.case_id)
                job = _with_mode(job, first.mode) if isinstance(first, Measured) and first.mode else job
                base = self._bases.engine(case, _mode(job))
                if isinstance(base, BaseEngine):
                    confirmed = self._confirm(job, case, base, first)
                    outcome = confirmed.outcome
                    if outcome is not None and _needs_enqueue(outcome, job, self._court.default_mode):
                        uncaptured.append(job)
                        left.remove(job.case_id)
                        continue
                    if outcome is not None:
                        found = _with(found, job.case_id, outcome, confirmed.evidence, confirmed.build)
                        left.remove(job.case_id)
                        checkpoint({job.case_id: outcome})
                        if confirmed.interrupted:
                            raise KeyboardInterrupt
                        continue
                    base = f"base's launch failed: {confirmed.why}"
                alone[job.case_id] = job
                found = msgspec.structs.replace(
                    found, without_base={**found.without_base, job.case_id: str(base)}
                )
            outcomes, interrupted = self._screen(uncaptured, checkpoint)
            for key, one in outcomes.items():
                found = _with(found, key, one, NONE)
            if interrupted:
                raise KeyboardInterrupt
            return self._confirm_alone(list(alone.values()), cases, found, checkpoint)
        except KeyboardInterrupt:
            return _cut_short(msgspec.structs.replace(found, interrupted=True), left, suspects=True)

    def _confirm_alone(
        self,
        jobs: Sequence[Job],
        cases: Mapping[str, CaseResult],
        found: Measurements,
        checkpoint: Callable[[dict[str, Outcome]], None],
    ) -> Measurements:
        """Without a base to launch: fresh launches of head alone, against the stored ones."""
        if not jobs:
            return found
        names = ", ".join(job.case_id for job in jobs)
        self._say(f"measuring again, with fresh launches of head only: {names}")
        again, interrupted = measure(jobs, self._progress, checkpoint=checkpoint, one=self._one)
        for key, outcome in again.items():
            joined = _joined(found.outcomes.get(key), outcome)
            share = untuned_share(outcome.engine) if isinstance(outcome, Measured) else 0.0
            known = Evidence(spread=self._spread_of(cases[key]), share=share)
            found = _with(found, key, joined, known)
        return msgspec.structs.replace(found, interrupted=interrupted)

    # The screen

    def _screen(
        self, jobs: Sequence[Job], checkpoint: Callable[[dict[str, Outcome]], None]
    ) -> tuple[dict[str, Outcome], bool]:
        if not jobs:
            return {}, False
        outcomes, interrupted = measure(jobs, self._progress, checkpoint=checkpoint, one=self._one)
        if interrupted:
            return outcomes, interrupted
        enqueue = [
            _enqueued(job)
            for job in jobs
            if _needs_enqueue(outcomes[job.case_id], job, self._court.default_mode)
        ]
        if not enqueue:
            return outcomes, False
        # The mode that was measured is recorded, and is never compared with the other.
        names = ", ".join(job.case_id for job in enqueue)
        self._say(f"no CUDA graph can hold these, so they are enqueued: {names}")
        measured, interrupted = measure(enqueue, self._progress, one=self._one)
        modes = {job.case_id: _mode(job) for job in enqueue}
        return {**outcomes, **{key: _in_mode(one, modes[key]) for key, one in measured.items()}}, interrupted

    def _comparable(self, case: CaseResult, mode: Mode) -> Stored | None:
        stored = self._court.baselines.cases.get(case.case.id)
        if stored is None or stored.case.mode != mode:
            return None
        differ = differences(stored.environment.key, self._court.environment.key)
        return None if differ else stored

    def _spread_of(self, case: CaseResult) -> Spread:
        if case.case.id not in self._spread:
            stored = self._court.baselines.cases.get(case.case.id)
            runs, days = (runs_of(stored.case), days_of(stored.case)) if stored else ([], 0)
            self._spread[case.case.id] = spread_of(kind_of(self._court.environment), runs, days)
        return self._spread[case.case.id]

    def _at_once(self, job: Job, case: CaseResult) -> bool:
        """Whether the stored runs are too few to pass anything, and base can be launched: no screen then."""
        if isinstance(job.target, CallableTarget):
            return False
        stored = self._comparable(case, _mode(job))
        # A screen tells of one build, and "any" asks for all of them.
        all_builds = case.case.draws.pick == "any" and has_untuned_layers(job)
        if stored is None or (self._worth_screening(case, stored) and not all_builds):
            return False
        return isinstance(self._bases.engine(case, _mode(job)), BaseEngine)

    def _worth_screening(self, case: CaseResult, stored: Stored) -> bool:
        counts = [len(run) for run in runs_of(stored.case)]
        launches = self._court.protocol.launches
        return worth_screening(counts, launches, case.case.tolerance, self._spread_of(case))

    def _screened(self, case: CaseResult, outcome: Outcome) -> Evidence:
        """The screen's interval, where the stored runs allow one."""
        if not isinstance(outcome, Measured):
            return NONE
        spread = self._spread_of(case)
        stored = self._comparable(case, outcome.mode or case.case.mode)
        valid = [one.median_ns for one in outcome.launches if not one.invalid]
        if stored is None or not valid or not self._worth_screening(case, stored):
            return Evidence(spread=spread)
        interval = screen(runs_of(stored.case), valid, case.case.tolerance, spread)
        return Evidence(spread=spread, screened=interval)

    def _suspect(self, case: CaseResult, outcome: Outcome, known: Evidence) -> bool:
        if not isinstance(outcome, Measured):
            return False
        if self._comparable(case, outcome.mode or case.case.mode) is None:
            return False
        court = self._court
        found = judge(case.case, outcome, court.baselines, court.environment, court.protocol, evidence=known)
        return found.verdict in _SUSPECT

    # The confirmation

    def _confirm(self, job: Job, case: CaseResult, base: BaseEngine, first: Outcome | None) -> _Confirmed:
        """Both sides' launches, over several builds of head where its luck may have decided."""
        earlier = first.launches if isinstance(first, Measured) else ()
        stored = self._court.baselines.cases[case.case.id].case
        also = [[one.median_ns for one in earlier if not one.invalid]]
        spread = spread_of(kind_of(self._court.environment), runs_of(stored), days_of(stored), also)
        self._say(f"{job.case_id}: confirming, base and head in turn")
        seed = zlib.crc32(f"{self._court.run_id} {job.case_id}".encode())
        terms = TrialTerms(tolerance=case.case.tolerance, spread=spread, budget=self._court.budget, seed=seed)

        def trial_of(head: Job, against: BaseEngine) -> tuple[Outcome, ConfirmedLaunches | str | None]:
            trial = Trial(head, against, terms, self._one)
            return run_trial(trial, head, earlier, lambda note: self._progress.step(head.case_id, note))

        try:
            outcome, fresh = trial_of(job, base)
        except TrialInterrupted as interrupt:
            return _Confirmed(outcome=_as_screened(_in_doubt(interrupt.outcome), first), interrupted=True)
        if isinstance(fresh, str):
            return _Confirmed(why=fresh)
        build = None
        if fresh is not None:
            tried = TrialResult(head=job, base=base, outcome=outcome, fresh=fresh)
            try:
                chosen = self._luck.settle(tried, case.case.draws, trial_of)
            except KeyboardInterrupt:
                # One build's launches are kept; whether its luck decided is not known.
                kept = _in_doubt(outcome) if isinstance(outcome, Measured) else outcome
                return _Confirmed(outcome=_as_screened(kept, first), interrupted=True)
            outcome, fresh = chosen.outcome, chosen.fresh
            build = chosen.head if chosen.head is not job else None
            if chosen.base is not base:
                self._bases.prefer(case, _mode(job), chosen.base)
        outcome = _as_screened(outcome, first)
        known = Evidence(spread=spread, fresh=fresh) if fresh else NONE
        return _Confirmed(outcome=outcome, evidence=known, build=build)


def without_base(judgement: Judgement, outcome: Outcome, why: str) -> Judgement:
    """The same, said to rest on fresh launches of head alone against the stored ones, where it does."""
    if not why or not isinstance(outcome, Measured):
        return judgement
    confirmation = Confirmation(
        base_launches=0,
        head_launches=len(outcome.launches),
        decided=judgement.verdict is not Verdict.INCONCLUSIVE,
        notes=(f"no base engine to launch: {why}",),
    )
    reason = f"{judgement.reason}; fresh launches of head against the stored ones, because {why}"
    return msgspec.structs.replace(judgement, reason=reason, confirmation=confirmation)


def _with(
    found: Measurements, case_id: str, outcome: Outcome, known: Evidence, build: Job | None = None
) -> Measurements:
    return msgspec.structs.replace(
        found,
        outcomes={**found.outcomes, case_id: outcome},
        evidence={**found.evidence, case_id: known},
        builds={**found.builds, case_id: build} if build else found.builds,
    )


def _joined(first: Outcome | None, again: Outcome) -> Outcome:
    """The fresh launches are judged; those that made the case a suspect are kept beside them."""
    if isinstance(first, Measured) and isinstance(again, Measured):
        return msgspec.structs.replace(again, screen=first.launches, mode=first.mode)
    if isinstance(first, Measured) and isinstance(again, Failed) and again.stage == "interrupted":
        return _in_doubt(first)
    return again


def _as_screened(outcome: Outcome, first: Outcome | None) -> Outcome:
    """With the mode that the screen could measure."""
    return _in_mode(outcome, first.mode) if isinstance(first, Measured) and first.mode else outcome


def _in_doubt(first: Measured) -> Measured:
    """Kept, but a suspect alone fails no build."""
    doubt = tuple(
        msgspec.structs.replace(one, invalid="interrupted before it was confirmed") for one in first.launches
    )
    return msgspec.structs.replace(first, launches=doubt)


def _cut_short(found: Measurements, case_ids: Sequence[str], *, suspects: bool) -> Measurements:
    for case_id in case_ids:
        first = found.outcomes.get(case_id)
        outcome: Outcome = Failed(stage="interrupted", reason="interrupted before it was confirmed")
        if suspects and isinstance(first, Measured):
            outcome = _in_doubt(first)
        found = _with(found, case_id, outcome, NONE)
    return found


def _mode(job: Job) -> Mode:
    return job.target.case.mode if isinstance(job.target, EngineTarget) else Mode()


def _needs_enqueue(outcome: Outcome, job: Job, default: Mode) -> bool:
    """Whether no CUDA graph can hold a case whose spec did not ask for the graph."""
    graph = isinstance(job.target, EngineTarget) and job.target.case.mode == default
    return isinstance(outcome, Failed) and outcome.stage == "capture" and graph


def _enqueued(job: Job) -> Job:
    """The same launches with the execution enqueued."""
    if isinstance(job.target, CallableTarget):
        return job
    return msgspec.structs.replace(job, target=job.target.enqueued())


def _with_mode(job: Job, mode: Mode) -> Job:
    if isinstance(job.target, CallableTarget):
        return job
    return msgspec.structs.replace(job, target=job.target.in_mode(mode))


def _in_mode(outcome: Outcome, mode: Mode) -> Outcome:
    return msgspec.structs.replace(outcome, mode=mode) if isinstance(outcome, Measured) else outcome
