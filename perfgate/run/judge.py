"""Judging a run: what the gate says of every case, with what was found while it was measured."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timezone

import msgspec

from perfgate.gate.baselines import Baselines, stale
from perfgate.gate.policy.waivers import Waiver, reminders, waive
from perfgate.gate.verdict.accuracy import with_answers
from perfgate.gate.verdict.evidence import NONE, ServiceLatency
from perfgate.gate.verdict.judge import judge
from perfgate.gate.verdict.summary import summarise
from perfgate.records import CaseResult, Environment, Explanation, Judgement, Outcome, Protocol, RunResult
from perfgate.run.confirm import Measurements, without_base
from perfgate.run.outputs import RESULTS_NAME
from perfgate.run.service_latency import service_latency
from perfgate.settings import Settings


class RunJudge:
    """What a run is judged by: `baselines`, what was `found` while measuring, and what was `explained`."""

    def __init__(
        self,
        settings: Settings,
        environment: Environment,
        protocol: Protocol,
        baselines: Baselines,
        waivers: Sequence[Waiver],
    ) -> None:
        self._settings, self._environment, self._protocol = settings, environment, protocol
        self._waivers = waivers
        self.baselines, self.found = baselines, Measurements()
        self.explained: dict[str, Explanation] = {}
        self._tails: dict[str, tuple[Outcome, ServiceLatency | None]] = {}

    def run(self, result: RunResult, *, interrupted: bool) -> RunResult:
        """The result with a judgement on every case and the summary."""
        cases = tuple(
            self.waived(
                msgspec.structs.replace(
                    case,
                    judgement=self.case(case),
                    explanation=self.explained.get(case.case.id, case.explanation),
                )
            )
            for case in result.cases
        )
        summary = summarise(
            cases,
            results=f"{self._settings.out}/{RESULTS_NAME}",
            require_baseline=self._settings.require_baseline,
            interrupted=interrupted,
            dirty=result.commit.dirty,
        )
        hints = (*reminders(self._waivers, _today()), *stale(self.baselines, _today()))
        summary = msgspec.structs.replace(summary, next_steps=(*summary.next_steps, *hints))
        return msgspec.structs.replace(result, cases=cases, summary=summary)

    def waived(self, case: CaseResult) -> CaseResult:
        """The case with a waiver of it applied, where there is one today."""
        return waive(case, self._waivers, _today())

    def case(self, case: CaseResult) -> Judgement:
        """What the gate says of one case."""
        evidence = self.found.evidence.get(case.case.id, NONE)
        evidence = msgspec.structs.replace(evidence, service=self._tail(case))
        judgement = judge(
            case.case, case.outcome, self.baselines, self._environment, self._protocol, evidence=evidence
        )
        judgement = without_base(judgement, case.outcome, self.found.without_base.get(case.case.id, ""))
        return with_answers(judgement, case, self.baselines)

    def _tail(self, case: CaseResult) -> ServiceLatency | None:
        """What the case's load does to its tail; simulated once, though a case is judged more than once."""
        outcome, tail = self._tails.get(case.case.id, (None, None))
        if outcome is not case.outcome:
            tail = service_latency(case.case, case.outcome, self._environment)
            self._tails[case.case.id] = (case.outcome, tail)
        return tail


def _today() -> date:
    return datetime.now(timezone.utc).date()
