"""What to do next: commands that do what they say."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Mapping, Sequence

from perfgate.gate.promotable import UNFIT, needs_accept, refused
from perfgate.gate.verdict.accuracy import DRIFT
from perfgate.records import CaseResult, Judgement, Record, Verdict

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
