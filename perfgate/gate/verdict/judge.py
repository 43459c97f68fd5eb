"""From a case's outcome and its baseline to a judgement. Pure: no files, no clocks, no devices."""

from __future__ import annotations

import msgspec

from perfgate.gate.baselines import Baselines, Stored
from perfgate.gate.promotable import UNFIT
from perfgate.gate.statistics.build_variance import widened
from perfgate.gate.statistics.noise import spread_of
from perfgate.gate.verdict.evidence import NONE, Evidence
from perfgate.gate.verdict.latency import compare_fresh, compare_stored
from perfgate.gate.verdict.metrics import METRICS, judge_metrics, judge_slos
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
    columns,
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
    evidence: Evidence = NONE,
) -> Judgement:
    """The judgement on one case; `baselines` are those of `environment`.

    Whether it can be judged at all comes first, then latency against base, then the other metrics, and the
    absolute promises last: those hold for an `Unchanged` too, on its stored numbers.
    """
    stored = baselines.cases.get(case.id)
    if isinstance(outcome, Failed):
        verdict = _FAILED.get(outcome.stage, Verdict.ERROR)
        return Judgement(verdict=verdict, reason=outcome.reason, base=_metrics(stored))
    if isinstance(outcome, NotRun):
        return _judge_not_run(outcome, stored)
    head: MetricColumns = evidence.relied_on
    if isinstance(outcome, Measured):
        valid = [launch for launch in outcome.launches if not launch.invalid]
        head = columns(valid, outcome.engine) if valid else {}
        if outcome.engine and outcome.engine.unmet:
            unmet = f"precision not realised: {outcome.engine.unmet}"
            return Judgement(verdict=Verdict.INVALID, reason=unmet, base=_metrics(stored), head=head)
        # A sequential test takes as many launches as it needs; of everything else the protocol says how many.
        wanted = 1 if evidence.fresh else evidence.launches or protocol.launches
        if len(valid) < wanted:
            why = next((one.invalid for one in outcome.launches if one.invalid), "the run was cut short")
            short = f"only {len(valid)} of {wanted} launches are valid: {why}; run again"
            nothing_to_compare = stored is None and case.id not in baselines.elsewhere
            if nothing_to_compare and len(outcome.launches) >= protocol.launches:
                # Nothing is judged, so a busy machine is no failure; promote refuses these numbers.
                head = head or columns(outcome.launches, outcome.engine)
                return Judgement(verdict=Verdict.NEW, reason=f"{_NEW}; {UNFIT}: {short}", head=head)
            return Judgement(verdict=Verdict.INVALID, reason=short, base=_metrics(stored), head=head)
    judgement = _against_base(case, outcome, baselines, environment, evidence, head)
    judgement = _judge_others(case, judgement, evidence, environment)
    return judge_slos(case, judgement, evidence)


def _against_base(
    case: Case,
    outcome: Outcome,
    baselines: Baselines,
    environment: Environment,
    evidence: Evidence,
    head: MetricColumns,
) -> Judgement:
    stored = baselines.cases.get(case.id)
    if stored is None:
        return _judge_without_baseline(case, baselines, environment, head)
    if changed := differences(stored.environment.key, environment.key):
        names = ", ".join(difference.field for difference in changed)
        return Judgement(
            verdict=Verdict.INCOMPARABLE,
            reason=f"the baseline was measured with another {names}; numbers are not compared across",
            base=stored.case.metrics,
            head=head,
            differences=changed,
        )
    if isinstance(outcome, Unchanged) and not head:
        reason = _UNCHANGED[outcome.evidence]
        return Judgement(verdict=Verdict.UNCHANGED, reason=reason, base=stored.case.metrics)
    if (mode := measured_mode(case, outcome)) != stored.case.mode:
        reason = f"measured as '{mode}', the baseline as '{stored.case.mode}'"
        return Judgement(verdict=Verdict.INCOMPARABLE, reason=reason, base=stored.case.metrics, head=head)
    # Wider than the case's own where engines were drawn anew.
    fresh = evidence.fresh
    tolerance = fresh.decision.tolerance if fresh else widened(case.tolerance, evidence.share)
    if fresh and isinstance(outcome, Measured):
        judgement = compare_fresh(case, stored, outcome, fresh, kind_of(environment))
    else:
        held = msgspec.structs.replace(case, tolerance=tolerance)
        judgement = compare_stored(held, stored, head, evidence.screened, kind_of(environment))
    wider = None if tolerance == case.tolerance else tolerance
    noted = differences(stored.environment.noted, environment.noted)
    return msgspec.structs.replace(judgement, differences=noted, tolerance=wider)


def kind_of(environment: Environment) -> str:
    """Whose launches these are: a "cpu"'s or a "gpu"'s."""
    return "cpu" if environment.device.startswith("cpu-") else "gpu"


def measured_mode(case: Case, outcome: Outcome) -> Mode:
    """The mode that was measured, where the case's default one could not be."""
    measured = outcome.mode if isinstance(outcome, Measured) else None
    return measured or case.mode


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


_KINDLY = (Verdict.PASS, Verdict.IMPROVEMENT, Verdict.INCONCLUSIVE)


def _judge_others(
    case: Case, judgement: Judgement, evidence: Evidence, environment: Environment
) -> Judgement:
    """The metrics beside latency. One that is worse turns a verdict that is not red yet; each says how."""
    if judgement.verdict not in (*_KINDLY, Verdict.REGRESSION):
        return judgement
    spread = evidence.spread or spread_of(kind_of(environment))
    more = (judgement.tolerance or case.tolerance).ignore - case.tolerance.ignore
    fresh = evidence.fresh is not None
    found = judge_metrics(judgement.base, judgement.head, spread, fresh=fresh, floors=case.floors, more=more)
    judgement = msgspec.structs.replace(judgement, metrics=found)
    # Where the latency is left open, because it depends on the build drawn, so are the other times.
    drawn = judgement.code == "build" and judgement.verdict is Verdict.INCONCLUSIVE
    worse = [
        one
        for one in found
        if one.verdict is Verdict.REGRESSION
        and not one.advisory
        and not (drawn and METRICS[one.metric].timed)
    ]
    if not worse or judgement.verdict not in _KINDLY:
        return judgement
    reason = "; ".join(f"{one.metric} {one.reason}" for one in worse)
    return msgspec.structs.replace(
        judgement, verdict=Verdict.REGRESSION, reason=reason, code=f"metric/{worse[0].metric}"
    )
