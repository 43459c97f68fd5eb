"""The decision. Two numbers a case: below `ignore` an alarm is false, above `catch` a PASS is a miss."""

from __future__ import annotations

import math

from perfgate.records import Interval, Tolerance, Verdict
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
