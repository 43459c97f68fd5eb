"""The terminal: a table of verdicts, what was not run and why, the sentence, and what to do next."""

from __future__ import annotations

import io
from collections.abc import Callable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from perfgate.records import RunResult
from perfgate.report import i18n
from perfgate.report.i18n import gettext
from perfgate.report.run.view import NOT_RUN, RunView, Tag, run_view

ROWS = 60
WIDE = 120
_STYLES = {"red": "bold red", "amber": "yellow", "green": "green", "blue": "cyan", "grey": "dim"}
_PLAIN = str.maketrans({"µ": "u", "×": "x", "−": "-", "–": "-", "—": "-", "…": "...", "·": "-"})


def render(result: RunResult, language: str = "en", width: int = WIDE) -> str:
    """The report as plain text of the given width, without colour."""
    return plain_text(lambda console: print_result(result, console, language), width)


def plain_text(draw: Callable[[Console], None], width: int = WIDE) -> str:
    """What `draw` prints to a console of the given width, as text without colour."""
    sink = io.StringIO()
    draw(Console(file=sink, width=width, color_system=None, legacy_windows=False))
    return "\n".join(text.rstrip() for text in sink.getvalue().splitlines()) + "\n"


def print_result(result: RunResult, console: Console, language: str = "en") -> None:
    """Print the report. Width, colour and encoding are the console's (rich honours NO_COLOR).

    A console that cannot write the language gets English.
    """
    pen = _Pen(console)
    with i18n.use_language(language if pen.unicode else "en"):
        _print(run_view(result), pen, console)


def _print(view: RunView, pen: _Pen, console: Console) -> None:
    shown = (*view.loud, *view.quiet[: max(0, ROWS - len(view.loud))])
    if shown:
        _table(view, len(shown), pen, console)
    if hidden := len(view.rows) - len(shown):
        pen.print(gettext("… and %(count)s more cases with nothing to report") % {"count": hidden}, "dim")
    if console.width < WIDE:
        for row in view.loud:
            if row.reason:
                pen.print(f"{pen.symbol(row.tag)} {row.case}: {row.reason}", _STYLES[row.tag.tone])
    for group in view.not_run:
        cases = ", ".join(group.cases[:6])
        if (more := len(group.cases) - 6) > 0:
            cases += ", … " + gettext("and %(count)s more") % {"count": more}
        pen.print(f"– {NOT_RUN.label} ({len(group.cases)}) {group.reason}: {cases}", "dim")
    _closing(view, pen)


def _closing(view: RunView, pen: _Pen) -> None:
    pen.print("")
    if view.policy:
        pen.print(
            gettext("This change alters its own judge; judged by the policy of the base commit:"), "yellow"
        )
    for where, base, head in view.policy:
        pen.print(f"  {where}: {base} → {head}")
    if view.counts:
        pen.print(" · ".join(f"{pen.symbol(tag)} {count} {tag.label}" for tag, count in view.counts), "dim")
    pen.print(f"{pen.symbol(view.tag)} {view.tag.label}", _STYLES[view.tag.tone], rest=f"  {view.sentence}")
    if view.worst:
        pen.print("  " + gettext("worst change: %(change)s") % {"change": view.worst})
    for step in view.steps:
        pen.print(f"  → {''.join(text for _, text in step)}", "bold")


def _table(view: RunView, count: int, pen: _Pen, console: Console) -> None:
    wide = console.width >= WIDE
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column(gettext("verdict"), no_wrap=True)
    table.add_column(gettext("case"), overflow="fold", min_width=12)
    table.add_column(gettext("head\nmedian"), justify="right", no_wrap=wide)
    table.add_column(gettext("baseline\nmedian"), justify="right", no_wrap=wide)
    table.add_column(gettext("change"), no_wrap=wide, overflow="fold")
    if wide:
        table.add_column("p99", justify="right", no_wrap=True)
        table.add_column(gettext("reason"), overflow="fold", ratio=1)
    for row in (*view.loud, *view.quiet)[:count]:
        style = _STYLES[row.tag.tone]
        shift = row.change if not row.range else f"{row.change}\n{row.range}"
        cells = [
            pen.text(f"{pen.symbol(row.tag)} {row.tag.label}", style),
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
        self.unicode = self._encoding.startswith("utf")

    def symbol(self, tag: Tag) -> str:
        return tag.symbol if self.unicode else tag.ascii

    def text(self, text: str, style: str = "") -> Text:
        if not self.unicode:
            plain = text.translate(_PLAIN).replace("→", ">")
            text = plain.encode(self._encoding, "replace").decode(self._encoding)
        return Text(text, style=style)

    def print(self, text: str, style: str = "", rest: str = "") -> None:
        # soft_wrap: a command that the reader copies must not be cut by a line break of ours.
        self._console.print(self.text(text, style) + self.text(rest), soft_wrap=True, highlight=False)
