"""A model's precisions in the terminal and as Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perfgate.records import PrecisionTable
from perfgate.report.precision import HEADER, cells, remarks, title, worst

if TYPE_CHECKING:
    from rich.console import Console


def print_table(table: PrecisionTable, console: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, pad_edge=False)
    for place, name in enumerate(HEADER):
        grid.add_column(name, justify="right" if 0 < place < len(HEADER) - 1 else "left")
    for row in cells(table):
        grid.add_row(*(Text(cell) for cell in row))
    console.print(Text(title(table)))
    console.print(grid)
    for remark in remarks(table):
        console.print(Text(f"– {remark}"))
    for precision, layers in worst(table):
        console.print(Text(f"\n{precision}: the layers that lose most"))
        for layer in layers:
            console.print(Text(f"  {layer}"))


def render(table: PrecisionTable) -> str:
    """Markdown, with whatever comes from a model escaped."""
    lines = [f"### {_escaped(title(table))}", ""]
    lines += [_line(HEADER), _line(("---",) * len(HEADER)), *(_line(row) for row in cells(table)), ""]
    lines += [f"- {_escaped(remark)}" for remark in remarks(table)]
    for precision, layers in worst(table):
        lines += ["", f"{precision}: the layers that lose most", ""]
        lines += [f"1. {_escaped(layer.strip())}" for layer in layers]
    return "\n".join(lines).rstrip() + "\n"


def _line(row: tuple[str, ...]) -> str:
    return f"| {' | '.join(cell if set(cell) == {'-'} else _escaped(cell) for cell in row)} |"


def _escaped(text: str) -> str:
    for sign in "\\`*_{}[]<>()#+!|~":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())
