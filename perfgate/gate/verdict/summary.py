"""The run in a sentence: verdict, exit code, counts, and what to do next."""

from __future__ import annotations

import itertools
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence

from perfgate.gate.promotable import UNFIT, needs_accept, refused
from perfgate.gate.verdict.accuracy import DRIFT
from perfgate.records import CaseResult, Judgement, Record, Scope, Summary, Verdict
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
    number, total = counts[worst], sum(counts.values()) - counts[Verdict.NOT_RUN]
    some, are = _subject(number, total), _cases(number, total)
    if worst is Verdict.REGRESSION:
        case_id = worst_regression(judgements)
        judgement = judgements[case_id]
        if judgement.code == DRIFT:
            return f"{are} less right than the baseline: {case_id}: {judgement.reason}."
        how = change(judgement.ratio.estimate) if judgement.ratio else judgement.reason
        return f"{are} slower than allowed; the worst is {case_id}: {how}."
    whom = (
        "for this machine to compare" if number == total else f"to compare {'it' if number == 1 else 'them'}"
    )
    return {
        Verdict.NEW: f"{are} new: nothing is stored {whom} with.",
        Verdict.ERROR: f"{some} failed.",
        Verdict.INVALID: f"{some} {'was' if number == 1 else 'were'} not measured validly.",
        Verdict.MISSING: f"{are} missing: a baseline was not compared.",
        Verdict.INCONCLUSIVE: f"{are} undecided.",
        Verdict.INCOMPARABLE: f"{are} not comparable with the stored baseline.",
        Verdict.WAIVED: f"{are} waived.",
        Verdict.IMPROVEMENT: f"{are} faster than the baseline.",
        Verdict.PASS: f"{_cases(total, total)} as fast as before.",
        Verdict.UNCHANGED: f"{are} unchanged, so nothing had to be timed.",
    }[worst]


def _cases(count: int, total: int) -> str:
    return f"{_subject(count, total)} {'is' if count == 1 else 'are'}"


def _subject(count: int, total: int) -> str:
    if count == total:
        return "The only case" if total == 1 else f"All {total} cases"
    return f"{count} of {total} cases"


# More names than this make no command that anybody reads.
_MOST_ACCEPTED = 5


class _Promotion(Record):
    """The command that promotes what is meant of a results file, and the cases that it names."""

    command: str
    cases: tuple[str, ...]


def next_steps(
    judged: Sequence[Verdict],
    cases: Sequence[CaseResult],
    results: str,
    *,
    require_baseline: bool,
    dirty: bool,
) -> tuple[str, ...]:
    """Commands that do what they say: `promote` refuses a whole selection for one case of it."""
    judgements = {case.case.id: case.judgement for case in cases if case.judgement}
    ids = {verdict: [key for key, one in judgements.items() if one.verdict is verdict] for verdict in judged}
    steps: list[str] = []
    promotions: list[str] = []
    if red := ids.get(Verdict.REGRESSION):
        worst = worst_regression(judgements)
        steps.append(f"measure it alone: perfgate run -k {shlex.quote(worst)} --remeasure")
        # The worst first: where not all can be named, it is.
        red.sort(key=lambda key: key != worst)
        if asked := _promotion(cases, red, results, "…", accept=True):
            promotions.append(f"{_whether(asked, red, ('is', 'are'), 'meant')}: {asked.command}")
    gone = ids.get(Verdict.MISSING, [])
    if gone and (asked := _promotion(cases, gone, results, "…", accept=True)):
        said = _whether(asked, gone, ("was", "were"), "removed on purpose")
        promotions.append(f"{said}: {asked.command}")
    unfit = [key for key in ids.get(Verdict.NEW, ()) if UNFIT in judgements[key].reason]
    fit = [key for key in ids.get(Verdict.NEW, ()) if key not in unfit]
    if unfit:
        steps.append("run again on a quiet machine: perfgate run")
    # What failed is mended first: its case is to be stored with the others.
    if fit and Verdict.ERROR not in ids and (asked := _promotion(cases, fit, results, "first baseline")):
        required = " (--require-baseline makes this fail)" if require_baseline else ""
        promotions.append(f"store these numbers{_part(asked, fit)}{required}: {asked.command}")
    better = ids.get(Verdict.IMPROVEMENT)
    if better and (asked := _promotion(cases, better, results, "…")):
        promotions.append(f"keep the gain{_part(asked, better)}: {asked.command}")
    if promotions and dirty:
        steps.append("commit and run again before you promote: uncommitted changes are refused")
    steps += promotions
    if Verdict.INCONCLUSIVE in ids:
        steps.append("take more launches: perfgate run --launches 12")
    if Verdict.INCOMPARABLE in ids:
        steps.append(
            "after a change of toolchain: perfgate run --paired REV --base-python PYTHON (or --base-image I) "
            "holds both side by side; promote its results"
        )
    if Verdict.ERROR in ids:
        steps.append("see the failed case's message above; perfgate doctor tells what this machine lacks")
    return tuple(steps)


def _promotion(
    cases: Sequence[CaseResult], wanted: Sequence[str], results: str, reason: str, *, accept: bool = False
) -> _Promotion | None:
    """How to promote the cases that are `wanted`, or the first of them that can be promoted without others
    that are refused; None where no case can."""
    barred = [
        case.case.id for case in cases if case.case.id not in wanted and (needs_accept(case) or refused(case))
    ]
    wrong = [case.case.id for case in cases if case.case.id in wanted and refused(case)]
    for keyword in ("", _shared(wanted), *wanted):
        chosen = tuple(key for key in wanted if keyword in key)
        if any(keyword in key for key in (*barred, *wrong)) or (accept and len(chosen) > _MOST_ACCEPTED):
            continue
        words = [f"-k {shlex.quote(keyword)}"] if keyword else []
        words += [f"--accept {shlex.quote(key)}" for key in chosen] if accept else []
        named = " ".join([results, *words])
        return _Promotion(command=f'perfgate promote {named} --reason "{reason}"', cases=chosen)
    return None


def _shared(ids: Sequence[str]) -> str:
    """What all ids begin with, in whole parts, such as `net/fp16/`."""
    parts = zip(*(key.split("/")[:-1] for key in ids), strict=False)
    return "".join(f"{same[0]}/" for same in itertools.takewhile(lambda one: len(set(one)) == 1, parts))


def _part(asked: _Promotion, all_of_them: Sequence[str]) -> str:
    return ", some at a time" if len(asked.cases) < len(all_of_them) else ""


def _whether(asked: _Promotion, all_of_them: Sequence[str], verb: tuple[str, str], what: str) -> str:
    if part := _part(asked, all_of_them):
        return f"of those that {verb[1]} {what}{part}"
    return f"if it {verb[0]} {what}" if len(all_of_them) == 1 else f"if they {verb[1]} {what}"


def worst_regression(judgements: Mapping[str, Judgement]) -> str:
    """The regression that is slower than all others; where none is slower, the first."""
    red = {key: one for key, one in judgements.items() if one.verdict is Verdict.REGRESSION}
    slow = {key: one for key, one in red.items() if one.code != DRIFT} or dict([next(iter(red.items()))])
    return max(slow, key=lambda key: one.estimate if (one := slow[key].ratio) else 0.0)
