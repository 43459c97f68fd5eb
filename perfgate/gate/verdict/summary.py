"""The run in a sentence: verdict, exit code, counts, and what to do next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from perfgate.gate.verdict.accuracy import DRIFT
from perfgate.gate.verdict.next_steps import next_steps, worst_regression
from perfgate.records import CaseResult, Judgement, Scope, Summary, Verdict
from perfgate.util.wording import change

# Worst first: the run's verdict is the worst of its cases'. A red case wins over infrastructure.
SEVERITY = (
    Verdict.REGRESSION,
    Verdict.ERROR,
    Verdict.MISSING,
    Verdict.INCONCLUSIVE,
    Verdict.INCOMPARABLE,
    Verdict.INVALID,
    Verdict.NEW,
    Verdict.WAIVED,
    Verdict.IMPROVEMENT,
    Verdict.PASS,
    Verdict.UNCHANGED,
    Verdict.NOT_RUN,
)


def summarise(
    cases: Sequence[CaseResult],
    *,
    results: str,
    require_baseline: bool = False,
    interrupted: bool = False,
    dirty: bool = False,
) -> Summary:
    """The summary of a judged run. `results` is the path that the advice names; `dirty` is whether it was
    measured on a tree with uncommitted changes.

    The exit code is 1 if any case is red, else 3 if any is infrastructure's, else 0. NEW is red under
    `require_baseline`. A run that judged no case at all is an error, never green.
    """
    judgements = {result.case.id: result.judgement for result in cases if result.judgement}
    counts = Counter(judgement.verdict for judgement in judgements.values())
    judged = [verdict for verdict in SEVERITY if counts[verdict] and verdict is not Verdict.NOT_RUN]
    if not judged:
        return Summary(
            verdict=Verdict.ERROR,
            exit_code=1,
            sentence="Nothing was measured: no case was selected that runs here.",
            counts={verdict.value: count for verdict, count in counts.items()},
            next_steps=("perfgate doctor",),
        )
    codes = {verdict.exit_code for verdict in judged}
    if require_baseline and counts[Verdict.NEW]:
        codes.add(1)
    if interrupted:
        codes.add(3)
    return Summary(
        verdict=judged[0],
        exit_code=next((code for code in (1, 3) if code in codes), 0),
        sentence=_sentence(judged[0], counts, judgements, interrupted),
        counts={verdict.value: counts[verdict] for verdict in SEVERITY if counts[verdict]},
        next_steps=next_steps(judged, cases, results, require_baseline=require_baseline, dirty=dirty),
    )


def of_share(summary: Summary, scope: Scope | None) -> Summary:
    """The summary of one shard. A share of the cases that has none to judge is no fault, as long as there are
    cases to share out: `perfgate merge` judges the union, and an empty one is its error."""
    judged = any(count for name, count in summary.counts.items() if name != Verdict.NOT_RUN.value)
    if judged or scope is None or scope.shards == 1 or not scope.plan or summary.exit_code == 3:
        return summary
    share = f"share {scope.shard}/{scope.shards} of {len(scope.plan)} cases"
    return Summary(
        verdict=Verdict.UNCHANGED,
        exit_code=0,
        sentence=f"Nothing to measure here: {share} has none that runs.",
        counts=summary.counts,
        next_steps=("perfgate merge joins this with the other shards",),
    )


def _sentence(
    worst: Verdict, counts: Counter[Verdict], judgements: dict[str, Judgement], interrupted: bool
) -> str:
    if interrupted:
        return "Interrupted: what was measured until then is kept."
    total = sum(counts.values()) - counts[Verdict.NOT_RUN]
    if worst is Verdict.REGRESSION:
        case_id = worst_regression(judgements)
        judgement = judgements[case_id]
        if judgement.code == DRIFT:
            less = "less right than the baseline"
            return f"{_cases(counts[worst], total)} {less}: {case_id}: {judgement.reason}."
        how = change(judgement.ratio.estimate) if judgement.ratio else judgement.reason
        return f"{_cases(counts[worst], total)} slower than allowed; the worst is {case_id}: {how}."
    if worst is Verdict.NEW:
        if counts[worst] == total:
            return f"{_cases(total, total)} new: nothing is stored for this machine to compare with."
        whom = "it" if counts[worst] == 1 else "them"
        return f"{_cases(counts[worst], total)} new: nothing is stored to compare {whom} with."
    if worst is Verdict.ERROR:
        return f"{_subject(counts[worst], total)} failed."
    if worst is Verdict.INVALID:
        was = "was" if counts[worst] == 1 else "were"
        return f"{_subject(counts[worst], total)} {was} not measured validly."
    words = {
        Verdict.MISSING: "missing: a baseline was not compared",
        Verdict.INCONCLUSIVE: "undecided",
        Verdict.INCOMPARABLE: "not comparable with the stored baseline",
        Verdict.WAIVED: "waived",
        Verdict.IMPROVEMENT: "faster than the baseline",
        Verdict.PASS: "as fast as the baseline",
        Verdict.UNCHANGED: "unchanged, so nothing had to be timed",
    }
    if worst is Verdict.PASS:
        return f"{_cases(total, total)} as fast as before."
    return f"{_cases(counts[worst], total)} {words[worst]}."


def _cases(count: int, total: int) -> str:
    return f"{_subject(count, total)} {'is' if count == 1 else 'are'}"


def _subject(count: int, total: int) -> str:
    if count == total:
        return "The only case" if total == 1 else f"All {total} cases"
    return f"{count} of {total} cases"
