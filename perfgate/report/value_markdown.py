"""Stacks side by side, as GitHub-flavoured Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perfgate.report.markdown import _code, _text
from perfgate.report.value_view import HEADS, ValueRow, value_view

if TYPE_CHECKING:
    from perfgate.value.table import StackTable

_RULE = "|---|---|---|---:|---|---:|---:|---:|---:|"


def render(table: StackTable) -> str:
    """The table, what was not compared and why, and what the numbers are."""
    view = value_view(table)
    parts = [f"**{_text(view.sentence)}**", "\n".join(f"- {_text(stack)}" for stack in view.stacks)]
    if view.rows:
        parts.append("\n".join([f"| {' | '.join(HEADS)} |", _RULE, *map(_row, view.rows)]))
    if view.refused:
        lines = [
            f"- {_text(reason)}: {', '.join(_code(case) for case in cases)}" for reason, cases in view.refused
        ]
        parts.append("Not compared:\n\n" + "\n".join(lines))
    if view.notes:
        parts.append(f"<sub>{'<br>'.join(_text(note) for note in view.notes)}</sub>")
    return "\n\n".join(parts) + "\n"


def _row(row: ValueRow) -> str:
    title, *cells = row.cells
    return f"| {' | '.join([_code(title) if title else '', *(_text(cell) for cell in cells)])} |"
