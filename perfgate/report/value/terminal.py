"""Stacks side by side, for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from perfgate.report.i18n import gettext as _, use_language
from perfgate.report.run.terminal import WIDE, _Pen, plain_text
from perfgate.report.value.stacks import HEADS, ValueView, value_view
from perfgate.report.value.view import SmallTable, case_view
from perfgate.value.business import BusinessCase
from perfgate.value.table import StackTable

_RIGHT = ("median", "p99", "queries", "items", "memory")
_ONE_LINE = 150  # below this width a stack's mode goes under its name, and queries are left to the JSON


def render(table: StackTable, width: int = WIDE) -> str:
    """The table as plain text of the given width, without colour."""
    return plain_text(lambda console: print_stacks(table, console), width)


def print_stacks(table: StackTable, console: Console, language: str = "en") -> None:
    """Print the table, what was not compared and why, and what the numbers are."""
    with use_language(language):
        _print_view(value_view(table), _Pen(console), console)


def _print_view(view: ValueView, pen: _Pen, console: Console) -> None:
    for stack in view.stacks:
        pen.print(stack)
    if view.rows:
        pen.print("")
        _table(view, pen, console)
    for reason, cases in view.refused:
        more = _(", … and %(count)s more") % {"count": len(cases) - 6} if len(cases) > 6 else ""
        pen.print(f"– {reason}: {', '.join(cases[:6])}{more}", "dim")
    pen.print("")
    pen.print(view.sentence, "bold")
    for note in view.notes:
        pen.print(f"  {note}", "dim")


def render_case(case: BusinessCase, language: str = "en", width: int = WIDE) -> str:
    """The business case as plain text of the given width, without colour."""
    return plain_text(lambda console: print_case(case, console, language), width)


def print_case(case: BusinessCase, console: Console, language: str = "en") -> None:
    """Print the paragraph, the table, the details and what it takes for granted."""
    with use_language(language):
        view, pen = case_view(case), _Pen(console)
        pen.print(view.heading, "bold")
        console.print(pen.text(view.paragraph))
        for warning in view.warnings:
            console.print(pen.text(f"! {warning}", "yellow"))
        pen.print("")
        _grid(*view.grid, pen, console, [row.tone for row in view.rows])
        for table in view.tables:
            _small(table, pen, console)
        pen.print("")
        pen.print(_("What this takes for granted"), "bold")
        for note in view.assumptions:
            console.print(pen.text(f"  {note}", "dim"))


def _small(table: SmallTable, pen: _Pen, console: Console) -> None:
    pen.print("")
    pen.print(table.title, "bold")
    _grid(table.heads, table.rows, pen, console, [""] * len(table.rows))
    if table.note:
        console.print(pen.text(f"  {table.note}", "dim"))


def _grid(
    heads: Sequence[str], rows: Sequence[Sequence[str]], pen: _Pen, console: Console, styles: Sequence[str]
) -> None:
    """A table whose last column has the row's style."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for head in heads:
        table.add_column(pen.text(head), overflow="fold")
    for row, style in zip(rows, styles, strict=True):
        last = len(row) - 1
        table.add_row(*(pen.text(cell, style if place == last else "") for place, cell in enumerate(row)))
    console.print(table)


def _table(view: ValueView, pen: _Pen, console: Console) -> None:
    wide = console.width >= _ONE_LINE
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for head in HEADS:
        if wide or head not in ("mode", "queries"):
            right = head in _RIGHT
            table.add_column(_(head), justify="right" if right else "left", overflow="fold", no_wrap=right)
    for number, row in enumerate(view.rows):
        if row.first and number:
            table.add_row()
        cells = dict(zip(HEADS, row.cells, strict=True))
        if not wide:
            cells["stack"] += f"\n{cells.pop('mode')}"
            del cells["queries"]
        table.add_row(*(pen.text(cell, "dim" if row.original else "") for cell in cells.values()))
    console.print(table)
