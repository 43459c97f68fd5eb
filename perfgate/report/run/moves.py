"""What a promotion moved, as plain lines."""

from __future__ import annotations

from collections.abc import Sequence

from perfgate.report.format import duration


def render_moves(moves: Sequence[tuple[str, float | None, float | None]]) -> str:
    """One line a case: its id, the stored median before and after (nanoseconds), and the change."""
    if not moves:
        return "nothing moved: the baseline holds these numbers already"
    return "\n".join(_line(*move) for move in moves)


def _line(case_id: str, before_ns: float | None, after_ns: float | None) -> str:
    if after_ns is None:
        return f"{case_id}: removed"
    if before_ns is None:
        return f"{case_id}: new, {duration(after_ns)}"
    return f"{case_id}: {duration(before_ns)} -> {duration(after_ns)} ({after_ns / before_ns - 1:+.1%})"
