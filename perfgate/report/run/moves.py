"""What a promotion moved, as plain lines and as the body of a pull request."""

from __future__ import annotations

from collections.abc import Sequence

from perfgate.report.format import duration
from perfgate.report.run.legs import escape, is_plain


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


def moves_text(
    moves: Sequence[tuple[str, float | None, float | None]], reason: str, *, note: str = "", url: str = ""
) -> str:
    """The body of a promotion's pull request: the reason, and a table of what moves, largest change first."""
    rows = sorted(moves, key=lambda move: -abs(_shift(move)))
    table = ["| case | stored median | new median | change |", "|---|---:|---:|---:|"]
    table += [_move(move) for move in rows[:300]]
    hidden = f"… and {len(rows) - 300} more." if len(rows) > 300 else ""
    link = f"[The run that measured them]({url})" if is_plain(url) else ""
    parts = [f"Reason: {escape(reason)}", "\n".join(table), hidden, link, note]
    return "\n\n".join(part for part in parts if part)


def _shift(move: tuple[str, float | None, float | None]) -> float:
    _, before, after = move
    return after / before - 1 if before and after else 0.0


def _move(move: tuple[str, float | None, float | None]) -> str:
    case_id, before, after = move
    old = duration(before) if before else "new"
    new = duration(after) if after else "removed"
    shift = f"{_shift(move):+.1%}" if before and after else ""
    return f"| {escape(case_id)} | {old} | {new} | {shift} |"
