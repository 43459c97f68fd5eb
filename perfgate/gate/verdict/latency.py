"""Latency of head against base: by stored launches, or by fresh ones of both sides. Whose fault it is."""

from __future__ import annotations

from collections.abc import Sequence

from perfgate.gate.baselines import Stored
from perfgate.gate.promotable import ALREADY_ON_BASE
from perfgate.gate.statistics.intervals import PRIOR_CV, ratio_interval
from perfgate.gate.statistics.screen import clear
from perfgate.gate.statistics.sequential import at_the_end
from perfgate.gate.verdict.clocks import lower_clock, shared_shift
from perfgate.gate.verdict.decide import decide, explain, explain_fresh
from perfgate.gate.verdict.evidence import ConfirmedLaunches
from perfgate.records import (
    Case,
    EngineFacts,
    Interval,
    Judgement,
    Launch,
    Measured,
    MetricColumns,
    Tolerance,
    Verdict,
)
from perfgate.records.columns import ENGINE_COLUMNS, columns
from perfgate.util.wording import change


def compare_stored(
    case: Case, stored: Stored, head: MetricColumns, screened: Interval | None, kind: str
) -> Judgement:
    """Head's launches against the stored ones.

    Where a screen was held (`screened`), a case that is not clear is a suspect that nobody confirmed: it is
    INCONCLUSIVE, because a suspect alone fails nothing and passes nothing.
    """
    base = stored.case.metrics
    if screened is None:
        ratio = ratio_interval(base["latency_ns"], head["latency_ns"], prior_cv=PRIOR_CV[kind])
        verdict = decide(ratio, case.tolerance)
        reason = explain(verdict, ratio, case.tolerance)
        return Judgement(verdict=verdict, reason=reason, ratio=ratio, base=base, head=head)
    verdict = Verdict.PASS if clear(screened, case.tolerance) else Verdict.INCONCLUSIVE
    reason = explain(verdict, screened, case.tolerance)
    if verdict is Verdict.INCONCLUSIVE:
        reason = f"a suspect that was not confirmed: {reason}"
    return Judgement(verdict=verdict, reason=reason, ratio=screened, base=base, head=head)


def compare_fresh(
    case: Case, stored: Stored, outcome: Measured, fresh: ConfirmedLaunches, kind: str
) -> Judgement:
    """Fresh launches of base and head, taken in turn: only base to head can be this commit's fault."""
    decision, tolerance, sides = fresh.decision, case.tolerance, (fresh.base, outcome.launches)
    base_valid, head_valid = ([one for one in side if not one.invalid] for side in sides)
    base, head = _base_columns(stored, base_valid, fresh.engine), columns(head_valid, outcome.engine)
    if not base:
        why = next((one.invalid for one in fresh.base), "none was taken")
        reason = f"no launch of base is valid: {why}; run again"
        return Judgement(verdict=Verdict.INVALID, reason=reason, base=stored.case.metrics, head=head)
    decision = at_the_end(decision, min(len(base_valid), len(head_valid)))
    verdict, estimate = decision.verdict or Verdict.INCONCLUSIVE, decision.ratio.estimate
    reason = explain_fresh(verdict, decision.ratio, decision.tolerance, decision.log_likelihood)
    code = decision.code
    if verdict is Verdict.INCONCLUSIVE and not code:
        reason = f"{reason}; it would take about {decision.needed} more launches a side"
    if shift := _shift(decision.code, base, head, tolerance):
        verdict, reason, code = Verdict.INVALID, f"{shift}; run again", "shared-shift"
    elif verdict is Verdict.REGRESSION and (words := lower_clock(base_valid, head_valid, estimate)):
        reason, code = f"{reason}; {words}", "clock/power"
    elif verdict is Verdict.PASS and (main := _base_itself(stored, base, tolerance.ignore, kind)):
        reason, code = f"{reason}; {main}", ALREADY_ON_BASE
    return Judgement(
        verdict=verdict,
        reason="; ".join(filter(None, (reason, decision.note))),
        code=code,
        ratio=decision.ratio,
        base=base,
        head=head,
        confirmation=fresh.confirmation,
    )


def _base_columns(stored: Stored, launches: Sequence[Launch], engine: EngineFacts | None) -> MetricColumns:
    """Base's columns; what its engine weighs is that of the engine launched, else of the one promoted."""
    if not launches:
        return {}
    if engine is not None:
        return columns(launches, engine)
    known = {name: stored.case.metrics[name][0] for name in ENGINE_COLUMNS if name in stored.case.metrics}
    return {**columns(launches), **{name: (value,) * len(launches) for name, value in known.items()}}


def _shift(code: str, base: MetricColumns, head: MetricColumns, tolerance: Tolerance) -> str:
    """What moved both sides together; launches of several builds are no pairs, and cannot tell."""
    if code == "build":
        return ""
    return shared_shift(base["latency_ns"], head["latency_ns"], tolerance)


def _base_itself(stored: Stored, base: MetricColumns, ignore: float, kind: str) -> str:
    """The words for a base that is slower than its own baseline: another commit's doing, or a machine's."""
    own = ratio_interval(stored.case.metrics["latency_ns"], base["latency_ns"], prior_cv=PRIOR_CV[kind])
    if own.low <= 1 + ignore:
        return ""
    return f"base itself is {change(own.estimate)} than its baseline, so head is not to blame"
