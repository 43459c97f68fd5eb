"""Before speed counts: the answers of every engine to be measured, held against the reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from perfgate.errors import CaseError
from perfgate.gate.accuracy import judged
from perfgate.measure.accuracy import check
from perfgate.measure.launch import EngineTarget
from perfgate.measure.schedule import Job
from perfgate.preparation import Pending
from perfgate.records import Accuracy

_NO_RUNTIME = (
    "not checked: the reference is ONNX Runtime, which is not installed; pip install 'perfgate[cpu]'"
)


def check_answers(
    pending: Sequence[Pending], jobs: Sequence[Job], store: Path, say: Callable[[str], None]
) -> dict[str, Accuracy]:
    """The accuracy of every job's engine by case id; one that cannot be found out is a failure of its own."""
    asked = {item.result.case.id: item for item in pending}
    found = {}
    for job in jobs:
        if not isinstance(job.target, EngineTarget):
            continue
        item, case = asked[job.case_id], job.target.case
        if item.answers is None:
            found[job.case_id] = Accuracy(reference="none", notes=(_NO_RUNTIME,))
            continue
        say(f"{job.case_id}: checking the answers")
        request = msgspec.structs.replace(item.answers, target=job.target)
        try:
            found[job.case_id] = judged(check(request, store), case.accuracy, case.precision)
        except CaseError as error:
            said = f"they cannot be checked: {error.what}"
            found[job.case_id] = Accuracy(reference="none", failures=(said,), notes=item.answers.notes)
    return found
