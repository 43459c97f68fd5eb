"""Latency of head against base: by stored launches, or by fresh ones of both sides. Whose fault it is.

Two numbers a case: below `ignore` an alarm is false, above `catch` a PASS is a miss. Clocks are
evidence: who clocked lower, and whether both sides moved together; never a veto by itself.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from perfgate.gate.baselines import Stored
from perfgate.gate.promotable import ALREADY_ON_BASE
from perfgate.gate.statistics.noise import PRIOR_CV, ratio_interval
from perfgate.gate.statistics.sequential import ALPHA, at_the_end, clear
from perfgate.gate.verdict.evidence import ConfirmedLaunches
from perfgate.records import (
    ENGINE_COLUMNS,
    Case,
    EngineFacts,
    Interval,
    Judgement,
    Launch,
    Measured,
    MetricColumns,
    Tolerance,
    Verdict,
    columns,
)
from perfgate.util.wording import change


def decide(ratio: Interval, tolerance: Tolerance) -> Verdict:
    """The verdict that an interval for head / base of a lower-is-better metric carries.

    Clearly under *catch*: PASS, or IMPROVEMENT where it is clearly faster by more than *ignore*.
    Otherwise clearly above *ignore*: REGRESSION. Otherwise the launches do not say: INCONCLUSIVE.
    """
    if ratio.high < 1 + tolerance.catch:
        return Verdict.IMPROVEMENT if ratio.high < 1 / (1 + tolerance.ignore) else Verdict.PASS
    return Verdict.REGRESSION if ratio.low > 1 + tolerance.ignore else Verdict.INCONCLUSIVE


def explain(verdict: Verdict, ratio: Interval, tolerance: Tolerance) -> str:
    """The verdict's reason in a sentence, with the numbers it rests on."""
    seen = f"{change(ratio.estimate)} ({change(ratio.low)} to {change(ratio.high)})"
    ignore, catch = f"{tolerance.ignore:.3g}", f"{tolerance.catch:.3g}"
    return {
        Verdict.PASS: f"{seen}; clearly under the {percent(tolerance.catch)} to catch",
        Verdict.IMPROVEMENT: f"{seen}; clearly beyond the {percent(tolerance.ignore)} to ignore",
        Verdict.REGRESSION: f"{seen}; clearly above the {percent(tolerance.ignore)} to ignore",
        Verdict.INCONCLUSIVE: f"{seen}; neither under catch nor above ignore: more launches would tell",
    }.get(verdict, f"{seen} (ignore {ignore}, catch {catch})")


def explain_fresh(verdict: Verdict, ratio: Interval, tolerance: Tolerance, log_likelihood: float) -> str:
    """The reason of a verdict by fresh launches, with what the sequential test weighed."""
    seen = f"{change(ratio.estimate)} ({change(ratio.low)} to {change(ratio.high)}) by fresh launches"
    ignore, catch = percent(tolerance.ignore), percent(tolerance.catch)
    # Beyond a million it is not the launches that might be wrong.
    odds = min(math.exp(min(abs(log_likelihood), 700)), 1e6)
    times = f"{odds:,.0f}" if odds >= 10 else f"{odds:.1f}"
    if verdict is Verdict.INCONCLUSIVE:
        return f"{seen}; the launches tell {catch} to catch from {ignore} to ignore by {times} to 1 only"
    if log_likelihood > 0:
        return f"{seen}; {times} times likelier {catch} slower or more than {ignore} or less"
    return f"{seen}; {times} times likelier {ignore} slower or less than {catch} or more"


def percent(share: float) -> str:
    return f"{share * 100:.3g} %"


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
    # Launches of several builds are no pairs, and cannot tell what moved both sides together.
    pairs = decision.code != "build"
    if pairs and (shift := shared_shift(base["latency_ns"], head["latency_ns"], tolerance)):
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


def _base_itself(stored: Stored, base: MetricColumns, ignore: float, kind: str) -> str:
    """The words for a base that is slower than its own baseline: another commit's doing, or a machine's."""
    own = ratio_interval(stored.case.metrics["latency_ns"], base["latency_ns"], prior_cv=PRIOR_CV[kind])
    if own.low <= 1 + ignore:
        return ""
    return f"base itself is {change(own.estimate)} than its baseline, so head is not to blame"


# A clock that explains less than half of a slowdown is a symptom beside another cause.
EXPLAINS = 0.5
# Fewer pairs cannot show a shift of both sides at the gate's own certainty.
LEAST_PAIRS = 4


def lower_clock(base: Sequence[Launch], head: Sequence[Launch], ratio: float) -> str:
    """The words for a head that alone clocks lower, by enough to explain half of its slowdown; else empty.

    A head that draws more power clocks lower and *is* slower: that is a cause (`clock/power`), no excuse.
    """
    clocks = [[mhz for launch in side if (mhz := sm_clock_mhz(launch))] for side in (base, head)]
    if not all(clocks) or ratio <= 1:
        return ""
    base_mhz, head_mhz = (statistics.fmean(side) for side in clocks)
    # Ranges that overlap are the same clock; as many launches a side as decide a verdict tell that well.
    if head_mhz >= base_mhz or max(clocks[1]) >= min(clocks[0]):
        return ""
    if math.log(base_mhz / head_mhz) < EXPLAINS * math.log(ratio):
        return ""
    return f"head alone clocks lower, {head_mhz:.0f} MHz where base has {base_mhz:.0f}: it draws more power"


def sm_clock_mhz(launch: Launch) -> float | None:
    """The mean SM clock while samples were taken, or None where it is not known."""
    clocks = launch.telemetry.sm_clock_mhz if launch.telemetry else ()
    return statistics.fmean(clocks) if clocks else None


def shared_shift(base: Sequence[float], head: Sequence[float], tolerance: Tolerance) -> str:
    """The words for a shift that both sides share, from fresh launch medians in the order taken; else empty.

    With independent launches the mean and the difference of `base[i]` and `head[i]` vary alike, so that
    4 var(mean) / var(difference) has Fisher's F distribution (Pitman, Biometrika 31, 1939). A mean that
    varies more at the level of an alarm, and by more than *catch*, is the machine's doing.
    """
    from scipy.special import fdtrc

    pairs = [(math.log(b), math.log(h)) for b, h in zip(base, head, strict=False)]
    if len(pairs) < LEAST_PAIRS:
        return ""
    means = [(b + h) / 2 for b, h in pairs]
    common = statistics.variance(means)
    own = statistics.variance([h - b for b, h in pairs])
    dof = len(pairs) - 1
    significant = own == 0 < common or (own > 0 and fdtrc(dof, dof, 4 * common / own) < ALPHA)
    moved = max(means) - min(means)
    if not significant or moved <= math.log1p(tolerance.catch):
        return ""
    return f"both sides moved together by {math.expm1(moved) * 100:.1f} % meanwhile: the machine changed"
