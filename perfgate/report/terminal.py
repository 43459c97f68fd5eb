"""The terminal: a table of verdicts, what was not run and why, the sentence, and what to do next."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from perfgate.report.view import RunView, Tag, run_view

if TYPE_CHECKING:
    from perfgate.records import RunResult

ROWS = 60
WIDE = 120
_STYLES = {"red": "bold red", "amber": "yellow", "green": "green", "blue": "cyan", "grey": "dim"}
_PLAIN = str.maketrans({"µ": "u", "×": "x", "−": "-", "–": "-", "—": "-", "…": "...", "·": "-"})


def render(result: RunResult, width: int = WIDE) -> str:
    """The report as plain text of the given width, without colour."""
    sink = io.StringIO()
    print_result(result, Console(file=sink, width=width, color_system=None, legacy_windows=False))
    return "\n".join(text.rstrip() for text in sink.getvalue().splitlines()) + "\n"


def print_result(result: RunResult, console: Console) -> None:
    """Print the report. Width, colour and encoding are the console's (rich honours NO_COLOR)."""
    view = run_view(result)
    pen = _Pen(console)
    shown = (*view.loud, *view.quiet[: max(0, ROWS - len(view.loud))])
    if shown:
        _table(view, len(shown), pen, console)
    if hidden := len(view.rows) - len(shown):
        pen.print(f"… and {hidden} more cases with nothing to report", "dim")
    if console.width < WIDE:
        for row in view.loud:
            if row.reason:
                pen.print(f"{pen.symbol(row.tag)} {row.case}: {row.reason}", _STYLES[row.tag.tone])
    for group in view.not_run:
        cases = ", ".join(group.cases[:6])
        more = f", … and {len(group.cases) - 6} more" if len(group.cases) > 6 else ""
        pen.print(f"– NOT RUN ({len(group.cases)}) {group.reason}: {cases}{more}", "dim")
    _closing(view, pen)


def _closing(view: RunView, pen: _Pen) -> None:
    pen.print("")
    if view.counts:
        pen.print(" · ".join(f"{pen.symbol(tag)} {count} {tag.word}" for tag, count in view.counts), "dim")
    pen.print(f"{pen.symbol(view.tag)} {view.tag.word}", _STYLES[view.tag.tone], rest=f"  {view.sentence}")
    if view.worst:
        pen.print(f"  worst change: {view.worst}")
    for step in view.steps:
        pen.print(f"  → {''.join(text for _, text in step)}", "bold")


def _table(view: RunView, count: int, pen: _Pen, console: Console) -> None:
    wide = console.width >= WIDE
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("verdict", no_wrap=True)
    table.add_column("case", overflow="fold", min_width=12)
    table.add_column("head\nmedian", justify="right", no_wrap=wide)
    table.add_column("baseline\nmedian", justify="right", no_wrap=wide)
    table.add_column("change", no_wrap=wide, overflow="fold")
    if wide:
        table.add_column("p99", justify="right", no_wrap=True)
        table.add_column("reason", overflow="fold", ratio=1)
    for row in (*view.loud, *view.quiet)[:count]:
        style = _STYLES[row.tag.tone]
        shift = row.change if not row.range else f"{row.change}\n{row.range}"
        cells = [
            pen.text(f"{pen.symbol(row.tag)} {row.tag.word}", style),
            pen.text(row.case),
            pen.text(row.head),
            pen.text(row.base),
            pen.text(shift, style if not row.tag.quiet else ""),
        ]
        table.add_row(*cells, *((pen.text(row.p99), pen.text(row.reason)) if wide else ()))
    console.print(table)


class _Pen:
    """Writes what the console's encoding can say: a report must not fail on an ASCII terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._encoding = (console.encoding or "ascii").lower()
        self._unicode = self._encoding.startswith("utf")

    def symbol(self, tag: Tag) -> str:
        return tag.symbol if self._unicode else tag.ascii

    def text(self, text: str, style: str = "") -> Text:
        if not self._unicode:
            plain = text.translate(_PLAIN).replace("→", ">")
            text = plain.encode(self._encoding, "replace").decode(self._encoding)
        return Text(text, style=style)

    def print(self, text: str, style: str = "", rest: str = "") -> None:
        # soft_wrap: a command that the reader copies must not be cut by a line break of ours.
        self._console.print(self.text(text, style) + self.text(rest), soft_wrap=True, highlight=False)
