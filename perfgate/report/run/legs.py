"""Several legs in one text: the verdict on all first, then each leg's own report, worst first."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import Final

from perfgate.records import CaseResult, Leg
from perfgate.report.run.markdown import _text, render
from perfgate.util.wording import change

LIMIT: Final = 62_000
_SYMBOL = {0: "✓", 1: "✗", 2: "!", 3: "!"}
_WORD = {0: "passed", 1: "failed", 2: "is not finished", 3: "is not finished"}
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>perfgate</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>:root{{color-scheme:light dark}}body{{font:16px/1.5 system-ui,sans-serif;max-width:60rem;
margin:2rem auto;padding:0 1rem}}table{{border-collapse:collapse}}th,td{{text-align:left;padding:.4rem .8rem;
border-bottom:1px solid}}</style></head>
<body><main><h1>perfgate {word}</h1>
<table><caption>One row a leg</caption><thead><tr><th scope="col">leg</th><th scope="col">verdict</th>
<th scope="col">in a sentence</th></tr></thead><tbody>
{rows}
</tbody></table>{more}</main></body></html>
"""


def escape(text: str) -> str:
    """Foreign text for running Markdown: nothing in it is markup, a mention, a link or an issue's number."""
    return _text(" ".join(text.split())).replace(":", "&#58;")  # `:name:` is a picture


def headline(legs: Sequence[Leg], exit_code: int) -> str:
    """The verdict on all legs, as plain text: it is a commit status too, so it is short."""
    if not legs:
        return "nothing was measured"
    worst = min(legs, key=_rank)
    said = worst.faults[0] if worst.faults and worst.exit_code != 1 else _sentence(worst)
    name = f"{worst.name}: " if len(legs) > 1 else ""
    return f"{name}{said}" if exit_code else _sentence(worst)


def markdown(legs: Sequence[Leg], exit_code: int, *, links: Sequence[tuple[str, str]] = ()) -> str:
    """One comment for all legs, at most `LIMIT` characters; what does not fit is named, not cut in two."""
    top = [f"### {_SYMBOL[exit_code]} perfgate {_WORD[exit_code]}"]
    if len(legs) > 1:
        top.append(
            "\n".join(["| | leg | in a sentence |", "|---|---|---|", *map(_row, sorted(legs, key=_rank))])
        )
    bottom = " · ".join(f"[{escape(text)}]({url})" for text, url in links if is_plain(url))
    budget = LIMIT - sum(map(len, top)) - len(bottom) - 200
    parts: list[str] = []
    omitted = 0
    for leg in sorted(legs, key=_rank):
        text = _section(leg, titled=len(legs) > 1)
        if omitted or len(text) + 2 > budget:
            omitted += 1  # no shorter section slips in behind a longer one: the order is by severity
            continue
        budget -= len(text) + 2
        parts.append(text)
    if omitted:
        parts.append(f"The sections of {omitted} more legs were left out to keep this comment short.")
    return "\n\n".join([*top, *parts, *([bottom] if bottom else [])]) + "\n"


def index(legs: Sequence[Leg], exit_code: int, *, trends: str = "") -> str:
    """The first page of a folder of reports: each leg with a link to its own, and one to the trends."""
    rows = "\n".join(map(_html_row, sorted(legs, key=_rank)))
    more = f'<p><a href="{html.escape(trends)}">Trends of all cases</a></p>' if trends else ""
    return _PAGE.format(word=_WORD[exit_code], rows=rows, more=more)


def _html_row(leg: Leg) -> str:
    name = html.escape(leg.name)
    link = f'<a href="{name}/report.html">{name}</a>' if leg.result else name
    word = f"{_SYMBOL[leg.exit_code]} {_WORD[leg.exit_code]}"
    return f'<tr><th scope="row">{link}</th><td>{word}</td><td>{html.escape(_summary(leg))}</td></tr>'


def issue_text(leg: str, case: CaseResult, *, commit: str, owners: Sequence[str], url: str = "") -> str:
    """What a nightly issue says of one regressed case; owners are mentioned, foreign text is not markup."""
    judgement = case.judgement
    ratio = judgement.ratio.estimate if judgement and judgement.ratio else None
    lines = [
        f"**{escape(case.case.id)}** on {escape(leg)} "
        + (f"is {change(ratio)} than its baseline." if ratio and ratio < 2 else "regressed."),
        f"Reason: {escape(judgement.reason if judgement else '')}",
        f"Measured at commit {escape(commit[:40] or 'unknown')}.",
        f"Measure it alone: `perfgate run -k {escape(case.case.id)} --remeasure`"
        if re.fullmatch(r"[A-Za-z0-9._/+-]+", case.case.id)
        else "",
        f"[The nightly run]({url})" if is_plain(url) else "",
        f"Owners: {' '.join(owners)}" if owners else "",
        "perfgate closes this issue when the case is as fast as its baseline again.",
    ]
    return "\n\n".join(line for line in lines if line)


def _row(leg: Leg) -> str:
    return f"| {_SYMBOL[leg.exit_code]} | {escape(leg.name)} | {escape(_summary(leg))} |"


def _summary(leg: Leg) -> str:
    return "; ".join([*leg.faults, _sentence(leg)])


def _section(leg: Leg, *, titled: bool) -> str:
    parts = [f"#### {escape(leg.name)}"] if titled else []
    parts += [f"**!** {escape(fault)}" for fault in leg.faults]
    if leg.result:
        parts.append(render(leg.result).rstrip())
    return "\n\n".join(parts)


def _rank(leg: Leg) -> tuple[int, str]:
    return (1, 3, 2, 0).index(leg.exit_code), leg.name


def _sentence(leg: Leg) -> str:
    return leg.result.summary.sentence if leg.result and leg.result.summary else "no result"


def is_plain(url: str) -> bool:
    """Whether a link may stand in a text as it is."""
    return re.fullmatch(r"https://[A-Za-z0-9._~:/?#=&%+-]{1,500}", url) is not None
