"""GitHub-flavoured Markdown: the verdict first, what changed next, the rest folded away.

Foreign text, which the view has made single lines of, goes through `_text` or `_code` and nowhere else:
what it says is shown, and none of it becomes markup, a mention, a reference to an issue or a link.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from perfgate.report.view import NOTE, Group, Row, RunView, run_view

if TYPE_CHECKING:
    from collections.abc import Iterable

    from perfgate.records import RunResult

LIMIT = 60_000  # GitHub takes 65,536 in a comment; the publisher adds a hidden tag and a link
_FOOTER_RESERVE = 1_000

# Entities, not backslashes: an entity is never read as structure, also not inside a table cell.
_ENTITIES = {ord(c): f"&#{ord(c)};" for c in "|`<>&*_[]~$\\#@!"}
_LINKED = re.compile(r"(?<=@)|(?<=#)|(?<=://)|(?<=\bwww\.)|(?<=\bGH-)", re.IGNORECASE)
_HEAD = "| | verdict | case | head median | baseline median | change | p99 | reason |"
_RULE = "|---|---|---|---:|---:|---|---:|---|"


def render(result: RunResult) -> str:
    """The report, at most `LIMIT` characters: whole rows are dropped, and it says how many."""
    view = run_view(result)
    top, bottom = _top(view), _bottom(view)
    budget = LIMIT - len(top) - len(bottom) - _FOOTER_RESERVE
    loud, budget = _fit([_row(row) for row in view.loud], budget)
    quiet, budget = _fit([_row(row) for row in view.quiet], budget)
    groups, budget = _fit([_group(group) for group in view.not_run], budget)
    parts = [top]
    if loud:
        parts.append(_table(loud))
    if dropped := len(view.loud) - len(loud):
        parts.append(f"**{dropped} more of these {_rows(dropped)} left out** to keep this comment short.")
    if view.quiet or view.not_run:
        parts.append(_folded(view, quiet, groups))
    return "\n\n".join([*parts, bottom]) + "\n"


def _top(view: RunView) -> str:
    lines = [f"**{view.tag.symbol} {view.tag.word}** — {_text(view.sentence)}"]
    if view.worst:
        lines.append(f"Worst change: {_text(view.worst)}.")
    if view.counts:
        lines.append(" · ".join(f"{tag.symbol} {count} {_text(tag.word)}" for tag, count in view.counts))
    if view.steps:
        shown = view.steps[:5]
        steps = [f"- {''.join(_code(t) if code else _text(t) for code, t in step)}" for step in shown]
        if more := len(view.steps) - len(shown):
            steps.append(f"- … and {more} more in the HTML report")
        lines.append("Next steps:\n\n" + "\n".join(steps))
    return "\n\n".join(lines)


def _bottom(view: RunView) -> str:
    facts = " · ".join(f"{name}: {_text(value)}" for name, value in view.facts)
    return f"<sub>{facts}<br>{NOTE}</sub>"


def _folded(view: RunView, rows: list[str], groups: list[str]) -> str:
    others = len(view.quiet)
    skipped = sum(len(group.cases) for group in view.not_run)
    words = [f"{others} with nothing to report" if others else "", f"{skipped} not run" if skipped else ""]
    parts = [f"<details><summary>Other cases: {', '.join(word for word in words if word)}</summary>"]
    if rows:
        parts.append(_table(rows))
    if dropped := len(view.quiet) - len(rows):
        parts.append(f"{dropped} more {_rows(dropped)} left out to keep this comment short.")
    if groups:
        parts.append("Not run:\n\n" + "\n".join(groups))
    if dropped := len(view.not_run) - len(groups):
        parts.append(f"{dropped} more reasons for not running were left out to keep this comment short.")
    return "\n\n".join([*parts, "</details>"])


def _rows(count: int) -> str:
    return "row was" if count == 1 else "rows were"


def _table(rows: Iterable[str]) -> str:
    return "\n".join([_HEAD, _RULE, *rows])


def _row(row: Row) -> str:
    shift = f"{row.change}<br>{row.interval}" if row.interval else row.change
    reason = _text(row.reason)
    cells = [row.tag.symbol, row.tag.word, _code(row.case), row.head, row.base, shift, row.p99, reason]
    return f"| {' | '.join(cells)} |"


def _group(group: Group) -> str:
    shown = ", ".join(_code(case) for case in group.cases[:20])
    more = f" and {len(group.cases) - 20} more" if len(group.cases) > 20 else ""
    return f"- {_text(group.reason)}: {shown}{more}"


def _fit(lines: list[str], budget: int) -> tuple[list[str], int]:
    """As many whole lines from the front as fit, and what is left of the budget."""
    kept: list[str] = []
    for text in lines:
        if len(text) + 1 > budget:
            return kept, 0  # no shorter row slips in behind a longer one: the order is by severity
        kept.append(text)
        budget -= len(text) + 1
    return kept, budget


def _text(text: str) -> str:
    """Foreign text in running Markdown. A zero-width space keeps `@` and `#` from finding their target."""
    marked = _LINKED.sub("\u200b", text)
    return marked.translate(_ENTITIES).replace("\u200b", "&#8203;")


def _code(text: str) -> str:
    """Foreign text as code, to be copied as it is: GitHub links nothing inside `<code>`."""
    return f"<code>{text.translate(_ENTITIES)}</code>"
