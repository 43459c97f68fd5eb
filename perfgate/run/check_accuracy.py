"""Before speed counts: the answers of every engine to be measured, held against the reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from perfgate.errors import CaseError
from perfgate.gate.verdict.accuracy import judged
from perfgate.measure.accuracy.check import Checked, CheckRequest, check
from perfgate.measure.launch import EngineTarget
from perfgate.measure.schedule import Job, not_capturable
from perfgate.records import Accuracy, CaseResult, Record, RunResult, Stages
from perfgate.run.prepare import Pending

_NO_RUNTIME = (
    "not checked: the reference is ONNX Runtime, which is not installed; pip install 'perfgate[cpu]'"
)
_NO_OPERATOR = "not checked: the reference is ONNX Runtime, which has no operators of the model's plugins"


class AccuracyResult(Record):
    """A case's judged accuracy, with what it took to find out where it could be."""

    accuracy: Accuracy
    checked: Checked | None = None


def check_accuracy(
    pending: Sequence[Pending], jobs: Sequence[Job], store: Path, say: Callable[[str], None]
) -> Iterator[tuple[str, AccuracyResult]]:
    """Each job's case id with its engine's answers; what cannot be found out is a failure of its own.

    They come one by one, so that an interrupt keeps those that were found.
    """
    asked = {item.result.case.id: item for item in pending}
    for job in jobs:
        if not isinstance(job.target, EngineTarget):
            continue
        item, case = asked[job.case_id], job.target.case
        if item.answers is None:
            why = _NO_OPERATOR if item.request.plugins else _NO_RUNTIME
            yield job.case_id, AccuracyResult(accuracy=Accuracy(reference="none", notes=(why,)))
            continue
        say(f"{job.case_id}: checking the answers")
        request = msgspec.structs.replace(item.answers, target=job.target)
        try:
            checked = _checked(request, store)
            accuracy = judged(checked.accuracy, case.accuracy, case.precision)
            yield job.case_id, AccuracyResult(accuracy=accuracy, checked=checked)
        except CaseError as error:
            said = f"they cannot be checked: {error.reason}"
            accuracy = Accuracy(reference="none", failures=(said,), notes=item.answers.notes)
            yield job.case_id, AccuracyResult(accuracy=accuracy)


def _checked(request: CheckRequest, store: Path) -> Checked:
    """The answers in the case's own mode, so that a wrong graph is seen too; enqueued where it cannot be
    captured, for its answers are the same."""
    try:
        return check(request, store)
    except CaseError as error:
        if not not_capturable(error, request.target.case.mode):
            raise
        return check(msgspec.structs.replace(request, target=request.target.enqueued()), store)


def with_accuracy_of(result: RunResult, found: dict[str, AccuracyResult]) -> RunResult:
    """The run with every case's accuracy, and what its verification took among its stages."""
    cases = (_with(case, found.get(case.case.id)) for case in result.cases)
    return msgspec.structs.replace(result, cases=tuple(cases))


def _with(case: CaseResult, answered: AccuracyResult | None) -> CaseResult:
    if answered is None:
        return case
    stages, checked = case.stages, answered.checked
    if checked is not None:
        before = stages or Stages()
        stages = msgspec.structs.replace(
            before,
            reference_ns=checked.reference_ns or None,
            verification_ns=checked.verification_ns,
            cached=(*before.cached, *(("reference",) if checked.reference_cached else ())),
            unknown=(*before.unknown, *(() if checked.reference_ns else ("reference",))),
        )
    return msgspec.structs.replace(case, accuracy=answered.accuracy, stages=stages)
