"""From a case's outcome and its baseline to a judgement. Pure: no files, no clocks, no devices."""

from __future__ import annotations

import statistics

from perfgate.gate.baselines import Baselines, Stored
from perfgate.gate.decide import decide, explain
from perfgate.gate.metrics import P99_MIN_SAMPLES, columns
from perfgate.gate.statistics import PRIOR_CV, ratio_interval
from perfgate.measure.environment import differences
from perfgate.records import (
    Case,
    Environment,
    Failed,
    Judgement,
    Measured,
    MetricColumns,
    Mode,
    NotRun,
    Outcome,
    Protocol,
    Unchanged,
    Verdict,
)

_UNCHANGED = {
    "digest": "same model, recipe, inputs and environment as the baseline: nothing to time",
    "engine": "the engine is the baseline's, byte for byte, and is used alike: nothing to time",
}


_NEW = "no baseline is stored for this device and toolchain"
_FAILED = {"missing": Verdict.MISSING, "interrupted": Verdict.INVALID}


def judge(
    case: Case,
    outcome: Outcome,
    baselines: Baselines,
    environment: Environment,
    protocol: Protocol,
    *,
    relied_on: MetricColumns | None = None,
) -> Judgement:
    """The judgement on one case; `baselines` are those of `environment`.

    `relied_on` are the numbers that an `Unchanged` stands for where it was not these baselines' own.
    """
    stored = baselines.cases.get(case.id)
    if isinstance(outcome, Failed):
        verdict = _FAILED.get(outcome.stage, Verdict.ERROR)
        return Judgement(verdict=verdict, reason=outcome.reason, base=_metrics(stored))
    if isinstance(outcome, NotRun):
        return _judge_not_run(outcome, stored)
    head: MetricColumns = relied_on or {}
    if isinstance(outcome, Measured):
        valid = [launch for launch in outcome.launches if not launch.invalid]
        head = columns(valid) if valid else {}
        if outcome.engine and outcome.engine.unmet:
            unmet = f"precision not realised: {outcome.engine.unmet}"
            return Judgement(verdict=Verdict.INVALID, reason=unmet, base=_metrics(stored), head=head)
        short = _too_few(outcome, len(valid), protocol.launches) if len(valid) < protocol.launches else ""
        nothing_to_compare = case.id not in baselines.cases and case.id not in baselines.elsewhere
        if short and nothing_to_compare and len(outcome.launches) >= protocol.launches:
            # Nothing is judged, so a busy machine is no failure; promote refuses these numbers.
            head = head or columns(outcome.launches)
            return Judgement(verdict=Verdict.NEW, reason=f"{_NEW}; not to be promoted: {short}", head=head)
        if short:
            return Judgement(verdict=Verdict.INVALID, reason=short, base=_metrics(stored), head=head)
    if stored is None:
        judgement = _judge_without_baseline(case, baselines, environment, head)
    elif changed := differences(stored.environment.key, environment.key):
        names = ", ".join(difference.field for difference in changed)
        reason = f"the baseline was measured with another {names}; numbers are not compared across"
        judgement = Judgement(
            verdict=Verdict.INCOMPARABLE,
            reason=reason,
            base=stored.case.metrics,
            head=head,
            differences=changed,
        )
    elif isinstance(outcome, Unchanged) and not head:
        judgement = Judgement(
            verdict=Verdict.UNCHANGED, reason=_UNCHANGED[outcome.evidence], base=stored.case.metrics
        )
    elif (mode := _mode(case, outcome)) != stored.case.mode:
        reason = f"measured as '{mode}', the baseline as '{stored.case.mode}'"
        judgement = Judgement(
            verdict=Verdict.INCOMPARABLE, reason=reason, base=stored.case.metrics, head=head
        )
    else:
        judgement = _compare(case, stored, environment, head)
    return _judge_slo(case, judgement)


def _mode(case: Case, outcome: Outcome) -> Mode:
    measured = outcome.mode if isinstance(outcome, Measured) else None
    return measured or case.mode


def _too_few(outcome: Measured, valid: int, wanted: int) -> str:
    why = next((launch.invalid for launch in outcome.launches if launch.invalid), "the run was cut short")
    return f"only {valid} of {wanted} launches are valid: {why}; run again"


def _metrics(stored: Stored | None) -> MetricColumns:
    return stored.case.metrics if stored else {}


def _judge_not_run(outcome: NotRun, stored: Stored | None) -> Judgement:
    if stored is None:
        return Judgement(verdict=Verdict.NOT_RUN, reason=outcome.reason)
    reason = f"has a baseline but is not run: {outcome.reason}"
    return Judgement(verdict=Verdict.MISSING, reason=reason, base=stored.case.metrics)


def _judge_without_baseline(
    case: Case, baselines: Baselines, environment: Environment, head: MetricColumns
) -> Judgement:
    other = baselines.elsewhere.get(case.id)
    if other is None:
        return Judgement(verdict=Verdict.NEW, reason=_NEW, head=head)
    reason = f"stored only for {other.environment.toolchain}; numbers are not compared across toolchains"
    return Judgement(
        verdict=Verdict.INCOMPARABLE,
        reason=reason,
        base=other.case.metrics,
        head=head,
        differences=differences(other.environment.key, environment.key),
    )


def _compare(case: Case, stored: Stored, environment: Environment, head: MetricColumns) -> Judgement:
    kind = "cpu" if environment.device.startswith("cpu-") else "gpu"
    ratio = ratio_interval(stored.case.metrics["latency_ns"], head["latency_ns"], prior_cv=PRIOR_CV[kind])
    verdict = decide(ratio, case.tolerance)
    return Judgement(
        verdict=verdict,
        reason=explain(verdict, ratio, case.tolerance),
        ratio=ratio,
        base=stored.case.metrics,
        head=head,
        differences=differences(stored.environment.noted, environment.noted),
    )


def _judge_slo(case: Case, judgement: Judgement) -> Judgement:
    """An absolute promise that is broken is a REGRESSION, whatever the baseline says."""
    limit_ms = case.slo.engine_p99_ms
    seen = judgement.head or judgement.base
    if limit_ms is None or judgement.verdict.exit_code or not seen.get("p99_ns"):
        return judgement
    if min(seen.get("samples", (0,))) < P99_MIN_SAMPLES:
        note = f"p99 not judged: a launch has fewer than {P99_MIN_SAMPLES} samples"
        return _with(judgement, judgement.verdict, f"{judgement.reason}; {note}")
    p99_ms = statistics.median(seen["p99_ns"]) / 1e6
    if p99_ms <= limit_ms:
        return judgement
    broken = f"p99 is {p99_ms:.4g} ms, above the promise engine_p99_ms = {limit_ms:g}"
    return _with(judgement, Verdict.REGRESSION, broken)


def _with(judgement: Judgement, verdict: Verdict, reason: str) -> Judgement:
    import msgspec

    return msgspec.structs.replace(judgement, verdict=verdict, reason=reason)
