"""One suspect's confirmation: fresh launches of base and head in random ABBA or BAAB blocks until decided."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import msgspec

from perfgate.errors import CaseError
from perfgate.gate.statistics.build_variance import untuned_share, widened
from perfgate.gate.statistics.noise import Spread, settle, to_repeat
from perfgate.gate.statistics.sequential import Decision, at_the_end, blocks, decide_next
from perfgate.gate.verdict.evidence import ConfirmedLaunches
from perfgate.measure.blocks import Blocks, Sides, repeat
from perfgate.measure.launch import LaunchRequest
from perfgate.measure.schedule import Job, launch_failed
from perfgate.records import Confirmation, EngineFacts, Launch, Measured, Outcome, Record, Tolerance
from perfgate.run.base_engine import BaseEngine

_SIDES = ("base", "head")


class TrialTerms(Record):
    """What a trial is held by. `budget` is launches a side, or seconds; `seed` draws the order of blocks;
    `luck` says whether engines that were drawn anew are held by a wider tolerance."""

    tolerance: Tolerance
    spread: Spread
    budget: tuple[int | None, int | None]
    seed: int
    luck: bool = True


class TrialInterrupted(KeyboardInterrupt):
    """Ctrl-C in a trial; `outcome` is what was launched until then."""

    def __init__(self, outcome: Measured) -> None:
        super().__init__()
        self.outcome = outcome


class Trial:
    """One suspect's confirmation."""

    def __init__(
        self, head: Job, base: BaseEngine, terms: TrialTerms, one: Callable[[LaunchRequest], Launch]
    ) -> None:
        self._base, self._spread = base, terms.spread
        self._launches, self._seconds = terms.budget
        self._base_target, self._one = base.job.target, one
        self.failed_side = ""
        self.seen: dict[str, list[Launch]] = {side: [] for side in _SIDES}
        self.shown: tuple[Launch, ...] = ()
        self._notes: list[str] = [*base.notes]
        same = engine_digest(head) != "" and engine_digest(base.job) == engine_digest(head)
        share = max(untuned_share_of(base.job), untuned_share_of(head)) if terms.luck and not same else 0.0
        self._tolerance = widened(terms.tolerance, share)
        if same:
            self._notes.append("base's engine and head's are the same bytes")
        if (more := self._tolerance.ignore - terms.tolerance.ignore) > 0:
            told = f"no timing cache told {share * 100:.0f} % of an engine's tactics or more"
            self._notes.append(f"{told}: {more * 100:.1f} % more is ignored, for the luck of the build")
        self._blocks = Blocks(
            base.job,
            head,
            blocks(terms.seed),
            one=self._launch,
            told=lambda side, launch: self.seen[side].append(launch),
        )

    def _launch(self, request: LaunchRequest) -> Launch:
        self.failed_side = "base" if request.target == self._base_target else "head"
        return self._one(request)

    def run(self, told: Callable[[str], None]) -> tuple[Sides, Decision | None]:
        """Blocks until decided or out of budget. No decision: the machine let no launch be valid."""
        started = time.monotonic()
        taken = Sides()
        again: dict[str, dict[int, Launch]] = {"base": {}, "head": {}}
        while True:
            taken = self._blocks.take(taken)
            if self._blocks.gave_up:
                return taken, None
            for side in _SIDES:
                far = to_repeat(taken.medians(side), (), self._spread)
                again[side] = repeat(self._blocks, side, far, again[side])
            counted, self.shown = self._settled(taken, again)
            decision = decide_next(
                counted.medians("base"), counted.medians("head"), self._tolerance, self._spread
            )
            told(f"{len(counted.head)} launches a side, ratio {decision.ratio.estimate:.4f}")
            if decision.verdict or self._spent(len(taken.head), time.monotonic() - started):
                return counted, at_the_end(decision, min(len(counted.base), len(counted.head)))

    def _settled(
        self, taken: Sides, again: Mapping[str, dict[int, Launch]]
    ) -> tuple[Sides, tuple[Launch, ...]]:
        """What counts after the repeats, and what is shown beside it."""
        shown: list[Launch] = []
        sides = taken
        for side in _SIDES:
            launches = list(taken.of(side))
            repeats = {index: one.median_ns for index, one in again[side].items()}
            for index, _ in settle(taken.medians(side), repeats, (), self._spread).shown:
                shown.append(launches[index])
                launches[index] = again[side][index]
            sides = msgspec.structs.replace(sides, **{side: tuple(launches)})
        return sides, tuple(shown)

    def _spent(self, launches: int, seconds: float) -> bool:
        """Whether one more block would go over the budget, judged by those taken."""
        if self._seconds is not None:
            return seconds + 2 * seconds / launches > self._seconds
        return self._launches is not None and launches + 2 > self._launches

    @property
    def base_engine(self) -> EngineFacts | None:
        """What is known of the engine on base's side."""
        return self._base.job.engine

    def record(self, sides: Sides, decision: Decision) -> Confirmation:
        notes = list(self._notes)
        if self.shown:
            notes.append(f"measured again because far outside, and not recurring: {len(self.shown)} launches")
        if sides.invalid:
            notes.append(f"invalid and taken again: {len(sides.invalid)} launches")
        return Confirmation(
            base_launches=len(sides.base),
            head_launches=len(sides.head),
            decided=decision.verdict is not None,
            log_likelihood=decision.log_likelihood,
            needed=decision.needed,
            gpu_ns=self._blocks.launched_ns,
            base_commit=self._base.commit.sha,
            notes=tuple(notes),
        )


def engine_digest(job: Job) -> str:
    """Of the engine that a job launches; empty where it has none."""
    return job.engine.digest if job.engine else ""


def untuned_share_of(job: Job) -> float:
    """The share of a job's engine that no timing cache told. Nothing of one that comes without a request, as
    the baseline's own does: its timing cache is what told head's build."""
    return untuned_share(job.engine) if job.request else 0.0


def run_trial(
    trial: Trial, head: Job, earlier: tuple[Launch, ...], told: Callable[[str], None]
) -> tuple[Outcome, ConfirmedLaunches | str | None]:
    """Head's outcome after its trial, `earlier` launches kept beside it, and what the trial found.

    Text in place of a finding says why base could not be launched. Without a finding it is head that could
    not, or the machine that let no launch be valid. Raises `TrialInterrupted` with what head has launched.
    """
    try:
        sides, decision = trial.run(told)
    except KeyboardInterrupt as interrupt:
        if not trial.seen["head"]:
            raise
        launched = {side: tuple(launches) for side, launches in trial.seen.items()}
        raise TrialInterrupted(
            Measured(
                engine=head.engine,
                launches=launched["head"],
                screen=earlier,
                base_launches=launched["base"],
            )
        ) from interrupt
    except CaseError as error:
        return launch_failed(error, head.target), error.what if trial.failed_side == "base" else None
    if decision is None:
        return Measured(engine=head.engine, launches=sides.invalid, screen=earlier), None
    shown = (*sides.invalid, *trial.shown)[:1000]
    outcome = Measured(
        engine=head.engine,
        launches=sides.head,
        screen=earlier,
        base_launches=sides.base,
        shown=shown,
    )
    record = trial.record(sides, decision)
    return outcome, ConfirmedLaunches(
        base=sides.base, decision=decision, confirmation=record, shown=shown, engine=trial.base_engine
    )
