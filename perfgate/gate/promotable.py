"""What promotion takes: of no case at all, only of one that is named, and of any."""

from __future__ import annotations

from perfgate.records import CaseResult, Verdict

REFUSED = (Verdict.ERROR, Verdict.INVALID)
TO_ACCEPT = (
    Verdict.REGRESSION,
    Verdict.MISSING,
    Verdict.INCONCLUSIVE,
    Verdict.WAIVED,
    Verdict.INCOMPARABLE,
)
# A PASS by which a loss would become the baseline all the same.
ALREADY_ON_BASE = "already-on-base"
# What the reason of a new case says that too few valid launches were taken of.
UNFIT = "not to be promoted"


def refused(case: CaseResult) -> bool:
    """Whether no reason makes a case of a run a baseline, so that a selection with it in it is refused."""
    judgement = case.judgement
    return (
        judgement is None
        or judgement.verdict in REFUSED
        or UNFIT in judgement.reason
        or bool(case.accuracy and case.accuracy.failures)
    )


def needs_accept(case: CaseResult) -> bool:
    """Whether a loss would become the baseline, which has to be named: `--accept`."""
    judgement = case.judgement
    return judgement is not None and (judgement.verdict in TO_ACCEPT or judgement.code == ALREADY_ON_BASE)
