"""Before speed counts: the answers of every engine to be measured, held against the reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
) -> Iterator[tuple[str, Accuracy]]:
    """Each job's case id with its engine's accuracy; one that cannot be found out is a failure of its own.

    They come one by one, so that an interrupt keeps those that were found.
    """
    asked = {item.result.case.id: item for item in pending}
    for job in jobs:
        if not isinstance(job.target, EngineTarget):
            continue
        item, case = asked[job.case_id], job.target.case
        if item.answers is None:
            yield job.case_id, Accuracy(reference="none", notes=(_NO_RUNTIME,))
            continue
        say(f"{job.case_id}: checking the answers")
        request = msgspec.structs.replace(item.answers, target=job.target)
        try:
            accuracy = judged(check(request, store), case.accuracy, case.precision)
        except CaseError as error:
            said = f"they cannot be checked: {error.what}"
            accuracy = Accuracy(reference="none", failures=(said,), notes=item.answers.notes)
        yield job.case_id, accuracy
