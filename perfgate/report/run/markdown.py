"""GitHub-flavoured Markdown: the verdict first, what changed next, the rest folded away.

Foreign text, which the view has made single lines of, goes through `_text` or `_code` and nowhere else:
what it says is shown, and none of it becomes markup, a mention, a reference to an issue or a link.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from perfgate.records import RunResult
from perfgate.report import i18n
from perfgate.report.i18n import N_, gettext, ngettext
from perfgate.report.run.view import Group, Row, RunView, run_view

LIMIT = 60_000  # GitHub takes 65,536 in a comment; the publisher adds a hidden tag and a link
_FOOTER_RESERVE = 1_000

# Entities, not backslashes: an entity is never read as structure, also not inside a table cell.
_ENTITIES = {ord(c): f"&#{ord(c)};" for c in "|`<>&*_[]~$\\#@!"}
_LINKED = re.compile(r"(?<=@)|(?<=#)|(?<=://)|(?<=\bwww\.)|(?<=\bGH-)", re.IGNORECASE)
_HEADS = (
    N_("Verdict"),
    N_("Case"),
    N_("Head median"),
    N_("Baseline median"),
    N_("Change"),
    N_("p99"),
    N_("Reason"),
)
_RULE = "|---|---|---|---:|---:|---|---:|---|"


def render(result: RunResult, language: str = "en") -> str:
    """The report, at most `LIMIT` characters: whole rows are dropped, and it says how many."""
    with i18n.use_language(language):
        return _render(run_view(result))


def _render(view: RunView) -> str:
    top, bottom = _top(view), _bottom(view)
    budget = LIMIT - len(top) - len(bottom) - _FOOTER_RESERVE
    changes = [f"- {_code(where)}: {_code(base)} → {_code(head)}" for where, base, head in view.policy]
    policy, budget = _fit(changes, budget)
    loud, budget = _fit([_row(row) for row in view.loud], budget)
    quiet, budget = _fit([_row(row) for row in view.quiet], budget)
    groups, budget = _fit([_group(group) for group in view.not_run], budget)
    parts = [top]
    if view.policy:
        parts.append(_changed_policy(policy, len(view.policy) - len(policy)))
    if loud:
        parts.append(_table(loud))
    if dropped := len(view.loud) - len(loud):
        parts.append(
            ngettext(
                "**%(count)s more of these rows was left out** to keep this comment short.",
                "**%(count)s more of these rows were left out** to keep this comment short.",
                dropped,
            )
            % {"count": dropped}
        )
    if view.quiet or view.not_run:
        parts.append(_folded(view, quiet, groups))
    return "\n\n".join([*parts, bottom]) + "\n"


def _top(view: RunView) -> str:
    lines = [f"**{view.tag.symbol} {view.tag.label}** — {_text(view.sentence)}"]
    if view.worst:
        lines.append(gettext("Worst change: %(change)s.") % {"change": _text(view.worst)})
    if view.counts:
        lines.append(" · ".join(f"{tag.symbol} {count} {_text(tag.label)}" for tag, count in view.counts))
    if view.steps:
        shown = view.steps[:5]
        steps = [f"- {''.join(_code(t) if code else _text(t) for code, t in step)}" for step in shown]
        if more := len(view.steps) - len(shown):
            steps.append("- " + gettext("… and %(count)s more in the HTML report") % {"count": more})
        lines.append(gettext("Next steps:") + "\n\n" + "\n".join(steps))
    return "\n\n".join(lines)


def _bottom(view: RunView) -> str:
    facts = " · ".join(f"{_text(name)}: {_text(value)}" for name, value in view.facts)
    return f"<sub>{facts}<br>{view.note}</sub>"


def _changed_policy(lines: list[str], dropped: int) -> str:
    """What the change alters in its own judge: first, because a reader must not miss it."""
    head = gettext("**This change alters its own judge.** Judged by the policy of the base commit:")
    if dropped:
        lines = [*lines, "- " + gettext("… and %(count)s more in the HTML report") % {"count": dropped}]
    return f"{head}\n\n" + "\n".join(lines)


def _folded(view: RunView, rows: list[str], groups: list[str]) -> str:
    others = len(view.quiet)
    skipped = sum(len(group.cases) for group in view.not_run)
    words = [
        gettext("%(count)s with nothing to report") % {"count": others} if others else "",
        gettext("%(count)s not run") % {"count": skipped} if skipped else "",
    ]
    listed = gettext(", ").join(word for word in words if word)
    summary = gettext("Other cases: %(counts)s") % {"counts": listed}
    parts = [f"<details><summary>{summary}</summary>"]
    if rows:
        parts.append(_table(rows))
    if dropped := len(view.quiet) - len(rows):
        parts.append(
            ngettext(
                "%(count)s more row was left out to keep this comment short.",
                "%(count)s more rows were left out to keep this comment short.",
                dropped,
            )
            % {"count": dropped}
        )
    if groups:
        parts.append(gettext("Not run:") + "\n\n" + "\n".join(groups))
    if dropped := len(view.not_run) - len(groups):
        parts.append(
            ngettext(
                "%(count)s more reason for not running was left out to keep this comment short.",
                "%(count)s more reasons for not running were left out to keep this comment short.",
                dropped,
            )
            % {"count": dropped}
        )
    return "\n\n".join([*parts, "</details>"])


def _table(rows: Iterable[str]) -> str:
    heads = " | ".join(gettext(head) for head in _HEADS)
    return "\n".join([f"| | {heads} |", _RULE, *rows])


def _row(row: Row) -> str:
    shift = f"{row.change}<br>{row.interval}" if row.interval else row.change
    reason = _text(row.reason)
    cells = [row.tag.symbol, row.tag.label, _code(row.case), row.head, row.base, shift, row.p99, reason]
    return f"| {' | '.join(cells)} |"


def _group(group: Group) -> str:
    shown = ", ".join(_code(case) for case in group.cases[:20])
    more = len(group.cases) - 20
    if more > 0:
        shown += " " + gettext("and %(count)s more") % {"count": more}
    return f"- {_text(group.reason)}: {shown}"


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
