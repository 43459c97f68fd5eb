"""Stacks side by side, as GitHub-flavoured Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from perfgate.report.i18n import gettext as _, use_language
from perfgate.report.run.markdown import _code, _text
from perfgate.report.value.charts import case_charts
from perfgate.report.value.stacks import HEADS, ValueRow, ValueView, value_view
from perfgate.report.value.view import SmallTable, case_view
from perfgate.value.business import BusinessCase
from perfgate.value.table import StackTable

_RULE = "|---|---|---|---:|---|---:|---:|---:|---:|"


def render(table: StackTable, language: str = "en") -> str:
    """The table, what was not compared and why, and what the numbers are."""
    with use_language(language):
        return _stacks(value_view(table))


def _stacks(view: ValueView) -> str:
    parts = [f"**{_text(view.sentence)}**", "\n".join(f"- {_text(stack)}" for stack in view.stacks)]
    if view.rows:
        parts.append(
            "\n".join([f"| {' | '.join(_(head) for head in HEADS)} |", _RULE, *map(_row, view.rows)])
        )
    if view.refused:
        lines = [
            f"- {_text(reason)}: {', '.join(_code(case) for case in cases)}" for reason, cases in view.refused
        ]
        parts.append(_("Not compared:") + "\n\n" + "\n".join(lines))
    if view.notes:
        parts.append(f"<sub>{'<br>'.join(_text(note) for note in view.notes)}</sub>")
    return "\n\n".join(parts) + "\n"


def render_case(case: BusinessCase, language: str = "en") -> str:
    """The business case: the paragraph first, then the table, what it rests on, and the details."""
    with use_language(language):
        view = case_view(case)
        parts = [f"## {_text(view.heading)}", _text(view.paragraph)]
        parts += [f"> ⚠ {_text(warning)}" for warning in view.warnings]
        parts.append(_grid(*view.grid))
        tables = [*view.tables, *(table for chart in case_charts(case) for table in chart.tables)]
        parts += [_folded(table) for table in tables]
        parts.append("\n".join(f"- {_text(note)}" for note in view.assumptions))
        if case.stacks is not None and case.stacks.rows:
            parts.append(_stacks(value_view(case.stacks)).rstrip())
        return "\n\n".join(parts) + "\n"


def _folded(table: SmallTable) -> str:
    note = f"\n\n<sub>{_text(table.note)}</sub>" if table.note else ""
    title = f"<details><summary>{_text(table.title)}</summary>"
    return f"{title}\n\n{_grid(table.heads, table.rows)}{note}\n\n</details>"


def _grid(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(heads) - 1)]
    head, *text = [[_text(cell) for cell in row] for row in (heads, *rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *text))


def _row(row: ValueRow) -> str:
    title, *cells = row.cells
    return f"| {' | '.join([_code(title) if title else '', *(_text(cell) for cell in cells)])} |"
