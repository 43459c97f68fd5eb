"""Two results files, one judged against the other as if it were the baseline. Measures nothing."""

from __future__ import annotations

import msgspec

from perfgate.gate.baselines import Baselines, Stored
from perfgate.gate.statistics.build_variance import untuned_share_between
from perfgate.gate.verdict.accuracy import with_answers
from perfgate.gate.verdict.evidence import Evidence, launches_wanted
from perfgate.gate.verdict.judge import judge, measured_mode
from perfgate.gate.verdict.summary import summarise
from perfgate.records import (
    BaselineCase,
    CaseResult,
    EngineFacts,
    Failed,
    Measured,
    MetricColumns,
    RunResult,
    Unchanged,
    Verdict,
    columns,
    metrics_fault,
)


def compare_results(base: RunResult, head: RunResult, *, results: str) -> RunResult:
    """`head` with every case judged against `base`. A case that only `base` measured is MISSING.

    Another toolchain on either side makes every pair INCOMPARABLE, as everywhere.
    """
    stored = {case.case.id: _stored(base, case) for case in base.cases if not metrics_fault(_metrics(case))}
    baselines = Baselines(root=results, cases=stored)
    present = {case.case.id for case in head.cases}
    gone = [
        msgspec.structs.replace(
            case,
            outcome=Failed(stage="missing", reason=f"measured in {base.run_id}, absent in {head.run_id}"),
        )
        for case in base.cases
        if case.case.id in stored and case.case.id not in present
    ]
    engines = {case.case.id: _engine(case) for case in base.cases}
    cases = tuple(_judged(case, baselines, head, engines.get(case.case.id)) for case in [*head.cases, *gone])
    return msgspec.structs.replace(
        head, cases=cases, summary=summarise(cases, results=results, dirty=head.commit.dirty)
    )


def _judged(
    case: CaseResult, baselines: Baselines, head: RunResult, engine: EngineFacts | None
) -> CaseResult:
    """An `Unchanged` was unchanged from its own baseline; against another build its numbers are compared.
    `engine` is base's, where base was measured."""
    base = baselines.cases.get(case.case.id)
    outcome = case.outcome
    relied_on: MetricColumns = {}
    if isinstance(outcome, Unchanged) and (base is None or base.case.case_digest != case.case_digest):
        relied_on = _metrics(case)
        if metrics_fault(relied_on):
            outcome = Failed(stage="launch", reason=f"{head.run_id} holds no numbers of it")
    evidence = Evidence(
        relied_on=relied_on,
        share=untuned_share_between(engine, _engine(case)),
        launches=launches_wanted(case, head.protocol),
    )
    judgement = judge(case.case, outcome, baselines, head.environment, head.protocol, evidence=evidence)
    return msgspec.structs.replace(case, judgement=with_answers(judgement, case, baselines))


def _engine(case: CaseResult) -> EngineFacts | None:
    return case.outcome.engine if isinstance(case.outcome, Measured) else None


def _metrics(case: CaseResult) -> MetricColumns:
    """What a results file knows of a case: its own launches, or the stored numbers that it relied on."""
    if isinstance(case.outcome, Measured):
        return columns([one for one in case.outcome.launches if not one.invalid], case.outcome.engine)
    judged = case.judgement
    return judged.base if judged is not None and judged.verdict is Verdict.UNCHANGED else {}


def _stored(run: RunResult, case: CaseResult) -> Stored:
    return Stored(
        case=BaselineCase(
            case_digest=case.case_digest or "0" * 64,
            mode=measured_mode(case.case, case.outcome),
            environment=run.environment.device,
            metrics=_metrics(case),
            promoted=run.created,
            commit=run.commit.sha,
            reason=f"run {run.run_id}",
            accuracy=case.accuracy,
        ),
        environment=run.environment,
        path=run.run_id,
    )
