"""Whether answers are right enough: a case's thresholds, and its drift from the baseline's accuracy. Pure."""

from __future__ import annotations

import msgspec

from perfgate.gate.baselines import Baselines
from perfgate.records import (
    Accuracy,
    AccuracyLimits,
    Agreement,
    CaseResult,
    Failed,
    Judgement,
    NotRun,
    OutputAccuracy,
    Precision,
    Unchanged,
    Verdict,
)

# Decibels: FP16 carries 11 bits, INT8 eight, and FP32 on a GPU may be TF32, which has FP16's mantissa.
SQNR_FLOOR_DB: dict[Precision, float] = {"fp32": 50.0, "fp16": 55.0, "int8": 25.0, "int8+fp16": 25.0}
# The code of answers that are worse than the baseline's.
DRIFT = "accuracy-drift"
# Above this, differences are the order of summation.
_DRIFT_CEILING_DB = 80.0
CONFIDENCE = 0.95


def failures(accuracy: Accuracy, limits: AccuracyLimits, precision: Precision) -> tuple[str, ...]:
    """The thresholds that are broken, in words; a default that the spec leaves open is its precision's."""
    task = accuracy.task
    # A trained classifier, or a model with a task, is judged by what it is for, where the spec says that.
    purpose = task is not None or limits.top1 is not None or limits.top5 is not None
    floor = limits.sqnr_db.get(precision, None if purpose else SQNR_FLOOR_DB[precision])
    found = [said for output in accuracy.outputs for said in _of_output(output, limits, floor)]
    if task is not None and task.head < task.reference - limits.task_drop * abs(task.reference):
        found.append(
            f"{task.name} is {task.head:.4g}, the reference's {task.reference:.4g}: "
            f"it may fall by {limits.task_drop:.2%}"
        )
    return tuple(found)


def judged(accuracy: Accuracy, limits: AccuracyLimits, precision: Precision) -> Accuracy:
    """The accuracy with its failures under these limits."""
    return msgspec.structs.replace(accuracy, failures=failures(accuracy, limits, precision))


def _of_output(output: OutputAccuracy, limits: AccuracyLimits, floor: float | None) -> list[str]:
    name = f"output {output.output!r}"
    if output.nonfinite:
        first = f"; first at {output.first_nonfinite}" if output.first_nonfinite else ""
        return [f"{name} holds {output.nonfinite} NaN or infinite values{first}"]
    found = []
    if output.sqnr_db is not None and floor is not None and output.sqnr_db < floor:
        found.append(f"{name} has an SQNR of {output.sqnr_db:.1f} dB, below {floor:g}")
    for value, limit, what in (
        (output.max_abs_error, limits.max_abs_error, "an absolute error"),
        (output.max_rel_error, limits.max_rel_error, "a relative error"),
    ):
        if value is not None and limit is not None and value > limit:
            found.append(f"{name} has {what} of {value:.3g}, above {limit:g}")
    if output.cosine is not None and limits.cosine is not None and output.cosine < limits.cosine:
        found.append(f"{name} has a cosine of {output.cosine:.6f}, below {limits.cosine:g}")
    for agreement, wanted, what in (
        (output.top1, limits.top1, "top-1"),
        (output.top5, limits.top5, "top-5"),
    ):
        if wanted is not None:
            found += _agreement(name, agreement, wanted, what)
    return found


def _agreement(name: str, agreement: Agreement | None, wanted: float, what: str) -> list[str]:
    if agreement is None:
        return [f"{name} is no classifier's, so {what} cannot be judged"]
    low = proven_share(agreement)
    if low >= wanted:
        return []
    seen = f"{agreement.right} of {agreement.total} agree in {what}"
    if agreement.right == agreement.total:
        return [f"{name}: {seen}, which proves {low:.2%} and not {wanted:.2%}: judge it on more samples"]
    return [f"{name}: {seen}, which proves {low:.2%} at {CONFIDENCE:.0%}, below {wanted:.2%}"]


def proven_share(agreement: Agreement) -> float:
    """The exact one-sided lower bound (Clopper and Pearson, 1934) of a share: the `1 - CONFIDENCE` quantile
    of Beta(right, wrong + 1). 299 right of 299 prove 99 %."""
    from scipy.special import betaincinv  # scipy.stats takes a second more to import

    if not agreement.right:
        return 0.0
    wrong = agreement.total - agreement.right
    return float(betaincinv(agreement.right, wrong + 1, 1 - CONFIDENCE))


def drift(accuracy: Accuracy, stored: Accuracy | None, limits: AccuracyLimits) -> tuple[str, ...]:
    """How the answers became worse than the baseline's, beyond what the limits allow."""
    if stored is None:
        return ()
    before = {output.output: output for output in stored.outputs}
    found = []
    for output in accuracy.outputs:
        old = before.get(output.output)
        if old is None or output.sqnr_db is None or output.sqnr_db >= _DRIFT_CEILING_DB:
            continue
        was = _DRIFT_CEILING_DB if old.sqnr_db is None else min(old.sqnr_db, _DRIFT_CEILING_DB)
        if not old.nonfinite and output.sqnr_db < was - limits.drift_db:
            found.append(f"the SQNR of {output.output!r} fell from {was:.1f} to {output.sqnr_db:.1f} dB")
    task, old_task = accuracy.task, stored.task
    if task and old_task and task.name == old_task.name:
        least = old_task.head - limits.task_drop * abs(old_task.head)
        if task.head < least:
            found.append(f"{task.name} fell from {old_task.head:.4g} to {task.head:.4g}")
    return tuple(found)


def _suspicions(accuracy: Accuracy) -> list[str]:
    """What was warned of when the graph was made, and is the likely cause of wrong answers."""
    return [note for note in accuracy.notes if note.startswith("calibration: ")]


def with_answers(judgement: Judgement, case: CaseResult, baselines: Baselines) -> Judgement:
    """The judgement on a case, its answers considered: wrong ones fail it whatever its speed.

    Below a floor is ERROR, which nothing but a right answer or another floor mends and which cannot be
    promoted; worse than the baseline's is REGRESSION. A case that was not measured stands on the baseline's
    accuracy.
    """
    stored = baselines.cases.get(case.case.id)
    before = stored.case.accuracy if stored else None
    accuracy = case.accuracy
    if isinstance(case.outcome, Failed | NotRun):
        return judgement
    if accuracy is None and isinstance(case.outcome, Unchanged):
        accuracy, before = before, None
    if accuracy is None:
        return judgement
    broken = (*accuracy.failures, *failures(accuracy, case.case.accuracy, case.case.precision))
    if broken := tuple(dict.fromkeys(broken)):
        reason = f"the answers are wrong: {'; '.join((*broken, *_suspicions(accuracy)))}"
        return msgspec.structs.replace(judgement, verdict=Verdict.ERROR, code="accuracy", reason=reason)
    if worse := drift(accuracy, before, case.case.accuracy):
        reason = f"the answers are worse than the baseline's: {'; '.join((*worse, *_suspicions(accuracy)))}"
        return msgspec.structs.replace(judgement, verdict=Verdict.REGRESSION, code=DRIFT, reason=reason)
    return judgement
